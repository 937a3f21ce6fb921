"""Clip: an encoded sound, and what it decodes to. How it is decoded is in workers/audio/decode.py.

Importing this raises Permanent (`missing_extra`) where the decoders aren't installed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from workers.audio.decode import decode

#: Seconds of sound that a clip may have, where nothing else is set: four hours.
MAX_SECONDS = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Clip:
    """A sound file's bytes: WAV, FLAC, MP3, OGG (Vorbis, Opus), M4A and others, or a video's audio track."""

    data: bytes = field(repr=False)
    max_seconds: float = MAX_SECONDS

    def blocks(self, rate: int) -> Iterator[np.ndarray]:
        """The clip from its start, float32 mono at `rate` Hz, as consecutive blocks of at most about five seconds.

        Full scale is [-1, 1]; a lossy codec or a float file may go beyond it, and is not clipped. Decoded as one goes,
        so of a long clip only a block is held; safe in threads. n samples at f Hz become n · rate / f, rounded half up.

        Raises RecordError: `no_audio` for a clip without a sample, `unreadable_audio` for bytes that don't decode,
        `audio_too_long` once more than `max_seconds` were decoded.
        """
        return decode(self.data, rate, self.max_seconds)

    def samples(self, rate: int) -> np.ndarray:
        """All of the blocks as one array, of at least one sample. Raises what `blocks` raises."""
        return np.concatenate(list(self.blocks(rate)))
