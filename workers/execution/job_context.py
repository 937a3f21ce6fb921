"""What does a worker process know of a job? The job in the catalog, its plan, and what follows from them."""

import logging

import pyarrow as pa

from jobs.logs import event
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.storage.ledger import ledger_of
from schemas.errors import Permanent
from schemas.input_uris import InputUris
from schemas.output import kept_columns, output_schema, task_columns
from schemas.plan import Shard, shard_fingerprint
from workers.io.answers import KnownAnswers
from workers.io.media_reader import reader_for
from workers.io.witnesses import Witnesses
from workers.models.budget import Budget
from workers.models.cache import Held
from workers.tasks import handler_of

_log = logging.getLogger(__name__)


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
        self._storage = storage
        self._catalog_uri = settings.catalog_uri
        self._known: tuple[str, KnownAnswers | None] | None = None
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

    def known_answers(self, backend: str, is_deterministic: bool) -> KnownAnswers | None:
        """Return the answers that the job may copy on this backend; None if it computes them all.

        The ledger is read at the first call. Raise Transient if its store is away.
        """
        if self._known is None or self._known[0] != backend:
            media = self.task.media
            columns = sorted(self.task_columns) or ([] if media is None else [media.name])
            ledger = ledger_of(self.accepted, columns, backend, self._catalog_uri, self._storage)
            if ledger is not None and not is_deterministic:
                event(_log, "nothing_to_reuse", why="equal records have different answers: the job samples")
                ledger = None
            self._known = backend, None if ledger is None else KnownAnswers(ledger)
        return self._known[1]

    def fingerprint(self, shard: Shard) -> str:
        """Return a hash of everything that determines the shard's part: the spec, the model and the slices."""
        return shard_fingerprint(self.accepted.fingerprint, self.accepted.model.revision, shard)
