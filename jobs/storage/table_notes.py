"""What became of the commit to a job's table? Notes beside the manifest say so, each written once.

_table.json                 the parts are in the table
_table_refused-TIME.json    why they are not; the last one counts, as long as there is no `_table.json`
"""

from contextlib import suppress
from dataclasses import dataclass

from jobs.storage import Storage
from jobs.storage.stored import Content, parse_stored
from schemas.errors import AlreadyExists, NotFound
from schemas.layout import TABLE, TABLE_REFUSALS, child
from schemas.manifest import JobStatus, Manifest, TableRefusal
from schemas.table import TableCommit


@dataclass(frozen=True)
class TableNotes:
    """The notes of the job whose output location is `output`."""

    output: str
    storage: Storage

    def told(self, written: Manifest) -> Manifest | None:
        """Return the manifest as readers are told it; None if the job hasn't ended, since the commit is under way.

        A job whose table refused the parts failed, for that reason.
        """
        if written.table is None or written.status is not JobStatus.SUCCEEDED:
            return written
        commit = self.commit()
        if commit is not None:
            return written.model_copy(update={"table_version": commit.version})
        refusal = self._last_refusal()
        if refusal is None:
            return None
        return written.model_copy(update={"status": JobStatus.FAILED, "error": refusal.error})

    def commit(self) -> TableCommit | None:
        """Return what the parts became in the table; None if they are not known to be in it."""
        return self._read(child(self.output, TABLE), TableCommit)

    def write_commit(self, commit: TableCommit, owner: str) -> None:
        """Note that the parts are in the table. A second note changes nothing."""
        with suppress(AlreadyExists):
            self.storage.create(child(self.output, TABLE), commit.model_dump_json(indent=2).encode(), owner)

    def write_refusal(self, refusal: TableRefusal, owner: str) -> None:
        """Note why the table doesn't take the parts."""
        uri = child(self.output, f"{TABLE_REFUSALS}{refusal.refused_at:%Y%m%d-%H%M%S-%f}.json")
        self.storage.create(uri, refusal.model_dump_json(indent=2).encode(), owner)

    def _last_refusal(self) -> TableRefusal | None:
        last = max((info.uri for info in self.storage.list(child(self.output, TABLE_REFUSALS))), default=None)
        return None if last is None else self._read(last, TableRefusal)

    def _read(self, uri: str, model: type[Content]) -> Content | None:
        try:
            data = self.storage.read(uri)
        except NotFound:
            return None
        return parse_stored(model, data, uri, "bad_table_note", "move it away; the table itself knows its jobs")
