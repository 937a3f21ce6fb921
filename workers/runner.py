"""The runner: one shard from rows to a finished part, as overlapping stages. Rows in = rows out.

    thread ahead      read a block → records → pieces
    this thread       sort by cost → batches → the device → outputs
    thread behind     predictions → Parquet

Knows nothing of leases, Redis or commits.
"""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from schemas.errors import Interrupted, Permanent, RecordError, Transient
from schemas.plan import Shard
from schemas.report import ShardReport
from workers.batcher import Batcher, Budget
from workers.devices import DEVICE_LOST, OUT_OF_MEMORY, free_memory
from workers.handler import Handler, Piece, Prediction, Record
from workers.prefetch import ahead, behind
from workers.reader import Block, ParquetReader
from workers.writer import PartWriter

#: Equal records are recognised within this many of a shard's latest answers.
REMEMBERED = 16_384
#: So many unexpected errors, and not one answer, are the model's fault.
HOPELESS = 16


@dataclass(frozen=True)
class Prepared:
    """A block with each distinct record encoded once: `first[i]` is the row whose answer row i shares."""

    block: Block
    first: list[int]
    pieces: dict[int, list[Piece] | RecordError]
    keys: dict[int, bytes]
    seconds: float


@dataclass
class Timer:
    """Seconds by stage."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def timed(self, stage: str, function: Callable[[], Any]) -> Any:
        start = time.monotonic()
        try:
            return function()
        finally:
            self.seconds[stage] += time.monotonic() - start


class ShardRun:
    """One attempt's work on one shard. `each` is called before each batch with the rows done, and may interrupt."""

    def __init__(self, handler: Handler[Any], budget: Budget, each: Callable[[int], None]) -> None:
        self._handler = handler
        self._each = each
        self._rows = 0
        self._errors: Counter[str] = Counter()
        self._unexpected: list[RecordError] = []
        self._answered = False
        self._known: dict[bytes, Prediction] = {}
        self._timer = Timer()
        self._batcher: Batcher[np.ndarray] = Batcher(
            budget, OUT_OF_MEMORY, free_memory, (Interrupted, Permanent, Transient, *DEVICE_LOST)
        )

    def run(self, shard: Shard, reader: ParquetReader, task_columns: dict[str, str], writer: PartWriter) -> None:
        """Write the shard's rows and answers to `writer`.

        Raises what the reader raises; Permanent where many records had unexpected errors and none could be done, since
        then the model is at fault and not the records.
        """
        prepared = (self._prepare(block) for block in reader.blocks(shard, task_columns))
        with ahead(prepared) as blocks, behind(self._write_with(writer)) as write:
            for block in blocks:
                self._timer.seconds["prepare"] += block.seconds
                answers = self._answer(block)
                self._rows += len(block.block)
                write((block.block, answers))
        if writer.rows != shard.rows:
            raise AssertionError(f"shard {shard.shard} has {shard.rows} rows and {writer.rows} were written")
        if len(self._unexpected) >= HOPELESS and not self._answered:
            raise Permanent(
                f"no record of shard {shard.shard} could be done; the first error: {self._unexpected[0].message}",
                code=self._unexpected[0].code,
            )

    def _write_with(self, writer: PartWriter) -> Callable[[tuple[Block, list[Prediction | RecordError]]], None]:
        return lambda item: self._timer.timed("write", lambda: writer.write(*item))

    def _prepare(self, block: Block) -> Prepared:
        """Encode the block's distinct records; a failure is narrowed down to the records that cause it."""
        start = time.monotonic()
        first: list[int] = []
        seen: dict[bytes, int] = {}
        keys: dict[int, bytes] = {}
        for index, record in enumerate(block.records):
            if isinstance(record, RecordError) or not self._handler.deterministic:
                first.append(index)
                continue
            key = _record_key(record)
            first.append(seen.setdefault(key, index))
            keys[index] = key
        wanted = [i for i, record in enumerate(block.records) if first[i] == i and not isinstance(record, RecordError)]
        pieces: dict[int, list[Piece] | RecordError] = {
            i: record for i, record in enumerate(block.records) if isinstance(record, RecordError)
        }
        pieces |= zip(wanted, self._encode([block.records[i] for i in wanted]), strict=True)
        return Prepared(block, first, pieces, keys, time.monotonic() - start)

    def _encode(self, records: Sequence[Any]) -> list[list[Piece] | RecordError]:
        if not records:
            return []
        try:
            return list(self._handler.prepare(records))
        except Permanent:
            raise
        except Exception as error:  # noqa: BLE001 (one record's, unless it is the only one left)
            if len(records) == 1:
                return [_as_record_error(error, "prepare_failed")]
            half = len(records) // 2
            return self._encode(records[:half]) + self._encode(records[half:])

    def _answer(self, prepared: Prepared) -> list[Prediction | RecordError]:
        """An answer for each row of the block, in its order."""
        keys = prepared.keys
        answers: dict[int, Prediction | RecordError] = {
            i: self._known[keys[i]] for i in prepared.pieces if i in keys and keys[i] in self._known
        }
        flat: list[Piece] = []
        spans: dict[int, tuple[int, int]] = {}
        for index, pieces in prepared.pieces.items():
            if isinstance(pieces, RecordError):
                answers[index] = pieces
            elif index not in answers:
                spans[index] = (len(flat), len(flat) + len(pieces))
                flat += pieces

        def each(done: int) -> None:
            """Rows done so far: those of earlier blocks, and this block's share of finished pieces."""
            self._each(self._rows + len(prepared.block) * done // len(flat))

        outputs = self._timer.timed("infer", lambda: self._batcher.run(flat, self._infer, each))
        for index, (start, stop) in spans.items():
            answers[index] = self._finish(flat[start:stop], outputs[start:stop])
        self._remember(prepared, answers)
        rows = [answers[first] for first in prepared.first]
        for answer in rows:
            if isinstance(answer, RecordError):
                self._errors[answer.code] += 1
                if answer.code in _UNEXPECTED:
                    self._unexpected.append(answer)
            else:
                self._answered = True
        return rows

    def _remember(self, prepared: Prepared, answers: dict[int, Prediction | RecordError]) -> None:
        """Keep the answers for equal records of later blocks; `_known` is this thread's alone."""
        if len(self._known) > REMEMBERED:
            self._known.clear()
        for index, answer in answers.items():
            if index in prepared.keys and not isinstance(answer, RecordError):
                self._known[prepared.keys[index]] = answer

    def _infer(self, pieces: Sequence[Piece]) -> Sequence[np.ndarray]:
        with torch.inference_mode():
            outputs = self._handler.infer(pieces)
        if isinstance(outputs, torch.Tensor):
            return list(_to_numpy(outputs))
        return [_to_numpy(output) for output in outputs]

    def _finish(self, pieces: list[Piece], outputs: list[np.ndarray | Exception]) -> Prediction | RecordError:
        failed = next((output for output in outputs if isinstance(output, Exception)), None)
        if failed is not None:
            code = "out_of_memory" if isinstance(failed, OUT_OF_MEMORY) else "inference_failed"
            return _as_record_error(failed, code)
        try:
            return self._handler.finish(pieces, outputs)
        except Exception as error:  # noqa: BLE001 (this record's alone)
            return _as_record_error(error, "finish_failed")

    def report(self, **known: Any) -> ShardReport:
        """What the run came to, beside what the caller knows of the attempt."""
        tally = self._batcher.tally
        return ShardReport(
            rows=self._rows,
            errors=dict(self._errors),
            batches=tally.batches,
            tokens=tally.cost,
            padded_tokens=tally.padded_cost,
            seconds={stage: round(s, 4) for stage, s in self._timer.seconds.items()} | known.pop("seconds", {}),
            **known,
        )


_UNEXPECTED = ("prepare_failed", "inference_failed", "finish_failed", "not_finite")


def _to_numpy(output: torch.Tensor) -> np.ndarray:
    """On the CPU; any float as float32, since numpy has no bfloat16."""
    return (output.float() if output.is_floating_point() else output).cpu().numpy()


def _as_record_error(error: BaseException, code: str) -> RecordError:
    if isinstance(error, RecordError):
        return error
    return RecordError(code, f"{type(error).__name__}: {error}"[:500])


def _record_key(record: Record) -> bytes:
    """A digest that equal records share."""
    digest = hashlib.blake2b(digest_size=16)
    for value in record.values():
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else repr(value).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()
