"""The runner: take one shard from rows to a finished part, in overlapping stages. As many rows come out as go in.

    threads ahead     read a block → records → pieces, a round of them at a time
    this thread       sort by cost → batches → the device → outputs
    thread behind     outputs → predictions → Parquet

If processes were lost over the shard, the same is first done span by span, one stage after the other
(`workers/engine/poison_rows.py`). The runner knows nothing of leases, Redis or commits.

A shard's answers are the same, to the last bit, whatever happened to earlier attempts: the batches are the same.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from schemas.errors import Interrupted, Permanent, RecordError, Transient
from schemas.heartbeat import FETCH, READ
from schemas.plan import Shard
from schemas.report import ShardReport
from workers.engine.batcher import Batcher
from workers.engine.heartbeat import Watch
from workers.engine.lazy_rounds import Round, rounds
from workers.engine.poison_rows import Careful, spans
from workers.engine.prefetch import ahead, behind
from workers.engine.record_identity import record_key, record_seed, seeded
from workers.engine.working import Timer, Working
from workers.handler import Handler, Piece, Prediction
from workers.io.answers import KnownAnswers, Reuse
from workers.io.block import ONCE, Block, Reader, Reading
from workers.io.part_writer import PartWriter
from workers.models.budget import Budget
from workers.models.device import DEVICE_LOST, OUT_OF_MEMORY, free_memory

#: The number of a shard's latest answers in which equal records are recognised.
REMEMBERED = 16_384
#: Blocks by which answers are remembered late: the stages are at most three blocks apart, so it is no matter of chance
#: whether an answer is known when an equal record comes.
_LATE = 4
#: The number of batches, by the budget, in a round whose pieces are made as they are needed.
ROUND_BATCHES = 4
#: A shard of at most this many rows has its stages run one after the other.
FEW = 32
#: This many unexpected errors without a single answer are the model's fault.
HOPELESS = 16


class ShardRun:
    """One attempt's work on one shard. `each` is called before each batch with the rows done, and may interrupt.

    With `reuse`, answers to equal records of earlier shards are copied. It has no effect if equal records may have
    different answers.
    """

    def __init__(
        self,
        handler: Handler[Any],
        budget: Budget,
        each: Callable[[int], None],
        watch: Watch | None = None,
        reuse: Reuse | None = None,
    ) -> None:
        self._handler = handler
        self._budget = budget
        self._each = each
        self._rows = 0
        self._errors: Counter[str] = Counter()
        self._unexpected: list[RecordError] = []
        self._answered = False
        self._known: dict[bytes, Prediction] = {}
        self._settled: deque[dict[bytes, Prediction]] = deque()
        self._prepared = 0
        self._reuse = reuse if handler.deterministic else None
        self._reused = 0
        self._watch = watch or Watch()
        self._timer = Timer(self._watch)
        self._batcher: Batcher[Any] = Batcher(
            budget, OUT_OF_MEMORY, free_memory, (Interrupted, Permanent, Transient, *DEVICE_LOST)
        )

    def run(
        self,
        shard: Shard,
        reader: Reader,
        task_columns: dict[str, str],
        writer: PartWriter,
        careful: Careful | None = None,
        reading: Reading = ONCE,
    ) -> None:
        """Write the shard's rows and answers to `writer`, span by span if poison records are to be isolated.

        Raise what the reader raises. Raise Permanent if many records had unexpected errors and not one succeeded, since
        the model is then at fault and not the records.
        """
        threads = max(2, torch.get_num_threads())
        moved = partial(self._watch.moved, READ)

        def read() -> Iterator[Block]:
            return self._read(reader.blocks(shard, task_columns, replace(reading, moved=moved)))

        with ThreadPoolExecutor(threads, thread_name_prefix="record") as pool:
            if careful is not None:
                is_last_word = not careful.may_run_whole(shard.rows)
                self._span_by_span(read(), pool, threads, writer if is_last_word else None, careful, shard.rows)
            if careful is None:
                self._whole(read(), pool, threads, writer, shard.rows)
            elif not is_last_word:
                # Nothing died: what is known to kill is left out, and the rest has the batches that it always has.
                self._forget()
                careful.name((0, shard.rows))
                self._whole(careful.blocks(read()), pool, threads, writer, shard.rows)
                careful.name(None)
        if writer.rows != shard.rows:
            raise AssertionError(f"shard {shard.shard} has {shard.rows} rows and {writer.rows} were written")
        if len(self._unexpected) >= HOPELESS and not self._answered:
            raise Permanent(
                f"no record of shard {shard.shard} could be done; the first error: {self._unexpected[0].message}",
                code=self._unexpected[0].code,
            )

    @property
    def unexpected(self) -> RecordError | None:
        """The first error that no record of this shard should have caused."""
        return self._unexpected[0] if self._unexpected else None

    @property
    def answered(self) -> bool:
        """Whether a record of this shard was answered."""
        return self._answered

    def _read(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Yield the blocks. While each is read, the silence of the store is limited."""
        while True:
            with self._watch.moving(READ):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def _forget(self) -> None:
        """Begin the shard anew, as if nothing of it had been computed."""
        self._rows = self._prepared = 0
        self._known.clear()
        self._settled.clear()

    def _whole(self, read: Iterator[Block], pool: Executor, threads: int, writer: PartWriter, rows: int) -> None:
        run = self._in_turn if rows <= FEW else self._overlapped
        run(read, pool, threads, writer)

    def _in_turn(self, read: Iterator[Block], pool: Executor, threads: int, writer: PartWriter) -> None:
        """Run the stages one after the other. For a few rows, threads would cost more than the overlap saves."""
        for working, current in self._rounds(read, pool, threads):
            self._settle(pool, writer, (working, current, self._compute(working, current)))

    def _overlapped(self, read: Iterator[Block], pool: Executor, threads: int, writer: PartWriter) -> None:
        with (
            ahead(read) as blocks,
            ahead(self._rounds(blocks, pool, threads)) as prepared,
            behind(partial(self._settle, pool, writer)) as settle,
        ):
            for working, current in prepared:
                settle((working, current, self._compute(working, current)))

    def _span_by_span(
        self,
        read: Iterator[Block],
        pool: Executor,
        threads: int,
        writer: PartWriter | None,
        careful: Careful,
        rows: int,
    ) -> None:
        """Run the stages one at a time, so that if the process dies, the span recorded last is the cause.

        Without a writer, that is all that it is for.
        """
        start = 0
        for found in read:
            block = careful.without_killers(found, start)
            answers: list[Prediction | RecordError] = []
            for first, last in spans(start, start + len(block), rows, careful.found):
                careful.name((first, last))
                self._watch.alone = last - first == 1
                for working, current in self._rounds(iter([block.slice(first - start, last - start)]), pool, threads):
                    answers += self._answers(pool, working, current, self._compute(working, current)) or []
            careful.name(None)
            self._watch.alone = False
            if writer is not None:
                self._write(writer, block, answers)
            start += len(block)

    def _rounds(self, blocks: Iterator[Block], pool: Executor, threads: int) -> Iterator[tuple[Working, Round]]:
        """Yield each block's pieces, round by round."""
        for block in blocks:
            working, sources = self._timer.timed("prepare", partial(self._prepare, block))
            made = rounds(sources, ROUND_BATCHES * self._budget.cost, pool, threads)
            while (current := self._timer.timed("prepare", partial(next, made, None))) is not None:
                yield working, current

    def _prepare(self, block: Block) -> tuple[Working, list[tuple[int, Iterable[Piece]]]]:
        """Return the block and its distinct records' pieces. A failure is narrowed down to the records at fault."""
        self._recall()
        working = Working(block, [], {}, {}, set())
        seen: dict[bytes, int] = {}
        wanted: list[int] = []
        for index, record in enumerate(block.records):
            if isinstance(record, RecordError):
                working.first.append(index)
                working.answers[index] = record
                continue
            if self._handler.deterministic:
                key = record_key(record)
                working.first.append(seen.setdefault(key, index))
                known = self._known.get(key)
                if working.first[-1] != index:
                    continue
                working.keys[index] = key
                if known is not None:
                    working.answers[index] = known
                    continue
            else:
                working.first.append(index)
            wanted.append(index)
        if self._reuse is not None:
            wanted = self._copy(working, wanted, self._reuse.known)
        sources: list[tuple[int, Iterable[Piece]]] = []
        for index, pieces in zip(wanted, self._encode([block.records[i] for i in wanted]), strict=True):
            if isinstance(pieces, RecordError):
                working.answers[index] = pieces
            elif self._handler.deterministic:
                sources.append((index, pieces))
            else:
                seed = record_seed(self._handler.spec.seed, block.source_uris[index], block.source_rows[index])
                sources.append((index, seeded(pieces, seed)))
        return working, sources

    def _copy(self, working: Working, wanted: list[int], known: KnownAnswers) -> list[int]:
        """Answer the records of these rows that were answered before. Return the rows that are left."""
        with self._watch.moving(FETCH):
            found = known.find([working.keys[index] for index in wanted])
        for index in wanted:
            if working.keys[index] in found:
                working.answers[index] = found[working.keys[index]]
                working.copied.add(index)
        return [index for index in wanted if index not in working.copied]

    def _encode(self, records: Sequence[Any]) -> list[Iterable[Piece] | RecordError]:
        if not records:
            return []
        try:
            return list(self._handler.prepare(records))
        except Permanent:
            raise
        except Exception as error:  # noqa: BLE001 (halved until one record is left, whose error it is)
            if len(records) == 1:
                return [_as_record_error(error, "prepare_failed")]
            half = len(records) // 2
            return self._encode(records[:half]) + self._encode(records[half:])

    def _compute(self, working: Working, current: Round) -> list[Any]:
        """Return the outcome of each piece of the round."""
        # How far into the block the round goes, for progress. Its records are in order.
        start = min(current.owners, default=0)
        stop = len(working.block) if current.last else max(current.owners, default=0)

        def each(done: int) -> None:
            self._watch.begin("infer")
            self._each(self._rows + start + (stop - start) * done // len(current.pieces))

        outputs = self._timer.timed(
            "infer", lambda: self._batcher.run(current.pieces, partial(infer, self._handler), each)
        )
        if current.lazy:
            current.pieces = [replace(piece, inputs={}) for piece in current.pieces]
        if current.last:
            self._rows += len(working.block)
        return list(outputs)

    def _settle(self, pool: Executor, writer: PartWriter, computed: tuple[Working, Round, list[Any]]) -> None:
        """Finish the records that end in this round. After the last round, write the block. One thread at a time."""
        answers = self._answers(pool, *computed)
        if answers is not None:
            self._write(writer, computed[0].block, answers)

    def _answers(
        self, pool: Executor, working: Working, current: Round, outputs: list[Any]
    ) -> list[Prediction | RecordError] | None:
        """Finish the records that end in this round. After the last round, return the block's answers, else None."""
        for owner, piece, output in zip(current.owners, current.pieces, outputs, strict=True):
            working.found[owner].append((piece, output))

        def finished(row: int) -> Prediction | RecordError:
            pairs = working.found.pop(row, [])
            return self._finish([piece for piece, _ in pairs], [output for _, output in pairs])

        many = pool.map if current.lazy else map
        answers = self._timer.timed("finish", lambda: list(many(finished, current.ended)))
        working.answers |= zip(current.ended, answers, strict=True)
        for row, error in current.failed.items():
            working.found.pop(row, None)
            working.answers[row] = _as_record_error(error, "prepare_failed")
        if not current.last:
            return None
        self._remember(working)
        self._reused += sum(first in working.copied for first in working.first)
        return [working.answers[first] for first in working.first]

    def _write(self, writer: PartWriter, block: Block, answers: Sequence[Prediction | RecordError]) -> None:
        self._count(answers)
        self._timer.timed("write", lambda: writer.write(block, answers))

    def _count(self, rows: Sequence[Prediction | RecordError]) -> None:
        for answer in rows:
            if isinstance(answer, RecordError):
                self._errors[answer.code] += 1
                if answer.code in _UNEXPECTED:
                    self._unexpected.append(answer)
            else:
                self._answered = True

    def _remember(self, working: Working) -> None:
        """Keep the answers for equal records of later blocks, and those of later jobs."""
        new = {
            working.keys[index]: answer
            for index, answer in working.answers.items()
            if index in working.keys and index not in working.copied and not isinstance(answer, RecordError)
        }
        if self._reuse is not None:
            self._reuse.new.write({key: answer for key, answer in new.items() if key not in self._known})
        self._settled.append(new)

    def _recall(self) -> None:
        """Make known, to the thread that prepares blocks, the answers of the block that lies _LATE before the next."""
        if self._prepared >= _LATE:
            if len(self._known) > REMEMBERED:
                self._known.clear()
            self._known |= self._settled.popleft()
        self._prepared += 1

    def _finish(self, pieces: list[Piece], outputs: list[Any]) -> Prediction | RecordError:
        failed = next((output for output in outputs if isinstance(output, Exception)), None)
        if failed is not None:
            code = "out_of_memory" if isinstance(failed, OUT_OF_MEMORY) else "inference_failed"
            return _as_record_error(failed, code)
        try:
            return self._handler.finish(pieces, outputs)
        except Exception as error:  # noqa: BLE001 (this record's alone)
            return _as_record_error(error, "finish_failed")

    def report(self, **known: Any) -> ShardReport:
        """Return the shard's report: the run's counts and times, and `known`, what the caller knows of the attempt."""
        tally = self._batcher.tally
        return ShardReport(
            rows=self._rows,
            reused=self._reused,
            errors=dict(self._errors),
            batches=tally.batches,
            tokens=tally.cost,
            padded_tokens=tally.padded_cost,
            seconds={stage: round(s, 4) for stage, s in self._timer.seconds.items()} | known.pop("seconds", {}),
            **known,
        )


_UNEXPECTED = ("prepare_failed", "inference_failed", "finish_failed", "not_finite")


def infer(handler: Handler[Any], pieces: Sequence[Piece]) -> list[Any]:
    """Return the raw outputs of one batch, one per piece, as `finish` takes them: an array, or several by name."""
    with torch.inference_mode():
        outputs = handler.infer(pieces)
    if isinstance(outputs, torch.Tensor):
        return list(_to_numpy(outputs))
    return [
        {name: _to_numpy(tensor) for name, tensor in output.items()} if isinstance(output, dict) else _to_numpy(output)
        for output in outputs
    ]


def _to_numpy(output: torch.Tensor) -> np.ndarray:
    """Return the output on the CPU. Floats become float32, since numpy has no bfloat16."""
    return (output.float() if output.is_floating_point() else output).cpu().numpy()


def _as_record_error(error: BaseException, code: str) -> RecordError:
    if isinstance(error, RecordError):
        return error
    return RecordError(code, f"{type(error).__name__}: {error}"[:500])
