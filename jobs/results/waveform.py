"""Sound drawn for people to look at: a clip's waveform over its seconds, and what was heard beneath it. Needs PyAV."""

from collections.abc import Iterator
from io import BytesIO
from itertools import chain, pairwise
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw

from jobs.results.drawing import INK, PALE, PAPER, TEXT, captioned, font, printable

_WIDTH, _HEIGHT, _AXIS, _ROW = 1200, 220, 26, 24
_WAVE = (0, 110, 170)
_SHADES = ((225, 236, 244), (244, 232, 220))
_RATE = 8000
#: Samples of which only the least and the greatest are kept.
_STEP = 80
#: No playlists and no other files or hosts: the clip may come from anyone.
_OPTIONS = {"format_whitelist": "wav,w64,aiff,au,caf,flac,mp3,aac,ogg,mov,matroska", "protocol_whitelist": "none"}


def draw_clip(data: bytes, prediction: dict[str, Any]) -> Image.Image:
    """Return the waveform with times and the chunks of a transcript, then the text or the best labels.

    Raise ValueError if the clip can't be decoded.
    """
    seconds = prediction["duration_s"]
    chunks = [c for c in prediction.get("chunks") or [] if None not in (c["start_s"], c["end_s"])]
    image = Image.new("RGB", (_WIDTH, _HEIGHT + _AXIS + (_ROW if chunks else 0)), PAPER)
    drawn = ImageDraw.Draw(image)
    for number, chunk in enumerate(chunks):
        left, right = (chunk[edge] / seconds * _WIDTH for edge in ("start_s", "end_s"))
        drawn.rectangle((left, 0, right, _HEIGHT), fill=_SHADES[number % 2])
        text = _fitting(drawn, printable(chunk["text"]).strip(), right - left - 4)
        drawn.text((left + 2, _HEIGHT + _AXIS), text, fill=INK, font=font(TEXT - 3))
    for column, (low, high) in enumerate(_columns(_peaks(data))):
        middle = _HEIGHT / 2
        drawn.line((column, middle - high * middle * 0.95, column, middle - low * middle * 0.95), fill=_WAVE)
    _axis(drawn, seconds)
    return captioned(image, heard(prediction))


def heard(prediction: dict[str, Any]) -> list[str]:
    """Return a clip's prediction as lines of text."""
    if "text" in prediction:
        language = f"[{prediction['language']}] " if prediction.get("language") else ""
        return [language + (prediction["text"].strip() or "(nothing said)")]
    return [f"{found['label']}  {found['score']:.3f}" for found in prediction["top"]]


def _peaks(data: bytes) -> np.ndarray:
    """Return the least and the greatest sample of each hundredth of a second, float32 of shape (steps, 2)."""
    peaks: list[np.ndarray] = []
    rest = np.empty(0, np.float32)
    for samples in _samples(data):
        rest = np.concatenate([rest, samples])
        whole = rest[: len(rest) // _STEP * _STEP].reshape(-1, _STEP)
        rest = rest[whole.size :]
        if len(whole):
            peaks.append(np.stack([whole.min(axis=1), whole.max(axis=1)], axis=1))
    if len(rest):
        peaks.append(np.array([[rest.min(), rest.max()]]))
    return np.clip(np.concatenate(peaks), -1, 1) if peaks else np.zeros((1, 2))


def _samples(data: bytes) -> Iterator[np.ndarray]:
    """Yield the clip as float32 mono, block by block."""
    try:
        with av.open(BytesIO(data), mode="r", options=_OPTIONS) as container:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=_RATE)
            for frame in chain(container.decode(audio=0), [None]):
                for made in resampler.resample(frame):
                    yield made.to_ndarray()[0]
    except (av.FFmpegError, IndexError) as error:  # IndexError: it has no sound
        raise ValueError(f"not a readable clip: {error}") from error


def _columns(peaks: np.ndarray) -> np.ndarray:
    """Return the peaks of each column of pixels, shape (width, 2)."""
    if not len(peaks):
        return np.zeros((_WIDTH, 2))
    edges = np.linspace(0, len(peaks), _WIDTH + 1)
    spans = [(int(a), max(int(a) + 1, int(np.ceil(b)))) for a, b in pairwise(edges)]
    return np.array([(peaks[a:b, 0].min(), peaks[a:b, 1].max()) for a, b in spans])


def _axis(drawn: Any, seconds: float) -> None:
    """Draw a time axis with marks at round numbers of seconds, ten at most."""
    steps = (base * 10**power for power in range(-3, 5) for base in (1, 2, 5))
    step = next((step for step in steps if seconds / step <= 10), seconds)
    drawn.line((0, _HEIGHT, _WIDTH, _HEIGHT), fill=PALE)
    for number in range(int(seconds / step) + 1):
        x = number * step / seconds * _WIDTH
        drawn.line((x, _HEIGHT, x, _HEIGHT + 5), fill=PALE)
        drawn.text((x + 3, _HEIGHT + 6), f"{number * step:g} s", fill=PALE, font=font(TEXT - 3))


def _fitting(drawn: Any, text: str, width: float) -> str:
    """Return as much of the beginning as fits `width` pixels."""
    while text and drawn.textlength(text, font=font(TEXT - 3)) > width:
        text = text[:-1]
    return text
