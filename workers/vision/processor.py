"""What do tasks on pictures share? The image processor, a picture as the model's inputs, and batches of equal shapes.

The processor is that of a Transformers pipeline (AutoImageProcessor: torchvision's if it is installed, else Pillow's).
It is called on one picture at a time, as in the pipeline, so that answers equal the pipeline's.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoImageProcessor

from schemas.errors import Permanent, RecordError
from workers.handler import Loaded, Output, Piece, Record
from workers.models.device import DEVICE_LOST, OUT_OF_MEMORY, to_device
from workers.vision.picture import MAX_PIXELS, Picture, require_pillow

if TYPE_CHECKING:
    from PIL import Image

#: How many of a picture's numbers cost as much as a token: 16 x 16 pixels of three channels.
_PER_TOKEN = 16 * 16 * 3


def load_processor(folder: Path) -> Any:
    """Return the folder's image processor.

    Raise Permanent: code `model` if there is none that can be loaded, `missing_extra` if Pillow isn't installed.
    """
    require_pillow()
    auto: Any = AutoImageProcessor
    try:
        return auto.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # Transformers raises many classes for a broken or a missing file
        raise Permanent(f"the image processor doesn't load: {type(error).__name__}: {error}", code="model") from error


def probe(loaded: Loaded) -> Any:
    """Return the model's output for two equal pictures, which shows its fields and their shapes.

    Raise Permanent (code `model`) if processor and model don't fit together, or need more than a picture.
    """
    from PIL import Image

    try:
        inputs = encode(loaded.processor, Image.linear_gradient("L").resize((64, 64)).convert("RGB"))
        with torch.inference_mode():
            return loaded.model(**_batch(loaded, [inputs, inputs]))
    except (*OUT_OF_MEMORY, *DEVICE_LOST):
        raise
    except Exception as error:  # a model of another kind raises any class
        raise Permanent(f"the model can't run on a picture: {type(error).__name__}: {error}", code="model") from error


def encode(processor: Any, image: "Image.Image") -> dict[str, torch.Tensor]:
    """Return the model's inputs by name, on the CPU, each with a first axis of length 1. Safe in threads.

    Raise RecordError: `image_too_large` if the processor would enlarge a long and narrow picture beyond all bounds,
    `image_unfit` if it refuses the picture, as some processors do if no pixel is left of a picture made smaller.
    """
    _check_growth(processor, image)
    try:
        return dict(processor(images=image, return_tensors="pt"))
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        width, height = image.size
        raise RecordError(
            "image_unfit", f"the model's image processor can't take {width} x {height} pixels: {error}"[:500]
        ) from error


def _check_growth(processor: Any, image: "Image.Image") -> None:
    """Refuse a picture that becomes too large if the processor fits its shorter side to an edge before it crops."""
    size = getattr(processor, "size", None) or {}
    edge = size.get("shortest_edge")
    if not edge or size.get("longest_edge") or not getattr(processor, "do_resize", False):
        return
    edge = int(edge / (getattr(processor, "crop_pct", None) or 1))
    short, long = sorted(image.size)
    if edge * edge * long / short > MAX_PIXELS:
        raise RecordError(
            "image_too_large",
            f"the picture is {long} pixels long and {short} narrow; the model's image processor would make it "
            f"{int(edge * long / short)} x {edge}, over the limit of {MAX_PIXELS} pixels",
        )


def piece_of(loaded: Loaded, image: "Image.Image") -> Piece:
    """Return a decoded picture as a piece, with its width and height as notes. Raise what `encode` raises."""
    inputs = encode(loaded.processor, image)
    return Piece(inputs, max(1, inputs["pixel_values"].numel() // _PER_TOKEN), notes=image.size)


def prepare(loaded: Loaded, records: Sequence[Record]) -> list[Iterator[Piece]]:
    """Return each record's picture as one piece, which is decoded only when it is read."""
    return [_decoded(loaded, record["image"]) for record in records]


def _decoded(loaded: Loaded, picture: Picture) -> Iterator[Piece]:
    yield piece_of(loaded, picture.rgb())


def in_equal_shapes(
    loaded: Loaded, pieces: Sequence[Piece], compute: Callable[[dict[str, torch.Tensor]], Sequence[Output]]
) -> list[Output]:
    """Call `compute` on the pieces in batches of equal shapes, and return its outputs in the pieces' order.

    Nothing is padded, so a picture's answer doesn't depend on the others in its batch. `compute` gets tensors on the
    model's device, floats in the model's dtype, whose first axis is the pieces. It returns one output per piece.
    """
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for index, piece in enumerate(pieces):
        groups[tuple((name, tensor.shape[1:]) for name, tensor in piece.inputs.items())].append(index)
    outputs: dict[int, Output] = {}
    for indices in groups.values():
        computed = compute(_batch(loaded, [pieces[index].inputs for index in indices]))
        outputs |= zip(indices, computed, strict=True)
    return [outputs[index] for index in range(len(pieces))]


def _batch(loaded: Loaded, inputs: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    joined = {name: to_device(torch.cat([one[name] for one in inputs]), loaded.device) for name in inputs[0]}
    return {n: tensor.to(loaded.dtype) if tensor.is_floating_point() else tensor for n, tensor in joined.items()}
