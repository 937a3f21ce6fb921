"""Test pictures in every format and mode that is read, and broken ones. Made on the spot, the same each time."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

#: Each format with the modes that Pillow can write in it.
WRITTEN = {
    "JPEG": ["RGB", "L", "1", "CMYK", "YCbCr"],
    "PNG": ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"],
    "WEBP": ["RGB", "RGBA"],
    "GIF": ["RGB", "RGBA", "L", "P", "1"],
    "BMP": ["RGB", "RGBA", "L", "P", "1"],
    "TIFF": ["RGB", "RGBA", "L", "LA", "P", "PA", "1", "I;16", "I", "F", "CMYK", "YCbCr", "LAB"],
}


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """Stripes, a gradient and a patch, in RGB: no two seeds and no two sides look alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * rng.uniform(0.05, 0.6) + y * rng.uniform(0.05, 0.6) + rng.uniform(0, 6)) for _ in range(3)]
    values = 128 + 90 * np.stack(waves, axis=-1) + rng.uniform(-30, 30, 3)
    values[: height // 3 + 1, : width // 4 + 1] = rng.uniform(0, 255, 3)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The picture in any mode: alpha that varies, 16 and 32 bits that use their range."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode in ("I", "F"):
        return image.convert("L").convert(mode)
    if mode in ("LA", "RGBA"):
        alpha = Image.linear_gradient("L").resize(image.size)
        image = image.convert(mode)
        image.putalpha(alpha)
        return image
    return image.convert(mode)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The picture as a file's bytes."""
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def sample(count: int, sizes: list[tuple[int, int]], format: str = "PNG") -> list[bytes]:
    """So many different pictures, of these sizes in turn."""
    return [encoded(picture(*sizes[i % len(sizes)], seed=i), format) for i in range(count)]


def oriented(image: Image.Image, orientation: int, format: str = "JPEG", **options: Any) -> bytes:
    """The picture with an EXIF orientation; its pixels are left as they are."""
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(image, format, exif=exif, **options)


def png_with_text_bomb() -> bytes:
    """A PNG whose compressed text chunk is 64 MiB of zeros."""
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "\0" * (64 << 20), zip=True)
    return encoded(picture(), "PNG", pnginfo=info)


def png_with_profile_bomb() -> bytes:
    """A PNG whose colour profile is 64 MiB of zeros."""
    return encoded(picture(), "PNG", icc_profile=bytes(64 << 20))


def png_said_to_be(width: int, height: int) -> bytes:
    """A PNG whose header claims this size, with the pixels of a small one."""
    data = bytearray(encoded(picture()))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def gif_said_to_be(width: int, height: int) -> bytes:
    """A GIF whose canvas has this size, with a small frame."""
    data = bytearray(encoded(picture(), "GIF"))
    data[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return bytes(data)


def tiff_with_tile(side: int) -> bytes:
    """A TIFF of few pixels in one tile of `side` x `side`, all zeros, deflated."""
    packer = zlib.compressobj(9)
    row = bytes(side)
    tile = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    tags = [
        (256, 4, 8),  # width
        (257, 4, 8),  # height
        (258, 3, 8),  # bits a sample
        (259, 3, 8),  # deflate
        (262, 3, 1),  # black is zero
        (277, 3, 1),  # samples a pixel
        (322, 4, side),
        (323, 4, side),
        (324, 4, 8 + 2 + 12 * 10 + 4),  # where the tile begins
        (325, 4, len(tile)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + tile
