"""Tiny checkpoints that write down speech: Wav2Vec2 and its kin with CTC, and Whisper of one language and of many.

Whisper hears two seconds at once here, where nothing else is said. Weights are scaled, so that answers depend on the
sound.
"""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCTC,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from tests.checkpoints import SMALL, byte_level
from tests.checkpoints_audio import CONVOLUTIONS

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
LETTERS = "|ETAONIHSRDLU'"
LANGUAGES = ("en", "de", "ja")
WINDOW_S = 2


def make_ctc(folder: Path, norm: str = "group", architecture: str = "wav2vec2", **config: Any) -> Path:
    """A CTC model with its tokenizer and feature extractor; `norm` is as in `make_sound_classifier`."""
    torch.manual_seed(29)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *LETTERS])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    tokenizer: Any = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)
    settings: dict[str, Any] = SMALL | CONVOLUTIONS | {"initializer_range": 0.3}
    settings |= {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", "conv_bias": norm == "layer"}
    settings |= {"vocab_size": len(vocabulary), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    auto: Any = AutoModelForCTC
    model = auto.from_config(AutoConfig.for_model(architecture, **(settings | config)))
    with torch.no_grad():
        model.lm_head.weight.mul_(10)
        # Special tokens never, blanks and spaces more often than by chance.
        model.lm_head.bias[: len(SPECIAL) + 1] = torch.tensor([5.0, -100, -100, -100, 12])
    model.save_pretrained(folder)
    extractor: Any = Wav2Vec2FeatureExtractor
    extractor(return_attention_mask=norm == "layer").save_pretrained(folder)
    return folder


def whisper_tokenizer(languages: tuple[str, ...], window_s: int) -> Any:
    """Bytes and a few words, then Whisper's own tokens in their order, the times last."""
    trained = json.loads(byte_level().backend_tokenizer.to_str())["model"]
    known = [token for token in trained["vocab"] if token not in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    vocabulary = {token: place for place, token in enumerate(known)}
    merges = [tuple(merge) for merge in trained["merges"]]
    controls = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{name}|>" for name in (*languages, *controls))]
    tokenizer: Any = WhisperTokenizer(vocab=vocabulary, merges=merges, extra_special_tokens=special)
    tokenizer.add_tokens([f"<|{place * 0.02:.2f}|>" for place in range(50 * window_s + 1)])
    return tokenizer


def make_whisper(
    folder: Path, many: bool = True, generation: dict[str, Any] | None = None, window_s: int = WINDOW_S, **config: Any
) -> Path:
    """A Whisper of `LANGUAGES`, or of English alone. `generation` is written into its generation configuration."""
    torch.manual_seed(31)
    tokenizer = whisper_tokenizer(LANGUAGES if many else (), window_s)
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("endoftext", "startoftranscript")}
    end = ids["endoftext"]
    shape: dict[str, Any] = {f"{side}_layers": 2 for side in ("encoder", "decoder")}
    shape |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    shape |= {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")}
    shape |= {"d_model": 32, "num_mel_bins": 16, "max_source_positions": 50 * window_s, "max_target_positions": 40}
    shape |= {"vocab_size": len(tokenizer), "init_std": 0.3, "median_filter_width": 3}
    shape |= {"decoder_start_token_id": ids["startoftranscript"]}
    shape |= {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    model: Any = WhisperForConditionalGeneration(WhisperConfig(**(shape | config)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "encoder_attn" in name and name.endswith("weight"):
                weight.mul_(3)
            if "encoder.conv" in name:
                weight.mul_(1.5)
        model.get_input_embeddings().weight[end].mul_(1.5)  # so that some transcripts end by themselves
    own = model.generation_config
    untimed = tokenizer.convert_tokens_to_ids("<|notimestamps|>")
    controls = list(range(ids["startoftranscript"], untimed + 1))
    own._from_model_config = False
    own.update(max_length=16, suppress_tokens=controls, begin_suppress_tokens=[end])
    own.no_timestamps_token_id, own.is_multilingual, own.alignment_heads = untimed, many, [[0, 1], [1, 0], [1, 1]]
    if many:
        own.lang_to_id = {f"<|{name}|>": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in LANGUAGES}
        own.task_to_id = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("transcribe", "translate")}
    for name, value in (generation or {}).items():
        setattr(own, name, value)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    extractor: Any = WhisperFeatureExtractor
    extractor(feature_size=16, chunk_length=window_s).save_pretrained(folder)
    return folder
