"""An encoded sound, and the samples that it decodes to. The decoding itself is in workers/audio/decode.py.

To import this module raises Permanent (`missing_extra`) if the decoders aren't installed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from workers.audio.decode import decode

#: The default for the most seconds of sound in a clip: four hours.
MAX_SECONDS = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Clip:
    """A sound file's bytes: WAV, FLAC, MP3, OGG (Vorbis, Opus), M4A and others, or a video's audio track."""

    data: bytes = field(repr=False)
    max_seconds: float = MAX_SECONDS

    def blocks(self, rate: int) -> Iterator[np.ndarray]:
        """Return the clip from its start, float32 mono at `rate` Hz, as consecutive blocks of at most about 5 seconds.

        Full scale is [-1, 1]; a lossy codec or a float file may go beyond it, and is not clipped. Blocks are decoded as
        they are read, so of a long clip only one is held. n samples at f Hz become n · rate / f, rounded half up. Safe
        in threads.

        Raise RecordError: `no_audio` for a clip without a sample, `unreadable_audio` for bytes that don't decode,
        `audio_too_long` once more than `max_seconds` were decoded.
        """
        return decode(self.data, rate, self.max_seconds)

    def samples(self, rate: int) -> np.ndarray:
        """Return all blocks as one array of at least one sample. Raise what `blocks` raises."""
        return np.concatenate(list(self.blocks(rate)))
