"""What do tasks on sound share? A clip as a model's inputs, and batches that don't change a clip's answer."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from schemas.errors import Permanent, RecordError
from workers.handler import Loaded, Piece
from workers.models.device import to_device

#: The number of seconds that count as a token.
TOKEN_S = 0.02
#: Models that read the waveform itself, and ignore padding if they normalise each moment by itself ("layer").
_BLIND_TO_PADDING = ("wav2vec2", "hubert", "unispeech", "unispeech-sat")
#: The number of seconds of sound that a spectrum spans.
_SPECTRUM_S = 0.025


def load_feature_extractor(folder: Path) -> Any:
    """Return the folder's feature extractor. Raise Permanent (code `model`) if there is none that can be loaded."""
    auto: Any = transformers.AutoFeatureExtractor
    try:
        return auto.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # Transformers raises many classes for a broken folder
        raise Permanent(f"the feature extractor doesn't load: {type(error).__name__}: {error}", code="model") from error


def shortest(loaded: Loaded) -> int:
    """Return the least samples of a clip: the span of one output of the model's convolutions, or of one spectrum."""
    config = loaded.model.config
    if not hasattr(config, "conv_kernel"):
        rate: int = loaded.processor.sampling_rate
        return round(_SPECTRUM_S * rate)
    samples: int = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def check_length(samples: np.ndarray, needed: int) -> None:
    """Raise RecordError (`audio_too_short`) if a clip has fewer samples than the model needs."""
    if len(samples) < needed:
        raise RecordError(
            "audio_too_short", f"the clip has {len(samples)} samples at the model's rate, and the model needs {needed}"
        )


def pads(loaded: Loaded) -> bool:
    """Return whether clips may be padded to one length: if a padded clip's answer is that of the clip alone.

    Models whose first layer normalises over the whole clip (`feat_extract_norm` "group") have no mask for it, see
    https://huggingface.co/docs/transformers/model_doc/wav2vec2#transformers.Wav2Vec2FeatureExtractor.
    """
    config = loaded.model.config
    return config.model_type in _BLIND_TO_PADDING and config.feat_extract_norm == "layer"


def encode(loaded: Loaded, samples: np.ndarray, notes: Any = None) -> Piece:
    """Return the piece that the feature extractor makes of float32 mono samples at the model's rate."""
    rate = loaded.processor.sampling_rate
    features = loaded.processor(samples, sampling_rate=rate, return_tensors="np")
    inputs = {name: value[0] for name, value in features.items()}
    values = inputs[loaded.processor.model_input_names[0]]
    if values.ndim == 1:  # a waveform; its mask would be all ones
        return Piece({"input_values": values}, max(1, round(len(values) / (TOKEN_S * rate))), notes)
    # Spectra, in either layout: one per 10 ms, and more of them than bands.
    return Piece(inputs, max(1, max(values.shape) // 2), notes)


def batches(loaded: Loaded, pieces: Sequence[Piece], padding: bool) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Yield the indices of pieces that can be computed together, and the model's inputs for them, on its device.

    With `padding`, these are all pieces, as floats of shape (pieces, longest) and, if lengths differ, an int64 mask.
    Without it, they are pieces of equal shape.
    """
    if padding:
        yield list(range(len(pieces))), _padded(loaded, [piece.inputs["input_values"] for piece in pieces])
        return
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for place, piece in enumerate(pieces):
        alike.setdefault(tuple(value.shape for value in piece.inputs.values()), []).append(place)
    for places in alike.values():
        names = pieces[places[0]].inputs
        stacked = {name: np.stack([pieces[place].inputs[name] for place in places]) for name in names}
        yield places, {name: _on_device(loaded, array) for name, array in stacked.items()}


def _padded(loaded: Loaded, waves: Sequence[np.ndarray]) -> dict[str, Any]:
    lengths = [len(wave) for wave in waves]
    values = np.zeros((len(waves), max(lengths)), np.float32)
    for row, wave in zip(values, waves, strict=True):
        row[: len(wave)] = wave
    inputs = {"input_values": _on_device(loaded, values)}
    if min(lengths) < max(lengths):
        mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
        inputs["attention_mask"] = _on_device(loaded, mask.astype(np.int64))
    return inputs


def _on_device(loaded: Loaded, array: np.ndarray) -> torch.Tensor:
    tensor = to_device(torch.from_numpy(array), loaded.device)
    return tensor.to(loaded.dtype) if tensor.is_floating_point() else tensor
