"""Where are answers kept, to be copied when an equal record comes? In a ledger: files that are each created once.

<folder>/answers/<fingerprint>/<job>-<shard>.parquet    what one shard computed: a hash of each record, and its answer

The folder is the one that the spec names, which its tenant may write to, or one of the tenant's own beside the catalog.
So a tenant never finds the answers of another.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.logs import event
from jobs.parallel_map import parallel_map
from jobs.storage import ObjectInfo, Storage
from jobs.storage.hashes import HASH, Hashes, from_arrow
from jobs.storage.parquet import open_parquet, translated
from schemas.errors import AlreadyExists, Damaged, InputChanged, NotFound
from schemas.job import AcceptedJob
from schemas.layout import child

_log = logging.getLogger(__name__)
#: Files whose hashes are read at once.
_READERS = 16


def ledger_schema(prediction: pa.DataType) -> pa.Schema:
    """Return the schema of a ledger's file."""
    return pa.schema([pa.field("record", HASH, nullable=False), pa.field("prediction", prediction, nullable=False)])


@dataclass(frozen=True)
class Ledger:
    """The answers in one folder of equal task, model, parameters and backend. A link in it leads nowhere else."""

    uri: str
    storage: Storage
    schema: pa.Schema

    def __post_init__(self) -> None:
        object.__setattr__(self, "storage", self.storage.within([self.uri]))

    def hashes(self) -> Iterator[tuple[ObjectInfo, Hashes]]:
        """Yield the files, the latest jobs' first, each with the hashes of its records. Damaged files are left out."""
        infos = sorted(self.storage.list(self.uri), key=lambda info: info.uri, reverse=True)
        for info, found in zip(infos, parallel_map(self._hashes, infos, _READERS), strict=True):
            if found is not None:
                yield info, found

    def _hashes(self, info: ObjectInfo) -> Hashes | None:
        try:
            with self.opened(info) as file:
                return np.array(from_arrow(file.read(columns=["record"])["record"].combine_chunks()))
        except (Damaged, NotFound, InputChanged) as error:
            event(_log, "ledger_file_left_out", logging.WARNING, error=error.message)
            return None

    def add(self, job: str, shard: int, body: BinaryIO, owner: str) -> None:
        """Write what a shard computed. If another attempt at the shard did so before, its answers stand."""
        with suppress(AlreadyExists):
            self.storage.create(f"{self.uri}{job}-{shard:05d}.parquet", body, owner)

    @contextmanager
    def opened(self, info: ObjectInfo) -> Iterator[pq.ParquetFile]:
        """Open a file. Raise Damaged, here or while it is read, if it isn't one of a ledger of this task."""
        with self.storage.open(info) as source, translated(source, partial(_damaged, info)):
            file = open_parquet(source)
            if file.schema_arrow.remove_metadata() != self.schema:
                raise ValueError("its columns are those of another version or task")
            yield file

    def read(self, info: ObjectInfo, footer: pq.FileMetaData, group: int) -> pa.Array:
        """Return the answers in a row group of a file whose footer was read. Raise as `opened` does."""
        with self.storage.open(info) as source, translated(source, partial(_damaged, info)):
            file = pq.ParquetFile(source, metadata=footer)
            return file.read_row_group(group, columns=["prediction"])["prediction"].combine_chunks()


def _damaged(info: ObjectInfo, error: Exception) -> Damaged:
    return Damaged(f"{info.uri}, a file of a ledger, can't be read: {error}", code="ledger_broken")


def ledger_of(job: AcceptedJob, columns: list[str], backend: str, catalog_uri: str, storage: Storage) -> Ledger | None:
    """Return the ledger that a job copies answers from and adds its own to; None if it computes them all.

    `columns` are the task's columns that the job reads, `backend` is what the model runs on and in which precision.
    """
    spec = job.spec
    if spec.reuse is False:
        return None
    decides = {
        "task": spec.task,
        "prediction_version": spec.task_schema.version,
        "model": job.model.revision,
        "params": spec.params,
        "columns": columns,
        "backend": backend,
    }
    fingerprint = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    folder = child(_folder(job, catalog_uri), f"answers/{fingerprint}/")
    return Ledger(folder, storage, ledger_schema(spec.task_schema.prediction))


def _folder(job: AcceptedJob, catalog_uri: str) -> str:
    if isinstance(job.spec.reuse, str):
        return job.spec.reuse
    name = quote(job.tenant, safe="").replace(".", "%2E")
    return child(catalog_uri, f"reuse/tenants/{name}" if name else "reuse/own")
