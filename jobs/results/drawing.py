"""Pictures drawn for people to look at: boxes, masks, depth and text on or beside what a model saw.

Drawn at up to `LONGEST` pixels a side, whatever the size of the original. Needs Pillow.
"""

import zlib
from collections.abc import Sequence
from io import BytesIO
from textwrap import wrap
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

LONGEST = 1280
#: Small pictures are made larger, so that there is room for text.
SHORTEST = 480
TEXT = 16
MARGIN = 8
INK, PAPER, PALE, ALARM = (25, 28, 33), (250, 250, 248), (120, 126, 135), (178, 34, 34)
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
#: Colours that stay apart, on pictures and from each other.
COLOURS = (
    (230, 25, 75), (60, 180, 75), (255, 200, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 220, 230),
    (240, 50, 230), (180, 230, 60), (0, 128, 128), (170, 110, 40), (128, 0, 0), (128, 128, 0), (0, 0, 160),
)  # fmt: skip
#: From least to greatest, as matplotlib's "viridis", which is as even in print as on a screen.
_DEPTHS = np.array(
    [(68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137), (53, 183, 121),
     (110, 206, 88), (181, 222, 43), (253, 231, 37)]
)  # fmt: skip

Colour = tuple[int, ...]


def font(size: int = TEXT) -> Any:
    return ImageFont.load_default(size)


def original(data: bytes) -> Image.Image:
    """Return the picture as a worker sees it, in RGB and turned as its EXIF says, at a size to look at.

    Raise OSError, ValueError or Pillow's DecompressionBombError if it can't be decoded.
    """
    with Image.open(BytesIO(data), formats=_FORMATS) as opened:
        opened.load()
        if opened.mode.startswith("I;16"):
            turned = ImageOps.exif_transpose(Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8)))
        else:
            turned = ImageOps.exif_transpose(opened)
        return to_look_at(turned.convert("RGB"))


def to_look_at(image: Image.Image, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """Return the picture scaled to a size for a screen, in proportion."""
    scale = _scale(image.size)
    if scale == 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), resample)


def _scale(size: tuple[int, int]) -> float:
    return min(LONGEST / max(size), max(1.0, SHORTEST / min(size)))


def colour_of(label: str) -> Colour:
    """Return a label's colour, the same in every picture."""
    return COLOURS[zlib.crc32(label.encode()) % len(COLOURS)]


def draw_objects(image: Image.Image, prediction: dict[str, Any]) -> Image.Image:
    """Return the picture with the boxes of object-detection."""
    drawn = ImageDraw.Draw(image)
    across, down = image.width / prediction["width"], image.height / prediction["height"]
    for found in prediction["objects"]:
        box, colour = found["box"], colour_of(found["label"])
        left, right = sorted((box["xmin"] * across, box["xmax"] * across))
        top, bottom = sorted((box["ymin"] * down, box["ymax"] * down))
        drawn.rectangle((left, top, right, bottom), outline=colour, width=3)
        tag(drawn, image.size, (left, top), f"{found['label']} {found['score']:.2f}", colour)
    return captioned(image, [] if prediction["objects"] else ["nothing found"])


def draw_segments(image: Image.Image, prediction: dict[str, Any]) -> Image.Image:
    """Return the picture with the masks of image-segmentation laid over it, each in a colour of its own."""
    from pycocotools import mask as coco

    pixels = np.asarray(image).astype(np.float32)
    tags: list[tuple[tuple[float, float], str, Colour]] = []
    for number, segment in enumerate(prediction["segments"]):
        mask = Image.fromarray(coco.decode(segment["mask"]) * 255).resize(image.size, Image.Resampling.NEAREST)
        inside = np.asarray(mask) > 0
        colour: Colour = COLOURS[number % len(COLOURS)]
        pixels[inside] = 0.55 * pixels[inside] + 0.45 * np.array(colour)
        pixels[inside & ~_inner(inside)] = colour
        score = "" if segment["score"] is None else f" {segment['score']:.2f}"
        if inside.any():
            tags.append((_middle(inside), segment["label"] + score, colour))
    drawn = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(drawn)
    for place, text, colour in tags:
        tag(pen, drawn.size, place, text, colour, centred=True)
    return captioned(drawn, [] if prediction["segments"] else ["nothing found"])


def _inner(inside: np.ndarray, width: int = 2) -> np.ndarray:
    """Return the mask without its outermost pixels. The picture's edge is no edge of it."""
    padded = np.pad(inside, width, mode="edge")
    height, across = inside.shape
    kept = inside.copy()
    for step in (0, 2 * width):
        kept &= (
            padded[step : step + height, width : width + across] & padded[width : width + height, step : step + across]
        )
    return kept


def _middle(inside: np.ndarray) -> tuple[float, float]:
    """Return a place for a mask's label: half way along the longest run of its middle row."""
    rows = np.flatnonzero(inside.any(axis=1))
    row = int(rows[len(rows) // 2])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside[row].astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    return (float(starts[longest] + ends[longest]) / 2, float(row))


def draw_depth(image: Image.Image, prediction: dict[str, Any]) -> Image.Image:
    """Return the picture beside its depth in colours, with a scale of what they stand for."""
    near, far = prediction["min"], prediction["max"]
    if prediction["encoding"] == "png16":
        with Image.open(BytesIO(prediction["depth"]), formats=["PNG"]) as opened:
            share = np.asarray(opened).astype(np.float32) / 65535
    else:
        values = np.frombuffer(prediction["depth"], "<f4").reshape(prediction["height"], prediction["width"])
        share = (values - near) / ((far - near) or 1.0)
    depth = Image.fromarray(_coloured(share)).resize(image.size, Image.Resampling.BILINEAR)
    both = Image.new("RGB", (image.width * 2 + MARGIN, image.height), PAPER)
    both.paste(image, (0, 0))
    both.paste(depth, (image.width + MARGIN, 0))
    scale = Image.fromarray(_coloured(np.tile(np.linspace(0, 1, 256, dtype=np.float32), (12, 1))))
    drawn = captioned(both, [f"{near:.4g} to {far:.4g}, mean {prediction['mean']:.4g}"])
    drawn.paste(scale.resize((image.width - 2 * MARGIN, 12)), (image.width + 2 * MARGIN, both.height + MARGIN + 4))
    return drawn


def _coloured(share: np.ndarray) -> np.ndarray:
    places = np.linspace(0, 1, len(_DEPTHS))
    channels = [np.interp(share, places, _DEPTHS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def tag(
    drawn: Any, size: tuple[int, int], place: tuple[float, float], text: str, colour: Colour, *, centred: bool = False
) -> None:
    """Draw a label on a ground of its own above a place, or around it, wholly inside the picture if it fits."""
    text = printable(text)
    left, top, right, bottom = drawn.textbbox((0, 0), text, font=font())
    width, height = right - left + 8, bottom - top + 6
    x, y = (place[0] - width / 2, place[1] - height / 2) if centred else (place[0], place[1] - height)
    x, y = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
    drawn.rectangle((x, y, x + width, y + height), fill=colour)
    light = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] > 140
    drawn.text((x + 4 - left, y + 3 - top), text, fill=INK if light else PAPER, font=font())


def captioned(image: Image.Image, lines: Sequence[str], ink: Colour = INK) -> Image.Image:
    """Return the picture with text below it, wrapped to its width, on a canvas no narrower than a line of text."""
    if not lines:
        return image
    width = max(image.width, SHORTEST)
    fitting = wrapped(lines, width)
    drawn = Image.new("RGB", (width, image.height + len(fitting) * (TEXT + 6) + 2 * MARGIN), PAPER)
    drawn.paste(image, (0, 0))
    pen = ImageDraw.Draw(drawn)
    for number, line in enumerate(fitting):
        pen.text((MARGIN, image.height + MARGIN + number * (TEXT + 6)), line, fill=ink, font=font())
    return drawn


def wrapped(lines: Sequence[str], width: int) -> list[str]:
    columns = max(20, int((width - 2 * MARGIN) / (TEXT * 0.55)))
    return [part for line in lines for part in wrap(printable(line), columns, max_lines=40, placeholder=" …") or [""]]


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def card(lines: Sequence[str], ink: Colour = INK) -> Image.Image:
    """Return a picture of text alone."""
    return captioned(Image.new("RGB", (640, MARGIN), PAPER), lines, ink)
