"""How does a job become a snapshot of an Iceberg table? By one append, whose summary names the job.

Of two writers an Iceberg catalog takes one. The other looks at the table again before it tries again: the job may be in
it by now. So the library must not try again by itself.

A table's metadata lies where tenants may write. Nothing in it decides which files are read or written, or by what
code: `ConfinedIO` reads and writes inside the table's location alone, with the credentials of this process.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.io import InputFile, OutputFile
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
from pyiceberg.table import Table as IcebergTable

from jobs.storage.access import s3_access
from jobs.tables.base import JOB_KEY, TRIES, File, check_columns, refused, table_columns
from schemas.errors import AccessDenied, NightshiftError, Transient
from schemas.table import TableSpec

#: A property of `ConfinedIO`: what it may read and write.
_WITHIN = "nightshift.within"
#: Properties of a table that lead its writers elsewhere, or to code.
_LEADING = ("write.metadata.path", "write.data.path", "write.py-location-provider.impl", "write.object-storage.path")


class ConfinedIO(PyArrowFileIO):
    """pyiceberg's files, inside one prefix. A path outside of it raises Permanent (`table_mismatch`)."""

    def _check(self, location: str) -> None:
        within = self.properties[_WITHIN]
        real = location if "://" in location else str(Path(location).resolve())
        if not real.startswith(within):
            raise refused(f"the table's metadata names {location!r}, which is outside of the table's location {within}")

    def new_input(self, location: str) -> PyArrowFile:
        self._check(location)
        return super().new_input(location)

    def new_output(self, location: str) -> PyArrowFile:
        self._check(location)
        return super().new_output(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        self._check(location if isinstance(location, str) else location.location)
        super().delete(location)


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Raise what a catalog, its database, or a store raises as Transient: no class tells what will pass from the rest.

    What was to be refused is judged before.
    """
    try:
        yield
    except NightshiftError:
        raise
    except PermissionError as error:
        raise AccessDenied(f"{where}: {error}") from error
    except Exception as error:
        raise Transient(f"{where}: {type(error).__name__}: {error}") from error


class IcebergCommits:
    """The Iceberg table that a spec names."""

    def __init__(self, spec: TableSpec) -> None:
        assert spec.catalog is not None
        assert spec.name is not None
        self._name = spec.name
        self._location = spec.location.rstrip("/")
        self._where = f"the {spec}"
        with _translated(self._where):
            self._catalog = _catalog(spec.catalog, f"{self._location}/")

    def check(self, columns: pa.Schema) -> None:
        plain = _iceberg_columns(columns)
        with _translated(self._where):
            table = self._table()
            if table is not None:
                self._check(table, plain)

    def commit(self, job: str, files: Sequence[File], columns: pa.Schema, ended_ms: int) -> str | None:
        plain = _iceberg_columns(columns)
        for tried in range(TRIES):
            with _translated(self._where):
                table = self._table() or self._made(plain)
                if table is None:  # another writer made it just now
                    continue
                there = _snapshot_of(table, job)
                if there is not None:
                    return there
                self._check(table, plain)
                try:
                    table.add_files([file.uri for file in files], {JOB_KEY: job}, check_duplicate_files=False)
                except CommitFailedException:  # another writer was first: of this job or another
                    time.sleep(random.uniform(0, 0.1 * 2**tried))
                except CommitStateUnknownException:  # the next look tells
                    time.sleep(1)
        table = self._table()
        there = None if table is None else _snapshot_of(table, job)
        if there is None:
            raise Transient(f"{self._where}: other writers came first {TRIES} times")
        return there

    def _table(self) -> IcebergTable | None:
        """Return the table, which doesn't try a commit again by itself; None if there is none."""
        try:
            table = self._catalog.load_table(self._name)
        except NoSuchTableError:
            return None
        once = table.metadata.properties | {"commit.retry.num-retries": "0"}
        table.metadata = table.metadata.model_copy(update={"properties": once})
        return table

    def _made(self, plain: pa.Schema) -> IcebergTable | None:
        """Make the table, and its namespace. Return None if another writer made it at the same time."""
        try:
            self._catalog.create_namespace_if_not_exists(self._name.rpartition(".")[0])
            self._catalog.create_table(self._name, plain, location=self._location)
        except (TableAlreadyExistsError, NamespaceAlreadyExistsError):
            return None
        return self._table()

    def _check(self, table: IcebergTable, plain: pa.Schema) -> None:
        """Raise Permanent (`table_mismatch`) if it is another table, or the files would be no right rows of it."""
        if table.location().rstrip("/") != self._location:
            raise refused(f"{self._where} lies elsewhere, at {table.location()}; name that as output.table.location")
        leading = [name for name in _LEADING if name in table.properties]
        if leading:
            raise refused(f"{self._where} has the property {leading[0]}, which leads out of its location; remove it")
        if not table.spec().is_unpartitioned():
            raise refused(f"{self._where} is partitioned, and the job's parts are not; name another table")
        check_columns(plain, table.schema().as_arrow(), self._where)
        mapping = table.name_mapping()
        if mapping is not None:
            unmapped = set(plain.names) - {name for field in mapping for name in field.names}
            if unmapped:
                raise refused(
                    f"{self._where} has a name mapping without {', '.join(sorted(unmapped))}, which would be read as "
                    "null; add them to schema.name-mapping.default"
                )


def _iceberg_columns(columns: pa.Schema) -> pa.Schema:
    """Return the columns as Iceberg has them: its integers have 32 bits or 64."""
    return pa.schema([pa.field(field.name, _wide(field.type)) for field in table_columns(columns)])


def _wide(arrow: pa.DataType) -> pa.DataType:
    if pa.types.is_int8(arrow) or pa.types.is_int16(arrow):
        return pa.int32()
    if pa.types.is_list(arrow):
        return pa.list_(_wide(arrow.value_type))
    if pa.types.is_struct(arrow):
        return pa.struct([pa.field(one.name, _wide(one.type)) for one in arrow.fields])
    if pa.types.is_map(arrow):
        return pa.map_(_wide(arrow.key_type), _wide(arrow.item_type))
    return arrow


def _snapshot_of(table: IcebergTable, job: str) -> str | None:
    """Return the id of the snapshot that the job became, if the table has it."""
    for snapshot in table.snapshots():
        if snapshot.summary is not None and snapshot.summary.additional_properties.get(JOB_KEY) == job:
            return str(snapshot.snapshot_id)
    return None


def _catalog(name: str, within: str) -> Catalog:
    """Return a catalog of pyiceberg's configuration, whose files are ConfinedIO's whatever a table's properties say."""
    own = {"py-io-impl": f"{__name__}.{ConfinedIO.__name__}", _WITHIN: within} | _file_properties(within)
    catalog = load_catalog(name, **own)

    def files(properties: Any = None, location: str | None = None) -> ConfinedIO:
        return ConfinedIO(catalog.properties | own)

    catalog._load_file_io = files  # type: ignore[method-assign]
    return catalog


def _file_properties(location: str) -> dict[str, str]:
    """Return this process's access to S3 as pyiceberg wants it."""
    if not location.startswith("s3://"):
        return {}
    access = s3_access()
    properties = {
        "s3.access-key-id": access.key_id,
        "s3.secret-access-key": access.secret,
        "s3.session-token": access.token,
        "s3.region": access.region,
        "s3.endpoint": access.endpoint,
    }
    return {name: value for name, value in properties.items() if value}
