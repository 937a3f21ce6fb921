"""What must a task implement? Four methods. The runner owns loops, batching, timing, counts and errors."""

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
#: The device's output for one piece: a tensor, or several by name.
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
    """The unit that the device computes: a record, or a window or chunk of a record.

    `inputs` are the encoded values by the name of the model's argument. `cost` is the length that padding extends, in
    tokens; 16 x 16 pixels and 20 ms of sound count as a token. Pieces of similar cost are batched together. `notes` are
    for `finish`. `seed` is set by the runner from the job's seed and the record's place in the input. A handler's
    random draws depend on it alone, so that batch, retry and worker don't matter.
    """

    inputs: dict[str, Any]
    cost: int
    notes: Any = None
    seed: int = 0


P = TypeVar("P", bound=TaskParams)


class Handler(ABC, Generic[P]):
    """One task on one loaded model, for one job. It has no loops over shards and no I/O, and catches nothing.

    A method raises RecordError for a record that can't be processed. Any other error becomes a record's error too, once
    the runner has narrowed it down to that record.
    """

    task: ClassVar[Task]
    #: Whether equal records have equal predictions, so that a shard computes them once. An instance may override it.
    deterministic: bool = True

    def __init__(self, loaded: Loaded, params: P, spec: JobSpec) -> None:
        self.loaded = loaded
        self.params = params
        self.spec = spec

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        """Load the model and its processor from a local folder. Raise Permanent if they don't fit the task."""

    @abstractmethod
    def prepare(self, records: Sequence[Record]) -> Sequence[Iterable[Piece]]:
        """Return each record's pieces, encoded on the CPU.

        If a record decodes to a lot of data (a picture, an hour of sound), its pieces should be a generator. The runner
        reads several generators at once, in threads, and only as far as it computes next.
        """

    @abstractmethod
    def infer(self, pieces: Sequence[Piece]) -> torch.Tensor | Sequence[Output]:
        """Return a batch's raw outputs, one per piece: a tensor whose first axis is the pieces, or a sequence.

        Called under inference mode. A large output (logits over a vocabulary) should be reduced to what `finish` needs.
        """

    @abstractmethod
    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        """Return a record's prediction from its pieces and their raw outputs, as numpy arrays, with floats as float32.

        If a generator yielded the pieces, their inputs are gone by then.
        """
