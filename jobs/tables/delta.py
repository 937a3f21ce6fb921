"""How does a job become a version of a Delta table? By one entry of its log, with the job's id as the transaction's.

Delta's log keeps the last transaction of each application: a job is one, so that it is added once, however often and by
how many it is tried. Of two that write at once, the library lets one fail for the other's transaction.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    DeltaProtocolError,
    SchemaMismatchError,
    TableNotFoundError,
)
from deltalake.transaction import AddAction, RemoveAction

from jobs.storage.access import s3_access
from jobs.tables.base import JOB_KEY, TRIES, File, check_columns, refused, table_columns
from schemas.errors import Transient
from schemas.table import TableSpec

#: Entries of a table's configuration, and of a column's metadata, that files made without them would break.
_RULES = ("delta.constraints.", "delta.generationExpression", "delta.invariants", "delta.identity.")


@contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except (DeltaProtocolError, SchemaMismatchError) as error:
        raise refused(f"{where} can't be written to by this version of deltalake: {error}") from error
    except (DeltaError, OSError) as error:
        raise Transient(f"{where}: {error}") from error


class DeltaCommits:
    """The Delta table that a spec names."""

    def __init__(self, spec: TableSpec) -> None:
        self._location = spec.location.rstrip("/")
        self._where = f"the {spec}"
        self._options = _storage_options() if self._location.startswith("s3://") else {}

    def check(self, columns: pa.Schema) -> None:
        plain = table_columns(columns)
        with _translated(self._where):
            table = self._table()
            if table is not None:
                self._check(table, plain)

    def commit(self, job: str, files: Sequence[File], columns: pa.Schema, ended_ms: int) -> str | None:
        plain = table_columns(columns)
        schema = DeltaSchema.from_arrow(plain)
        added: list[AddAction | RemoveAction] = [self._action(file, ended_ms) for file in files]
        properties = CommitProperties(
            custom_metadata={JOB_KEY: job},
            app_transactions=[Transaction(job, 1)],
            max_commit_retries=TRIES,
        )
        came_first = ""
        for _ in range(TRIES):
            with _translated(self._where):
                table = self._table() or self._made(schema)
                if table is None:  # another writer made it just now
                    continue
                if table.transaction_version(job) is not None:
                    return _version_of(table, job)
                self._check(table, plain)
                try:
                    table.create_write_transaction(added, "append", schema, commit_properties=properties)
                except CommitFailedError as error:  # another writer was first: of this job, or with another schema
                    came_first = f": {error}"
        table = self._table()
        if table is not None and table.transaction_version(job) is not None:
            return _version_of(table, job)
        raise Transient(f"{self._where}: other writers came first {TRIES} times{came_first}")

    def _table(self) -> DeltaTable | None:
        if not self._options and not Path(self._location, "_delta_log").is_dir():
            return None
        try:
            return DeltaTable(self._location, storage_options=self._options)
        except TableNotFoundError:
            return None

    def _made(self, schema: DeltaSchema) -> DeltaTable | None:
        """Make the table. Return None if another writer may have made it at the same time."""
        try:
            return DeltaTable.create(self._location, schema, mode="error", storage_options=self._options)
        except DeltaError:
            if self._table() is None:
                raise
            return None

    def _check(self, table: DeltaTable, plain: pa.Schema) -> None:
        """Raise Permanent (`table_mismatch`) if files as they are would be no right rows of the table."""
        metadata = table.metadata()
        if metadata.partition_columns:
            names = ", ".join(map(repr, metadata.partition_columns))
            raise refused(f"{self._where} is partitioned by {names}, and the job's parts are not; name another table")
        if metadata.configuration.get("delta.columnMapping.mode", "none") != "none":
            raise refused(f"{self._where} has column mapping, by which the parts' columns would be lost; name another")
        rules = [*metadata.configuration, *(key for field in table.schema().fields for key in field.metadata)]
        for rule in rules:
            if rule.startswith(_RULES):
                raise refused(
                    f"{self._where} has rules for its rows ({rule}), which parts aren't held to; name another"
                )
        check_columns(plain, pa.schema(table.schema().to_arrow()), self._where)

    def _action(self, file: File, ended_ms: int) -> AddAction:
        relative = file.uri.removeprefix(f"{self._location}/")
        return AddAction(relative, file.size, {}, ended_ms, True, json.dumps({"numRecords": file.rows}))


def _version_of(table: DeltaTable, job: str) -> str | None:
    """Return the version that the job became; None if the log doesn't reach back so far."""
    found = (entry["version"] for entry in table.history() if entry.get(JOB_KEY) == job)
    return next(map(str, found), None)


def _storage_options() -> dict[str, str]:
    """Return this process's access to S3 as deltalake wants it. A log entry is created conditionally, as parts are."""
    access = s3_access()
    options = {
        "AWS_ACCESS_KEY_ID": access.key_id,
        "AWS_SECRET_ACCESS_KEY": access.secret,
        "AWS_SESSION_TOKEN": access.token,
        "AWS_REGION": access.region,
        "AWS_ENDPOINT_URL": access.endpoint,
        "AWS_ALLOW_HTTP": "true" if (access.endpoint or "").startswith("http://") else None,
        "AWS_CONDITIONAL_PUT": "etag",
    }
    return {name: value for name, value in options.items() if value}
