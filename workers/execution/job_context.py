"""What does a worker process know of a job? The job in the catalog, its plan, and what follows from them."""

import hashlib

import pyarrow as pa

from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from schemas.errors import Permanent
from schemas.input_uris import InputUris
from schemas.output import kept_columns, output_schema, task_columns
from schemas.plan import Shard
from workers.io.media_reader import reader_for
from workers.io.witnesses import Witnesses
from workers.models.budget import Budget
from workers.models.cache import Held
from workers.tasks import handler_of


class JobContext:
    """A job as a worker sees it: its spec, its plan, and the handler, columns and reader that follow from them."""

    def __init__(self, job: str, storage: Storage, settings: Settings, witnesses: Witnesses) -> None:
        catalog = Catalog(settings.catalog_uri, storage)
        accepted = catalog.job(job)
        if accepted is None:
            raise Permanent(f"the catalog at {catalog.uri} has no job {job}", code="job_gone")
        plan = catalog.folder(accepted.output).find_plan()
        if plan is None:
            raise Permanent(f"the job's plan is gone from {accepted.output}", code="job_gone")
        self.accepted, self._plan = accepted, plan
        columns = plan.columns()
        spec = self.accepted.spec
        self.task = spec.task_schema
        self.handler = handler_of(self.task)
        self.task_columns = task_columns(spec, columns)
        kept = kept_columns(spec, columns)
        self.output_schema = output_schema(spec, pa.schema([columns.field(name) for name in kept]))
        self.reader = reader_for(self.accepted, columns, storage, settings, witnesses)
        self._inputs = InputUris(spec.input.uris)
        self._shards: dict[int, Shard] = {}

    def shard(self, number: int) -> Shard:
        """Return the shard from the plan. The row group read last is kept, since the next shard is likely in it."""
        if number not in self._shards:
            self._shards = {shard.shard: shard for shard in self._plan.row_group_of(number)}
        shard = self._shards[number]
        for part in shard.slices:
            # Who may write to the output can write a plan there before planning does.
            if not self._inputs.cover(part.uri):
                raise Permanent(
                    f"{self._plan.info.uri} names {part.uri!r}, which isn't of the job's input", code="plan_broken"
                )
        return shard

    def budget(self, held: Held) -> Budget:
        """Return the model's budget, with this job's own cap on the records in a batch."""
        size = self.accepted.spec.batch_size
        held.budget.records = None if size == "auto" else size
        return held.budget

    def fingerprint(self, shard: Shard) -> str:
        """Return a hash of everything that determines the shard's part: the spec, the model and the slices."""
        text = self.accepted.fingerprint + self.accepted.model.revision + shard.model_dump_json()
        return hashlib.sha256(text.encode()).hexdigest()[:32]
