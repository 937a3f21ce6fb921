"""Pictures: every format, mode and rotation against Transformers' own loading, and bytes that are no good picture."""

import contextlib
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile
from transformers.image_utils import load_image

from schemas.errors import Permanent, RecordError
from tests.pictures import (
    WRITTEN,
    encoded,
    gif_said_to_be,
    in_mode,
    oriented,
    picture,
    png_said_to_be,
    png_with_profile_bomb,
    png_with_text_bomb,
    tiff_with_tile,
)
from workers.vision.picture import MAX_PIXELS, Picture

MODES = [(format, mode) for format, modes in WRITTEN.items() for mode in modes]


def pixels(data: bytes) -> np.ndarray:
    image = Picture(data).rgb()
    assert image.mode == "RGB"
    return np.asarray(image)


def theirs(data: bytes) -> np.ndarray:
    return np.asarray(load_image(Image.open(BytesIO(data))))


def refused(data: bytes, max_pixels: int = MAX_PIXELS) -> RecordError:
    with pytest.raises(RecordError) as error:
        Picture(data, max_pixels).rgb()
    return error.value


@pytest.mark.parametrize(("format", "mode"), [pair for pair in MODES if pair[1] != "I;16"])
def test_a_format_and_mode_as_transformers_has_it(format: str, mode: str) -> None:
    data = encoded(in_mode(picture(), mode), format)
    assert (pixels(data) == theirs(data)).all()
    assert pixels(data).shape == (30, 40, 3)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(format: str) -> None:
    """Pillow alone clips it: a picture of which all is white."""
    levels = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    found = pixels(encoded(Image.fromarray(levels), format))
    assert (found == (levels >> 8)[..., None]).all()


def test_16_bit_grey_with_the_high_byte_first() -> None:
    levels = np.array([[0, 255, 256, 40_000, 65_535]], np.uint16)
    data = bytearray(encoded(Image.fromarray(levels.astype(">u2")), "TIFF"))
    assert Image.open(BytesIO(data)).mode == "I;16B"
    assert pixels(bytes(data))[0, :, 0].tolist() == [0, 0, 1, 156, 255]


def test_32_bits_are_clipped() -> None:
    levels = np.array([[-5, 0, 100, 255, 70_000]])
    for kind in (np.int32, np.float32):
        assert pixels(encoded(Image.fromarray(levels.astype(kind)), "TIFF"))[0, :, 0].tolist() == [0, 0, 100, 255, 255]


@pytest.mark.parametrize(("format", "transparency"), [("PNG", bytes([0, 128, 255] * 20)), ("PNG", 3), ("GIF", 3)])
def test_a_transparent_palette_keeps_its_colours(format: str, transparency: int | bytes) -> None:
    image = picture().quantize(60)
    data = encoded(image, format, transparency=transparency)
    assert "transparency" in Image.open(BytesIO(data)).info
    assert (pixels(data) == np.asarray(image.convert("RGB"))).all()


def test_what_is_transparent_is_as_transformers_has_it() -> None:
    """Alpha is dropped, and not laid on any ground."""
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    assert (pixels(encoded(image)) == (200, 100, 50)).all()


def test_the_inverted_cmyk_of_adobe() -> None:
    """All CMYK in JPEG is as Adobe has it, 255 for no ink."""
    data = encoded(in_mode(picture(), "CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert np.abs(pixels(data).astype(int) - np.asarray(picture()).astype(int)).mean() < 6


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9])
def test_exif_rotation(format: str, orientation: int) -> None:
    data = oriented(picture(), orientation, format)
    assert (pixels(data) == theirs(data)).all()
    assert pixels(data).shape == ((40, 30, 3) if orientation in (5, 6, 7, 8) else (30, 40, 3))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_exif_rotation_of_other_modes(mode: str) -> None:
    data = oriented(in_mode(picture(), mode), 6)
    assert (pixels(data) == theirs(data)).all()


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_is_no_rotation(exif: bytes) -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0" + exif)
    assert (pixels(data) == pixels(encoded(picture(), "JPEG"))).all()


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_of_many_frames(format: str) -> None:
    frames = [picture(seed=seed) for seed in range(3)]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert Image.open(BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    assert (pixels(data) == theirs(data)).all()
    alone = encoded(frames[0], format)
    assert np.abs(pixels(data).astype(int) - pixels(alone).astype(int)).mean() < 6


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
@pytest.mark.parametrize("format", WRITTEN)
def test_the_smallest(format: str, size: tuple[int, int]) -> None:
    data = encoded(picture(*size), format)
    assert pixels(data).shape == (size[1], size[0], 3)
    assert (pixels(data) == theirs(data)).all()


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (lambda: b"", "no_image", "no bytes"),
        (lambda: b"hello, world", "unreadable_image", "12 bytes and begins with b'hello, world'"),
        (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unreadable_image", "not a readable JPEG, PNG"),
        (lambda: encoded(picture(), "PPM"), "unreadable_image", "not a readable JPEG, PNG"),
        (lambda: encoded(picture(), "ICO"), "unreadable_image", "not a readable JPEG, PNG"),
        (lambda: encoded(picture(200, 200), "JPEG")[:2000], "unreadable_image", "truncated"),
        (lambda: encoded(picture(), "PNG")[:200], "unreadable_image", "truncated"),
        (lambda: encoded(picture(), "WEBP")[:200], "unreadable_image", "broken"),
        (lambda: encoded(picture(), "GIF")[:1000], "unreadable_image", "truncated"),
        (lambda: encoded(picture(), "BMP")[:1000], "unreadable_image", "truncated"),
        (lambda: encoded(picture(), "TIFF")[:1000], "unreadable_image", "truncated"),
        (png_with_text_bomb, "unreadable_image", "too large"),
        (png_with_profile_bomb, "unreadable_image", "too large"),
        (lambda: png_said_to_be(0, 30), "unreadable_image", ""),
        (lambda: png_said_to_be(9000, 9000), "unreadable_image", "truncated"),
        (lambda: png_said_to_be(60_000, 60_000), "image_too_large", "limit of 89478485"),
        (lambda: gif_said_to_be(65_535, 65_535), "image_too_large", "limit of 89478485"),
        (lambda: tiff_with_tile(12_000), "image_too_large", "a tile of 12000 x 12000 pixels"),
    ],
)
def test_what_is_no_good_picture(make: Callable[[], bytes], code: str, says: str) -> None:
    error = refused(make())
    assert error.code == code
    assert says in error.message
    assert len(error.message) < 500


@pytest.mark.parametrize("warned", [False, True])
def test_the_limit_of_pixels(warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of width times height, whichever is which; and ours alone, whether Pillow warns of so many or not."""
    if warned:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for data in (encoded(picture(40, 30)), oriented(picture(40, 30), 6)):
        with pytest.warns(Image.DecompressionBombWarning) if warned else contextlib.nullcontext():
            assert Picture(data, 1200).rgb().size in ((40, 30), (30, 40))
            assert refused(data, 1199).code == "image_too_large"


def test_the_limit_is_told_of_the_header_alone() -> None:
    with pytest.warns(Image.DecompressionBombWarning):
        assert "10000 x 10000" in refused(png_said_to_be(10_000, 10_000)).message


def test_a_small_tile_beyond_its_picture_is_read() -> None:
    assert pixels(tiff_with_tile(64)).shape == (8, 8, 3)


@pytest.mark.parametrize("format", WRITTEN)
def test_whatever_is_flipped_or_cut(format: str) -> None:
    """Pixels or a RecordError, never anything else."""
    rng = random.Random(format)
    whole = encoded(picture(24, 16), format)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        with contextlib.suppress(RecordError):
            assert Picture(bytes(data), 1 << 20).rgb().mode == "RGB"


def test_many_at_once_in_threads() -> None:
    files = [encoded(picture(200, 150, seed), "JPEG") for seed in range(8)]
    good, cut = [(data, pixels(data)) for data in files], [data[:3000] for data in files]
    with ThreadPoolExecutor(8) as pool:
        for (_, alone), together in zip(good * 5, pool.map(lambda item: pixels(item[0]), good * 5), strict=True):
            assert (alone == together).all()
        assert {error.code for error in pool.map(refused, cut * 5)} == {"unreadable_image"}
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_equal_by_its_bytes() -> None:
    assert Picture(b"a") == Picture(b"a") != Picture(b"b")
    assert "data" not in repr(Picture(b"a" * 1000))


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(Permanent, match=r"pip install 'nightshift-inference\[vision\]'") as error:
        Picture(b"a").rgb()
    assert error.value.code == "missing_extra"
