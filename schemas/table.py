"""Which table are a job's parts committed to? What a spec says of it, and what is written down of the commit."""

import re
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: A table's name in an Iceberg catalog: its namespace, of one level or more, and its own.
_NAME = re.compile(r"[\w-]+(\.[\w-]+)+")


class TableSpec(BaseModel):
    """A Delta or Iceberg table. Its `location` holds the job's output, so that parts are added as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["delta", "iceberg"]
    location: str = Field(
        min_length=1, description="The table's own folder, which the job's output lies in; `s3://` or a local folder."
    )
    catalog: str | None = Field(
        None,
        min_length=1,
        description="Iceberg: a catalog by the name that pyiceberg's configuration has, and the settings allow.",
    )
    name: str | None = Field(None, description="Iceberg: the table in the catalog, `namespace.table`.")

    @model_validator(mode="after")
    def _is_whole(self) -> "TableSpec":
        if self.format == "delta" and (self.catalog is not None or self.name is not None):
            raise ValueError("a Delta table has neither a catalog nor a name; leave them out")
        if self.format == "iceberg" and (self.catalog is None or self.name is None):
            raise ValueError("an Iceberg table is found in a catalog; write {catalog: NAME, name: NAMESPACE.TABLE} too")
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no table's name; write NAMESPACE.TABLE")
        return self

    def __str__(self) -> str:
        named = f" {self.name} of the catalog {self.catalog}" if self.name else ""
        return f"{self.format} table{named} at {self.location}"


class TableCommit(BaseModel):
    """`_table.json`: the parts are in the table. `version` is Delta's version, or the id of Iceberg's snapshot.

    It is None if nothing was committed since the job has no parts, or if the table has forgotten which one it was.
    """

    model_config = ConfigDict(frozen=True)

    job: str
    table: TableSpec
    version: str | None
    parts: int
    rows: int
    committed_at: datetime
