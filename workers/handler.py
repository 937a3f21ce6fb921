"""What a task's code has to be: four methods. The runner owns loops, batching, timing, counts and errors."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch

from schemas.job import JobSpec
from schemas.task import Task, TaskParams

#: A record: the task's column names → this row's values: text, a Picture or a Clip.
Record = dict[str, Any]
#: A prediction: the fields of the task's Arrow struct → their values.
Prediction = dict[str, Any]
#: What the device makes of one piece: a tensor, or several by name.
Output = torch.Tensor | dict[str, torch.Tensor]


@dataclass(frozen=True)
class Loaded:
    """A model ready to run on its device, and its processor (tokenizer, feature extractor, image processor)."""

    model: Any
    processor: Any
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Piece:
    """What the device computes at once: a record, or a window or chunk of one.

    `inputs` are the encoded values by the name of the model's argument. `cost` is what padding multiplies, in tokens;
    16 x 16 pixels and 20 ms of sound count as a token. Pieces are batched with others of like cost. `notes` are what
    `finish` needs. `seed` is the runner's, of the job's seed and the record's place in the input: whatever a handler
    draws at random comes from it alone, so that batch, retry and worker don't matter.
    """

    inputs: dict[str, Any]
    cost: int
    notes: Any = None
    seed: int = 0


P = TypeVar("P", bound=TaskParams)


class Handler(ABC, Generic[P]):
    """One task on one loaded model, for one job. Has no loops over shards, no I/O, and catches nothing.

    A method raises RecordError for a record that can't be done; any other error counts against the record too, once the
    runner has narrowed it down to that record.
    """

    task: ClassVar[Task]
    #: Whether equal records have equal predictions, so that a shard computes them once. An instance may say otherwise.
    deterministic: bool = True

    def __init__(self, loaded: Loaded, params: P, spec: JobSpec) -> None:
        self.loaded = loaded
        self.params = params
        self.spec = spec

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        """The model and its processor from a local folder. Raises Permanent where they don't fit the task."""

    @abstractmethod
    def prepare(self, records: Sequence[Record]) -> Sequence[Iterable[Piece]]:
        """Each record's pieces, encoded on the CPU.

        Of a record that decodes to much (a picture, an hour of sound) the pieces are best a generator: the runner goes
        through several at once, in threads, and only as far as it computes next.
        """

    @abstractmethod
    def infer(self, pieces: Sequence[Piece]) -> torch.Tensor | Sequence[Output]:
        """Raw outputs of a batch, one a piece: a tensor whose first axis is the pieces, or an output for each.

        Called under inference mode. What is large (logits over a vocabulary) is best cut down to what `finish` needs.
        """

    @abstractmethod
    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        """A record's prediction from its pieces and their raw outputs (numpy; float32 where they were any float).

        The inputs of a piece that a generator gave are gone by then.
        """
