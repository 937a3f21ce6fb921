"""Decoding of sound: bytes in memory to float32 mono at a wanted rate, block by block, by FFmpeg and soxr.

The bytes are anybody's, so FFmpeg is held to formats and codecs of plain sound and video files, and opens nothing
beside them: playlists and other formats that name further files or addresses are refused.

PyAV 17.1 to 19.0.1 free some files' channel layouts twice, https://github.com/PyAV-Org/PyAV/pull/2284, and then the
process ends: the extra `audio` asks for an earlier or a later version.
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

#: Seconds in a block.
BLOCK_S = 5
#: Sampling rates, in Hz, that are taken as meant: beyond what any recorder writes, on either side.
RATES = range(1_000, 768_001)
#: FFmpeg's names of formats that hold their sound themselves, and of decoders.
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
#: Read files whose tags are not UTF-8. PyAV 19 does so by itself, and takes no argument for it.
_ANY_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
#: Bytes that FFmpeg may allocate at once. A table of 66 hours of AAC frames fits; without it a file of a few hundred
#: bytes that declares as many frames takes gigabytes.
_MAX_ALLOCATION = 256 << 20


def decode(data: bytes, rate: int, max_seconds: float) -> Iterator[np.ndarray]:
    """See `Clip.blocks`.

    As FFmpeg has it, packets that don't decode are skipped, and of a file that was cut off counts what comes before the
    cut; but a clip with more packets damaged than sound is `unreadable_audio`. What an encoder puts before the first
    sample (MP3, AAC in M4A, Opus) is left out where the file tells of it; bare AAC (ADTS) doesn't.
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
    """The same frames. Counts what was decoded, since what a file declares of itself may be wrong."""
    seconds = 0.0
    for rate, samples in frames:
        seconds += len(samples) / rate
        if seconds - max_seconds > 0.5 / rate:  # the sum is rounded
            raise RecordError("audio_too_long", f"the clip is longer than {max_seconds:g} seconds")
        yield rate, samples


def _gathered(frames: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in arrays of this size, the last one shorter."""
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
    """The blocks at another rate, without what the new one can't hold. Equal to resampling them all at once."""
    stream = soxr.ResampleStream(source_rate, rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _frames(data: bytes) -> Iterator[tuple[int, np.ndarray]]:
    """The decoded frames of the clip's audio stream, each with its rate in Hz."""
    if not data:
        raise RecordError("no_audio", "the clip has no bytes")
    with _opened(data) as container:
        stream = _audio_stream(container)
        packets = container.demux(stream)
        sound = damaged = 0
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:  # what follows can't be found any more
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
    """The file that these bytes are. Raises RecordError where FFmpeg, whatever its reason, finds none."""
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
    """FFmpeg's own limit, for which PyAV has no name; missing only where FFmpeg is built into PyAV itself."""
    limit = getattr(ctypes.CDLL(av.buffer.__file__), "av_max_alloc", None)
    if limit is not None:
        limit(ctypes.c_size_t(_MAX_ALLOCATION))


def _audio_stream(container: Any) -> Any:
    """The stream that FFmpeg would play, set to decode in this thread."""
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
    """A frame's mean over its channels, float32; integers are scaled to [-1, 1)."""
    if frame.format.is_planar and frame.layout.nb_channels >= 8:
        # PyAV takes what lies behind the planes of such a frame for more of them, and reads there.
        frame = _packed(frame)
    array = frame.to_ndarray()
    if frame.format.is_packed:
        array = array.reshape(-1, frame.layout.nb_channels).T
    with np.errstate(all="ignore"):  # what overflows is infinite, and refused as such
        values: np.ndarray = array.mean(axis=0, dtype=np.float32)
    if array.dtype == np.uint8:
        return (values - np.float32(128)) / np.float32(128)
    if array.dtype.kind == "i":
        return values / np.float32(1 << (8 * array.itemsize - 1))
    return values


def _packed(frame: Any) -> Any:
    """The same samples with the channels in turns."""
    (packed,) = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate).resample(frame)
    return packed
