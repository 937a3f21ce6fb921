"""A job as a worker process sees it: its files, and what follows from them."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.settings import Settings
from jobs.storage import Storage
from schemas.errors import NotFound, Permanent
from schemas.job import AcceptedJob
from schemas.layout import JOB, PLAN, child
from schemas.output import kept_columns, output_schema, task_columns
from schemas.plan import Shard, find_row_group, from_batch, input_schema
from workers.io.media_reader import reader_for
from workers.models.budget import Budget
from workers.models.cache import Held
from workers.tasks import handler_of


class JobContext:
    """A job as a worker sees it: its file, its plan, and what follows from them."""

    def __init__(self, output: str, storage: Storage, settings: Settings) -> None:
        self._storage = storage
        self._plan_uri = child(output, PLAN)
        try:
            self.accepted = AcceptedJob.model_validate_json(storage.read(child(output, JOB)))
            with storage.open(storage.stat(self._plan_uri)) as source:
                columns = input_schema(pq.read_schema(source))
        except NotFound as error:
            raise Permanent(f"the job's files are gone: {error.message}", code="job_gone") from None
        spec = self.accepted.spec
        self.task = spec.task_schema
        self.handler = handler_of(self.task)
        self.task_columns = task_columns(spec, columns)
        kept = kept_columns(spec, columns)
        self.output_schema = output_schema(self.task, pa.schema([columns.field(name) for name in kept]))
        self.reader = reader_for(self.accepted, columns, storage, settings)
        self._shards: dict[int, Shard] = {}

    def shard(self, number: int) -> Shard:
        """The shard, from the row group of the plan that holds it; the last one read is remembered."""
        if number not in self._shards:
            with self._storage.open(self._storage.stat(self._plan_uri)) as source:
                file = pq.ParquetFile(source)
                group = find_row_group(file.metadata, number)
                if group is None:
                    raise Permanent(f"{self._plan_uri} has no shard {number}", code="plan_broken")
                self._shards = {shard.shard: shard for shard in from_batch(file.read_row_group(group))}
        return self._shards[number]

    def budget(self, held: Held) -> Budget:
        """The model's budget, with this job's own cap on the records of a batch."""
        size = self.accepted.spec.batch_size
        held.budget.records = None if size == "auto" else size
        return held.budget

    def fingerprint(self, shard: Shard) -> str:
        """A hash of all that decides the shard's part: the spec, the model, the slices."""
        text = self.accepted.fingerprint + self.accepted.model.revision + shard.model_dump_json()
        return hashlib.sha256(text.encode()).hexdigest()[:32]
