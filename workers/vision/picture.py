"""Decode pictures: encoded bytes of any format and mode become RGB pixels. A limit is checked before decoding.

The result is that of `transformers.image_utils.load_image`, which turns by the EXIF orientation and then drops alpha
(`convert("RGB")`), with three exceptions:

- 16-bit grey is scaled to 8 bits (v >> 8, as Pillow itself reads 16-bit colour), while Pillow would clip it to white.
  32-bit integers and floats don't define white, so they are clipped to 0..255 as Pillow does.
- A broken EXIF block means no rotation, and not no picture.
- Only the formats of `FORMATS` are read, so that a record can't reach an unexpected decoder.

Pillow is imported on first use: it comes with the extra `vision`, which workers of other tasks don't need.
"""

from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from schemas.errors import RecordError
from schemas.extras import missing_extra

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
#: The default limit: 256 MiB of 3-byte pixels. Pillow has two limits of its own: it warns above this many pixels, which
#: is only logged, and refuses twice as many.
MAX_PIXELS = 89_478_485
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_ORIENTATION = 274


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture. `max_pixels` is its limit. Above 178,956,970 it has no effect, since Pillow refuses more."""

    data: bytes = field(repr=False)
    max_pixels: int = MAX_PIXELS

    def rgb(self) -> "Image.Image":
        """Return the pixels of the first frame in mode RGB, turned by the EXIF orientation.

        Decoding takes about 8 bytes per pixel; the result takes 4. Safe in threads: sets nothing global. Raise
        RecordError: `no_image` for no bytes, `image_too_large` over the limit, `unreadable_image` if the picture is
        truncated, broken or of another format. Raise Permanent (`missing_extra`) if Pillow isn't installed.
        """
        require_pillow()
        from PIL import Image, UnidentifiedImageError

        if not self.data:
            raise RecordError("no_image", "the picture has no bytes")
        try:
            with Image.open(BytesIO(self.data), formats=FORMATS) as opened:
                self._check(opened)
                return _upright(opened)
        except RecordError:
            raise
        except Image.DecompressionBombError as error:
            raise self._too_large("the picture") from error
        except MemoryError as error:
            raise RecordError("image_too_large", "decoding the picture takes more memory than there is") from error
        except UnidentifiedImageError as error:
            raise RecordError(
                "unreadable_image",
                "not a readable JPEG, PNG, WebP, GIF, BMP or TIFF picture; "
                f"it has {len(self.data)} bytes and begins with {self.data[:12]!r}",
            ) from error
        except Exception as error:  # Pillow's decoders raise nearly any class for broken bytes
            raise RecordError(
                "unreadable_image", f"the picture is broken: {type(error).__name__}: {str(error)[:300]}"
            ) from error

    def _check(self, opened: "Image.Image") -> None:
        """Refuse a picture by its header alone. A TIFF decoder holds a whole tile, maybe larger than its picture."""
        width, height = opened.size
        if width * height > self.max_pixels:
            raise self._too_large(f"the picture of {width} x {height} pixels")
        if width * height == 0:
            raise RecordError("unreadable_image", f"the picture is of {width} x {height} pixels")
        tags: Any = getattr(opened, "tag_v2", {})
        if tags.get(_TILE_WIDTH, 1) * tags.get(_TILE_LENGTH, 1) > self.max_pixels:
            raise self._too_large(f"a tile of {tags[_TILE_WIDTH]} x {tags[_TILE_LENGTH]} pixels")

    def _too_large(self, what: str) -> RecordError:
        return RecordError("image_too_large", f"{what} is over the limit of {self.max_pixels} pixels")


def require_pillow() -> None:
    """Raise Permanent (`missing_extra`) if Pillow isn't installed."""
    try:
        # Each plugin registers its format with Pillow. Image.open by itself would import all plugins there are.
        from PIL import (  # noqa: F401
            BmpImagePlugin,
            GifImagePlugin,
            JpegImagePlugin,
            PngImagePlugin,
            TiffImagePlugin,
            WebPImagePlugin,
        )
    except ImportError as error:
        raise missing_extra("a task over images", "vision", error) from error


def _upright(opened: "Image.Image") -> "Image.Image":
    """Decode the picture, convert it to RGB and turn it. This order changes no pixel, and saves a copy."""
    from PIL import Image

    opened.load()
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(_orientation(opened))
    rgb = _eight_bits(opened).convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(opened: "Image.Image") -> Any:
    """Return the EXIF orientation, or 1 if there is none that can be read.

    https://www.media.mit.edu/pia/Research/deepview/exif.html
    """
    try:
        return opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 (as for the picture itself, which doesn't need it)
        return 1


def _eight_bits(opened: "Image.Image") -> "Image.Image":
    """Return 16-bit grey as 8-bit grey, and other modes as they are."""
    from PIL import Image

    if opened.mode.startswith("I;16"):
        import numpy as np

        return Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
    # A transparent pixel has a colour all the same. With the note on transparency, Pillow warns or computes in vain.
    opened.info.pop("transparency", None)
    return opened
