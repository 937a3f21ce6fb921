"""depth-estimation: a forward pass over a picture, then its depth at the picture's own size, encoded.

The depth from the device is small. It is enlarged only in `finish`, one record at a time, which takes about 9 bytes per
pixel of the original picture.
"""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForDepthEstimation

from schemas.errors import Permanent, RecordError
from schemas.tasks.depth_estimation import TASK, Params
from workers.handler import Handler, Loaded, Output, Piece, Prediction, Record
from workers.models.load import load_model
from workers.vision.processor import in_equal_shapes, load_processor, piece_of, probe

#: The outputs from which image processors make the final depth. The second is DepthPro's scale.
_FIELDS = ("predicted_depth", "field_of_view")
#: The number of pixels that are scaled to 16 bits at once.
_STRIP = 1 << 20


class DepthEstimation(Handler[Params]):
    task = TASK

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        processor = load_processor(folder)
        if not hasattr(processor, "post_process_depth_estimation"):
            raise Permanent(
                f"the image processor, a {type(processor).__name__}, is not one of a model of depth", code="model"
            )
        loaded = Loaded(load_model(AutoModelForDepthEstimation, folder, device, dtype), processor, device, dtype)
        probe(loaded)
        return loaded

    def prepare(self, records: Sequence[Record]) -> list[Iterable[Piece]]:
        return [self._pieces(record) for record in records]

    def _pieces(self, record: Record) -> Iterator[Piece]:
        image = record["image"].rgb()
        self._check_size(*image.size)
        yield piece_of(self.loaded, image)

    def _check_size(self, width: int, height: int) -> None:
        """Refuse a picture for which a model without a size of its own would need too much memory."""
        own_size = getattr(self.loaded.processor, "size", None)
        if own_size is None and width * height > self.params.max_pixels:
            raise RecordError(
                "image_too_large",
                f"the model would see the picture at its full size, {width} x {height} pixels; params.max_pixels is "
                f"{self.params.max_pixels}: make pictures smaller, or allow more",
            )

    def infer(self, pieces: Sequence[Piece]) -> list[Output]:
        """Return the model's depth for each piece, at the model's resolution, by the name that its processor uses."""
        return in_equal_shapes(self.loaded, pieces, self._forward)

    def _forward(self, inputs: dict[str, torch.Tensor]) -> list[Output]:
        output = self.loaded.model(**inputs)
        found = {name: output[name] for name in _FIELDS if output.get(name) is not None}
        return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        width, height = pieces[0].notes
        depth = self._at_full_size(outputs[0], width, height)
        low, high = float(depth.min()), float(depth.max())
        if not np.isfinite([low, high]).all():
            raise RecordError("not_finite", "the depth is not a number; float16 may be too narrow for this model")
        encode_depth = as_png16 if self.params.encoding == "png16" else as_float32
        return {
            "depth": encode_depth(depth, low, high),
            "encoding": self.params.encoding,
            "min": low,
            "max": high,
            "mean": float(depth.mean(dtype=np.float64)),
            "width": width,
            "height": height,
        }

    def _at_full_size(self, output: dict[str, np.ndarray], width: int, height: int) -> np.ndarray:
        """Return float32 of shape (height, width), resized by the model's image processor.

        The result is reshaped, since some processors drop axes of length 1, such as that of a picture of one row.
        """
        tensors = {name: torch.from_numpy(np.asarray(array))[None] for name, array in output.items()}
        raw = SimpleNamespace(**(dict.fromkeys(_FIELDS) | tensors))
        (done,) = self.loaded.processor.post_process_depth_estimation(raw, [(height, width)])
        array: np.ndarray = done["predicted_depth"].numpy().reshape(height, width)
        return array


def as_png16(depth: np.ndarray, low: float, high: float) -> bytes:
    """Return a grey 16-bit PNG: 0 at `low`, 65535 at `high`, and all 0 if these are equal."""
    from PIL import Image

    scale = 65535 / (high - low) if high > low else 0.0
    levels = np.empty(depth.shape, np.uint16)
    rows = max(1, _STRIP // depth.shape[1])
    for top in range(0, len(depth), rows):
        strip = depth[top : top + rows].astype(np.float64)
        levels[top : top + rows] = np.rint((strip - low) * scale)
    file = BytesIO()
    Image.fromarray(levels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def as_float32(depth: np.ndarray, low: float, high: float) -> bytes:
    """Return the depth as little-endian float32, row by row from the top."""
    return depth.astype("<f4", copy=False).tobytes()
