"""Sounds that tests make on the spot, in each format that is read: waveforms, and their encodings by FFmpeg."""

from io import BytesIO
from typing import Any

import av
import numpy as np

#: FFmpeg's container, its encoder, and the samples that the encoder takes, by a format's name here.
FORMATS = {
    "wav u8": ("wav", "pcm_u8", "u8"),
    "wav 16": ("wav", "pcm_s16le", "s16"),
    "wav 24": ("wav", "pcm_s24le", "s32"),
    "wav 32": ("wav", "pcm_s32le", "s32"),
    "wav float": ("wav", "pcm_f32le", "flt"),
    "wav double": ("wav", "pcm_f64le", "dbl"),
    "wav mu-law": ("wav", "pcm_mulaw", "s16"),
    "aiff": ("aiff", "pcm_s16be", "s16"),
    "flac": ("flac", "flac", "s16"),
    "mp3": ("mp3", "libmp3lame", "fltp"),
    "ogg opus": ("ogg", "libopus", "flt"),
    "ogg flac": ("ogg", "flac", "s16"),
    "m4a": ("ipod", "aac", "fltp"),
    "m4a alac": ("ipod", "alac", "s16p"),
    "aac": ("adts", "aac", "fltp"),
    "webm": ("webm", "libopus", "flt"),
}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_SCALES = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31}
_DTYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}


def tone(hertz: float, seconds: float, rate: int, loud: float = 0.5) -> np.ndarray:
    """A sine, float32 of shape (seconds · rate,)."""
    return (loud * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def sounds(count: int, rate: int = 16_000, seed: int = 5) -> list[np.ndarray]:
    """Different sounds of 0.03 to 0.6 seconds: sweeps with noise in them, of several lengths each more than once."""
    random = np.random.default_rng(seed)
    lengths = random.integers(round(0.03 * rate), round(0.6 * rate), max(1, count // 3))
    made = []
    for index in range(count):
        place = np.arange(lengths[index % len(lengths)]) / rate
        low, sweep, noise = random.uniform(80, 2000), random.uniform(-800, 3000), random.uniform(0, 0.4)
        wave = np.sin(2 * np.pi * (low + sweep * place) * place) + noise * random.standard_normal(len(place))
        made.append((0.3 * wave).astype(np.float32))
    return made


def encoded(samples: np.ndarray, rate: int, form: str = "wav 16", picture: bool = False) -> bytes:
    """A file with these samples: of shape (n,), or (channels, n) for as many channels as LAYOUTS has.

    `form` is one of FORMATS.
    `picture` puts a stream of video before the sound's (for "m4a", which is an MP4 then).
    """
    container, codec, sample = FORMATS[form]
    channels = np.atleast_2d(samples)
    layout, width = LAYOUTS[len(channels)], len(channels)
    out = BytesIO()
    with av.open(out, "w", format="mp4" if picture else container) as target:
        video: Any = target.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p") if picture else None
        stream: Any = target.add_stream(codec, rate=rate, layout=layout, format=sample)
        for shade in range(10 if picture else 0):
            shaded = np.full((96, 64), 16 + shade, np.uint8)
            target.mux(video.encode(av.VideoFrame.from_ndarray(shaded, format="yuv420p")))
        turns = _as(channels.T.reshape(1, -1), sample.removesuffix("p"))
        for start in range(0, channels.shape[1], 4096):
            part = np.ascontiguousarray(turns[:, start * width : (start + 4096) * width])
            frame = av.AudioFrame.from_ndarray(part, format=sample.removesuffix("p"), layout=layout)
            frame.sample_rate, frame.pts = rate, start
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return out.getvalue()


def _as(samples: np.ndarray, kind: str) -> np.ndarray:
    """Samples in [-1, 1] as FFmpeg's format of this name has them."""
    if kind in _SCALES:
        scale = _SCALES[kind]
        samples = np.clip(np.round(samples.astype(np.float64) * scale), -scale, scale - 1)
        samples += scale if kind == "u8" else 0
    return samples.astype(_DTYPES[kind])
