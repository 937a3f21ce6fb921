"""Tiny checkpoints that classify sound: Wav2Vec2 of both kinds of normalisation, its kin, and a model of spectra."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    AutoConfig,
    AutoModelForAudioClassification,
    Wav2Vec2FeatureExtractor,
)

from tests.checkpoints import SMALL

SOUNDS = {0: "yes", 1: "no", 2: "left", 3: "right", 4: "_silence_", 5: "_unknown_"}
#: An output spans 400 samples and comes each 320, as in the real models; of fewer and narrower layers.
CONVOLUTIONS: dict[str, Any] = {
    "conv_dim": (16, 16, 16),
    "conv_kernel": (60, 6, 4),
    "conv_stride": (20, 4, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


def make_sound_classifier(folder: Path, norm: str = "group", architecture: str = "wav2vec2", **config: Any) -> Path:
    """A model that classifies waveforms, in `folder`, with its feature extractor.

    `norm` is `feat_extract_norm`: "group" as wav2vec2-base and the SUPERB models have it, or "layer" as the large
    models, whose extractors give masks.
    """
    torch.manual_seed(23)
    names: dict[str, Any] = {"id2label": SOUNDS, "label2id": {name: i for i, name in SOUNDS.items()}}
    settings = SMALL | CONVOLUTIONS | names | {"classifier_proj_size": 32, "initializer_range": 0.3}
    settings |= {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", "conv_bias": norm == "layer"}
    auto: Any = AutoModelForAudioClassification
    model = auto.from_config(AutoConfig.for_model(architecture, **(settings | config)))
    with torch.no_grad():
        model.classifier.weight.mul_(3)
    model.save_pretrained(folder)
    extractor: Any = Wav2Vec2FeatureExtractor
    extractor(return_attention_mask=norm == "layer").save_pretrained(folder)
    return folder


def make_spectrum_classifier(folder: Path) -> Path:
    """An audio spectrogram transformer over the first third of a second, in `folder`."""
    torch.manual_seed(23)
    names: dict[str, Any] = {"id2label": SOUNDS, "label2id": {name: i for i, name in SOUNDS.items()}}
    shape = {"max_length": 32, "num_mel_bins": 16, "patch_size": 8, "frequency_stride": 8, "time_stride": 8}
    model = ASTForAudioClassification(ASTConfig(**(SMALL | names | shape | {"initializer_range": 0.3})))
    model.save_pretrained(folder)
    extractor: Any = ASTFeatureExtractor
    extractor(max_length=32, num_mel_bins=16).save_pretrained(folder)
    return folder
