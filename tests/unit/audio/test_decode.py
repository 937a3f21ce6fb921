"""Clips: each format against its own samples, resampling against soxr at once, and bytes that are no sound."""

import importlib
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import soxr
from packaging.version import Version

from schemas.errors import Permanent, RecordError
from tests.media import FORMATS, encoded, tone
from workers.audio import decode as sound
from workers.audio.clip import Clip

#: How far a sample may be from the one encoded. Lossy formats are compared by their spectra below.
EXACT = {"wav u8": 1 / 128, "wav 24": 2e-7, "wav 32": 1e-7, "wav float": 1e-7, "wav double": 1e-7, "wav mu-law": 0.02}
LOSSY = ("mp3", "ogg opus", "webm", "m4a", "aac")
#: From 17.1 to 19.0.1, PyAV frees a channel layout with an order of its own twice, which ends the process: since
#: https://github.com/PyAV-Org/PyAV/pull/2284.
frees_layouts_twice = pytest.mark.skipif(
    Version("17.1") <= Version(av.__version__) < Version("19.0.2"),
    reason=f"PyAV {av.__version__} frees layouts twice",
)


def rate_of(form: str) -> int:
    return 48_000 if form in ("ogg opus", "webm") else 44_100


def strength(samples: np.ndarray, rate: int, hertz: float) -> float:
    """The amplitude of the sine of this frequency in the samples."""
    place = np.arange(len(samples)) / rate
    window = np.hanning(len(samples))
    return float(2 * abs((samples * window * np.exp(-2j * np.pi * hertz * place)).sum()) / window.sum())


def code_of(data: bytes, max_seconds: float = 60) -> str:
    with pytest.raises(RecordError) as error:
        Clip(data, max_seconds).samples(16_000)
    return error.value.code


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in LOSSY])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_lossless_format_gives_the_mean_of_its_channels(form: str, channels: int) -> None:
    wave = np.stack([tone(440 + 30 * i, 0.3, 44_100, loud=0.5 / (i + 1)) for i in range(channels)])
    samples = Clip(encoded(wave, 44_100, form)).samples(44_100)
    assert samples.dtype == np.float32
    assert samples.shape == (wave.shape[1],)
    assert abs(samples - wave.mean(axis=0)).max() <= EXACT.get(form, 1 / 32768)


@pytest.mark.parametrize("form", LOSSY)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_lossy_format_gives_the_same_sound_in_its_place(form: str, channels: int) -> None:
    """A click after a second of silence stays where it was: what the encoder put before it is gone."""
    rate = rate_of(form)
    wave = np.concatenate([np.zeros(rate, np.float32), tone(1000, 0.5, rate), np.zeros(rate // 2, np.float32)])
    samples = Clip(encoded(np.stack([wave] * channels), rate, form)).samples(rate)
    begins = int(np.argmax(abs(samples) > 0.25))
    priming = 1024 if form == "aac" else 0  # of which bare AAC says nothing
    assert abs(begins - rate - priming) < 0.005 * rate
    assert 0 <= len(samples) - len(wave) <= 2048
    middle = samples[int(1.1 * rate) : int(1.4 * rate)]
    assert strength(middle, rate, 1000) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("form", ["wav 16", "flac", "webm", pytest.param("aiff", marks=frees_layouts_twice)])
def test_eight_channels(form: str) -> None:
    """Opus decodes into planes, where PyAV's arrays of a frame would go on behind the eighth; AIFF orders them anew."""
    wave = np.stack([tone(440 + 100 * i, 1, 48_000, loud=0.8 / (i + 1)) for i in range(8)])
    samples = Clip(encoded(wave, 48_000, form)).samples(48_000)
    for channel in range(2):
        expected = 0.1 / (channel + 1)
        assert strength(samples, 48_000, 440 + 100 * channel) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("form", ["mp3", "ogg opus", "flac", "wav 16"])
def test_the_length_of_a_file_that_tells_it_is_exact(form: str) -> None:
    rate = rate_of(form)
    assert len(Clip(encoded(tone(440, 0.777, rate), rate, form)).samples(rate)) == round(0.777 * rate)


@pytest.mark.parametrize(("source", "rate"), [(44_100, 16_000), (8_000, 16_000), (48_000, 16_000), (11_025, 22_050)])
@pytest.mark.parametrize("seconds", [0.01, 1.2345, 11.7])
def test_resampling_block_by_block_is_resampling_at_once(source: int, rate: int, seconds: float) -> None:
    noise = np.random.default_rng(1).normal(0, 0.2, round(seconds * source)).astype(np.float32)
    samples = Clip(encoded(noise, source, "wav float")).samples(rate)
    assert len(samples) == int(len(noise) * rate / source + 0.5)
    np.testing.assert_allclose(samples, soxr.resample(noise, source, rate, quality="HQ"), atol=1e-6)


def test_resampling_keeps_what_fits_and_drops_what_does_not() -> None:
    low, high = tone(1000, 3, 44_100, loud=0.4), tone(12_000, 3, 44_100, loud=0.4)
    samples = Clip(encoded(np.stack([low, high]), 44_100)).samples(16_000)
    assert strength(samples, 16_000, 1000) == pytest.approx(0.2, rel=1e-3)
    assert strength(samples, 16_000, 4000) < 1e-5  # where 12 kHz would be heard
    assert abs(samples - tone(1000, 3, 16_000, loud=0.2))[200:-200].max() < 1e-3


def test_a_long_clip_comes_in_blocks() -> None:
    wave = tone(440, 23, 16_000)
    clip = Clip(encoded(wave, 16_000, "wav float"))
    blocks = clip.blocks(16_000)
    assert isinstance(blocks, Iterator)
    assert [len(block) / 16_000 for block in blocks] == [5, 5, 5, 5, 3]
    assert all(len(block) <= 6 * 8_000 for block in clip.blocks(8_000))
    np.testing.assert_array_equal(clip.samples(16_000), wave)


def test_the_sound_of_a_video() -> None:
    samples = Clip(encoded(tone(440, 1, 48_000), 48_000, "m4a", picture=True)).samples(16_000)
    assert strength(samples, 16_000, 440) == pytest.approx(0.5, rel=0.05)


def test_clips_decode_in_threads() -> None:
    files = [
        encoded(tone(300 + 50 * i, 1.5, 44_100), 44_100, form) for i, form in enumerate(("flac", "mp3", "m4a") * 4)
    ]
    alone = [Clip(data).samples(16_000) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(alone * 3, pool.map(lambda d: Clip(d).samples(16_000), files * 3), strict=True):
            np.testing.assert_array_equal(one, other)


WAV = encoded(tone(440, 1, 16_000), 16_000)
HEADER = WAV.index(b"data") + 8


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "no_audio"),
        (WAV[:20], "unreadable_audio"),
        (WAV[:HEADER], "no_audio"),
        (b"this is text, whatever its name says\n" * 50, "unreadable_audio"),
        (bytes(50_000), "unreadable_audio"),
        (np.random.default_rng(0).bytes(200_000), "unreadable_audio"),
        (encoded(tone(440, 1, 16_000), 16_000, "m4a")[:3000], "unreadable_audio"),  # its table stands at its end
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), "unreadable_audio"),
    ],
    ids=["nothing", "cut header", "no samples", "text", "zeros", "random", "M4A without table", "picture"],
)
def test_what_is_no_sound(data: bytes, code: str) -> None:
    assert code_of(data) == code


def test_a_video_without_sound() -> None:
    out = BytesIO()
    with av.open(out, "w", format="mp4") as target:
        stream = target.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        target.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")))
        target.mux(stream.encode(None))
    assert code_of(out.getvalue()) == "no_audio"


@pytest.mark.parametrize("form", ["wav 16", "flac", "mp3", "ogg opus", "aac"])
def test_of_a_file_cut_off_counts_what_is_there(form: str) -> None:
    rate = rate_of(form)
    data = encoded(np.random.default_rng(2).normal(0, 0.1, 4 * rate).astype(np.float32), rate, form)
    whole, part = Clip(data).samples(rate), Clip(data[: len(data) // 2 + 1]).samples(rate)
    assert 0.2 * len(whole) < len(part) < 0.55 * len(whole)  # OGG's pages are of a second
    np.testing.assert_array_equal(part[: len(part) - 5000], whole[: len(part) - 5000])


def test_a_damaged_middle_is_skipped() -> None:
    data = bytearray(encoded(np.random.default_rng(2).normal(0, 0.1, 200_000).astype(np.float32), 44_100, "flac"))
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    assert 180_000 < len(Clip(bytes(data)).samples(44_100)) < 200_000


def test_a_wreck_is_refused() -> None:
    """The frames of this M4A are all in its table, and hardly one of them decodes."""
    data = bytearray(encoded(tone(440, 3, 44_100), 44_100, "m4a"))
    start = data.index(b"mdat") + 4
    data[start : start + 20_000] = np.random.default_rng(3).bytes(20_000)
    assert code_of(bytes(data)) == "unreadable_audio"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_samples_that_are_no_numbers(value: float, rate: int) -> None:
    wave = tone(440, 1, rate)
    wave[1000] = value
    assert code_of(encoded(wave, rate, "wav float")) == "unreadable_audio"


def test_samples_beyond_float32() -> None:
    assert code_of(encoded(np.full(1000, 1e300), 16_000, "wav double")) == "unreadable_audio"


def test_silence_and_a_single_sample() -> None:
    assert not Clip(encoded(np.zeros(44_100, np.float32), 44_100)).samples(16_000).any()
    assert Clip(encoded(np.ones(1, np.float32), 16_000, "wav float")).samples(16_000).tolist() == [1.0]
    assert code_of(encoded(np.ones(1, np.float32), 44_100)) == "no_audio"  # not one sample at 16 kHz


def test_a_clip_beyond_the_limit() -> None:
    assert code_of(WAV, max_seconds=0.99) == "audio_too_long"
    assert len(Clip(WAV, max_seconds=1.0).samples(16_000)) == 16_000


def wav_with(offset: int, layout: str, value: int) -> bytes:
    data = bytearray(WAV)
    struct.pack_into(layout, data, WAV.index(b"fmt ") + 8 + offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        *(wav_with(2, "<H", channels) for channels in (0, 65_535)),
        *(wav_with(4, "<I", rate) for rate in (0, 1, 999, 800_000, 0xFFFFFFFF)),
        wav_with(0, "<H", 0x1234),
    ],
)
def test_headers_that_no_recorder_writes(data: bytes) -> None:
    assert code_of(data) == "unreadable_audio"


def test_tags_that_are_not_utf_8() -> None:
    info = b"INFOINAM" + struct.pack("<I", 4) + b"caf\xe9"
    data = bytearray(WAV + b"LIST" + struct.pack("<I", len(info)) + info)
    struct.pack_into("<I", data, 4, len(data) - 8)
    np.testing.assert_array_equal(Clip(bytes(data)).samples(16_000), Clip(WAV).samples(16_000))


def test_a_size_that_the_file_does_not_have() -> None:
    data = bytearray(WAV)
    struct.pack_into("<I", data, 4, 0xFFFFFFFF)
    struct.pack_into("<I", data, HEADER - 4, 0xFFFFFFFF)  # as programs write it that don't know the end yet
    assert len(Clip(bytes(data)).samples(16_000)) == 16_000


def resized(file: bytes, kind: bytes, content: bytes) -> bytes:
    """An M4A with other content in a box of its sample table."""
    place = file.index(kind) - 4
    (old,) = struct.unpack_from(">I", file, place)
    data = bytearray(file[:place] + struct.pack(">I", 8 + len(content)) + kind + content + file[place + old :])
    for outer in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        at = data.index(outer) - 4
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + 8 + len(content) - old)
    return bytes(data)


def test_a_table_of_more_frames_than_there_are_bytes() -> None:
    """An M4A of some kilobytes that declares 50 million frames of a byte each; their table would take 1.2 GB."""
    file = encoded(tone(440, 0.2, 16_000), 16_000, "m4a")
    file = resized(file, b"stsz", struct.pack(">III", 0, 1, 50_000_000))
    file = resized(file, b"stsc", struct.pack(">IIIII", 0, 1, 1, 50_000_000, 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert code_of(file) in ("unreadable_audio", "no_audio")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10


def test_a_thousand_streams_are_refused() -> None:
    page = b"OggS\0\2" + bytes(8) + b"%s" + bytes(8) + b"\1\x13OpusHead\1\1" + struct.pack("<HIHB", 0, 48_000, 0, 0)
    assert code_of(b"".join(page.replace(b"%s", struct.pack("<I", i)) for i in range(1000))) == "unreadable_audio"


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period><AdaptationSet "
        "mimeType='audio/mp4'><Representation id='1'><BaseURL>file://{}</BaseURL></Representation></AdaptationSet>"
        "</Period></MPD>",
        "[playlist]\nFile1={}\n",
    ],
    ids=["HLS", "concat", "SDP", "DASH", "PLS"],
)
def test_a_playlist_never_reaches_another_file(content: str, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(WAV)
    assert code_of(content.format(other).encode()) == "unreadable_audio"


@pytest.mark.parametrize("form", ["hls", "concat", "sdp", "dash", "image2", "lavfi", "rtsp", "tty"])
def test_formats_that_reach_further_are_not_among_ours(form: str) -> None:
    assert form in av.formats_available
    assert form not in sound.FORMATS


def test_no_noise_on_stderr() -> None:
    """FFmpeg says much of broken files; nobody reads it there."""
    script = (
        "import sys\nfrom workers.audio.clip import Clip\nfrom schemas.errors import RecordError\n"
        "data = sys.stdin.buffer.read()\n"
        "for part in (data, data[:5000], data[:100], b'junk' + data, data[:3000] + data[3100:]):\n"
        "    try:\n        Clip(part).samples(16000)\n    except RecordError:\n        pass\n"
    )
    for form in ("mp3", "flac", "m4a"):
        data = encoded(tone(440, 2, 44_100), 44_100, form)
        done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
        assert done.stderr == b""


@pytest.mark.parametrize("package", ["av", "soxr"])
def test_without_the_extra_the_message_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "workers.audio.decode")
    with pytest.raises(Permanent, match=r"nightshift-inference\[audio\]") as error:
        importlib.import_module("workers.audio.decode")
    assert error.value.code == "missing_extra"
    assert package in error.value.message
