"""Decode sound: bytes in memory become float32 mono at a given rate, block by block, by FFmpeg and soxr.

The bytes are untrusted. FFmpeg is therefore limited to the formats and codecs of plain sound and video files, and opens
no other file: playlists and other formats that name further files or addresses are refused.

PyAV 17.1 to 19.0.1 free some files' channel layouts twice, which ends the process. The extra `audio` therefore requires
an earlier or a later version: https://github.com/PyAV-Org/PyAV/pull/2284.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from schemas.errors import RecordError
from schemas.extras import missing_extra

try:
    import av
    import soxr
except ImportError as error:
    raise missing_extra("a task over audio", "audio", error) from error

#: The number of seconds in a block.
BLOCK_S = 5
#: The sampling rates, in Hz, that are accepted. Both limits are beyond what any recorder writes.
RATES = range(1_000, 768_001)
#: FFmpeg's names of the formats that hold their sound themselves, and of the decoders for them.
FORMATS = ("wav", "w64", "aiff", "au", "caf", "flac", "mp3", "aac", "ogg", "mov", "matroska")
CODECS = (
    *("pcm_u8", "pcm_s8", "pcm_alaw", "pcm_mulaw"),
    *(f"pcm_{kind}{end}" for kind in ("s16", "s24", "s32", "f32", "f64") for end in ("le", "be")),
    *("adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "gsm_ms"),
    *("flac", "alac", "mp2float", "mp3float", "mp3", "aac", "ac3", "eac3", "vorbis", "opus", "libopus"),
)
_OPTIONS = {
    "format_whitelist": ",".join(FORMATS),
    "codec_whitelist": ",".join(CODECS),
    "protocol_whitelist": "none",
    "max_streams": "32",
}
#: Lets PyAV read files whose tags are not UTF-8. PyAV 19 does so by default, and takes no argument for it.
_ANY_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
#: The most bytes that FFmpeg may allocate at once. A table of 66 hours of AAC frames fits. Without the limit, a file of
#: a few hundred bytes that declares a huge number of frames takes gigabytes.
_MAX_ALLOCATION = 256 << 20


def decode(data: bytes, rate: int, max_seconds: float) -> Iterator[np.ndarray]:
    """See `Clip.blocks`.

    As in FFmpeg, packets that don't decode are skipped, and a file that was cut off is decoded up to the cut. But a
    clip with more damaged than sound packets is `unreadable_audio`. The padding that an encoder puts before the first
    sample (MP3, AAC in M4A, Opus) is left out if the file declares it; bare AAC (ADTS) doesn't.
    """
    some = False
    for source_rate, frames in groupby(_within(max_seconds, _frames(data)), itemgetter(0)):
        blocks = _gathered((samples for _, samples in frames), BLOCK_S * source_rate)
        for block in blocks if source_rate == rate else _resampled(blocks, source_rate, rate):
            if not np.isfinite(block).all():
                raise RecordError("unreadable_audio", "the clip has samples that are no numbers")
            if len(block):
                some = True
                yield block
    if not some:
        raise RecordError("no_audio", f"the clip has not one sample at {rate} Hz")


def _within(max_seconds: float, frames: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the same frames, up to `max_seconds`. Counts what was decoded, since the file's own length may be wrong."""
    seconds = 0.0
    for rate, samples in frames:
        seconds += len(samples) / rate
        if seconds - max_seconds > 0.5 / rate:  # since the sum is rounded
            raise RecordError("audio_too_long", f"the clip is longer than {max_seconds:g} seconds")
        yield rate, samples


def _gathered(frames: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the same samples in arrays of this size; the last one may be shorter."""
    held: list[np.ndarray] = []
    count = 0
    for samples in frames:
        held.append(samples)
        count += len(samples)
        if count >= size:
            joined = np.concatenate(held)
            whole = count // size * size
            yield from np.split(joined[:whole], whole // size)
            held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def _resampled(blocks: Iterator[np.ndarray], source_rate: int, rate: int) -> Iterator[np.ndarray]:
    """Yield the blocks at another rate, without frequencies it can't hold. Equal to resampling them all at once."""
    stream = soxr.ResampleStream(source_rate, rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _frames(data: bytes) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the decoded frames of the clip's audio stream, each with its rate in Hz."""
    if not data:
        raise RecordError("no_audio", "the clip has no bytes")
    with _opened(data) as container:
        stream = _audio_stream(container)
        packets = container.demux(stream)
        sound = damaged = 0
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:  # no later packet can be found
                packet, damaged = None, damaged + 1
            if packet is None:
                break
            try:
                frames = [(frame.sample_rate, _mono(frame)) for frame in stream.decode(packet)]
            except (av.FFmpegError, ValueError):  # PyAV 19 raises ValueError once a decoder has failed to open
                damaged += 1
                continue
            sound += 1
            for rate, samples in frames:
                if rate not in RATES:
                    raise RecordError("unreadable_audio", f"the clip's sampling rate is {rate} Hz")
                yield rate, samples
        if damaged > sound:
            raise RecordError("unreadable_audio", f"the clip is damaged: {sound} packets decode and {damaged} don't")


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    """Open the bytes as a sound file. Raise RecordError if FFmpeg finds no sound file in them, for whatever reason."""
    _limit_allocations()
    try:
        container = av.open(BytesIO(data), "r", container_options=_OPTIONS, **_ANY_TAGS)
    except (av.FFmpegError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise RecordError(
            "unreadable_audio", f"no sound file of a kind that is read here (WAV, FLAC, MP3, OGG, M4A, …): {reason}"
        ) from error
    with container:
        yield container


@cache
def _limit_allocations() -> None:
    """Set FFmpeg's own limit, which PyAV doesn't expose. It can't be found only if FFmpeg is built into PyAV itself."""
    limit = getattr(ctypes.CDLL(av.buffer.__file__), "av_max_alloc", None)
    if limit is not None:
        limit(ctypes.c_size_t(_MAX_ALLOCATION))


def _audio_stream(container: Any) -> Any:
    """Return the stream that FFmpeg would play, set to decode in this thread."""
    stream = container.streams.best("audio")
    if stream is None and not container.streams.audio:
        raise RecordError("no_audio", "the file has no audio stream")
    context = stream and stream.codec_context
    if context is None or context.codec.name not in CODECS:
        name = context.codec.name if context else "unknown"
        raise RecordError("unreadable_audio", f"the file's sound has a codec that is not read here: {name}")
    context.thread_count = 1
    return stream


def _mono(frame: Any) -> np.ndarray:
    """Return a frame's mean over its channels, float32. Integers are scaled to [-1, 1)."""
    if frame.format.is_planar and frame.layout.nb_channels >= 8:
        # PyAV takes the memory behind the planes of such a frame for more planes, and reads it.
        frame = _packed(frame)
    array = frame.to_ndarray()
    if frame.format.is_packed:
        array = array.reshape(-1, frame.layout.nb_channels).T
    with np.errstate(all="ignore"):  # an overflow is infinite, and refused later
        values: np.ndarray = array.mean(axis=0, dtype=np.float32)
    if array.dtype == np.uint8:
        return (values - np.float32(128)) / np.float32(128)
    if array.dtype.kind == "i":
        return values / np.float32(1 << (8 * array.itemsize - 1))
    return values


def _packed(frame: Any) -> Any:
    """Return the same samples with interleaved channels."""
    (packed,) = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate).resample(frame)
    return packed
