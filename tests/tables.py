"""Tables as other programs read them, each in a process of its own: their threads don't go with pytest's forks."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from schemas.table import TableSpec

Rows = list[dict[str, Any]]
#: Seconds for a reader's start and its reading.
LIMIT_S = 120

#: How each program reads a table of each format into the Arrow table `found`. `location` and `options` are Delta's.
READERS = {
    ("delta", "deltalake"): """
from deltalake import DeltaTable
found = DeltaTable(location, version=version, storage_options=options).to_pyarrow_table()
""",
    ("delta", "polars"): """
import warnings
import polars as pl
from polars.exceptions import PerformanceWarning
warnings.simplefilter("ignore", PerformanceWarning)
found = pl.read_delta(location, version=version, storage_options=options).to_arrow()
""",
    ("delta", "duckdb"): """
import duckdb
from deltalake import DeltaTable
parts = DeltaTable(location, version=version, storage_options=options).to_pyarrow_dataset()
found = duckdb.sql("select * from parts").to_arrow_table()
""",
    ("iceberg", "pyiceberg"): """
from pyiceberg.catalog import load_catalog
found = load_catalog(catalog).load_table(name).scan(snapshot_id=version).to_arrow()
""",
    ("iceberg", "polars"): """
import warnings
import polars as pl
from polars.exceptions import PerformanceWarning
from pyiceberg.catalog import load_catalog
warnings.simplefilter("ignore", PerformanceWarning)
table = load_catalog(catalog).load_table(name)
found = pl.scan_iceberg(table, snapshot_id=version).collect().to_arrow()
""",
    ("iceberg", "duckdb"): """
import duckdb
from pyiceberg.catalog import load_catalog
scan = load_catalog(catalog).load_table(name).scan(snapshot_id=version)
found = scan.to_duckdb("found").sql("select * from found").to_arrow_table()
""",
}

_PROGRAM = """
import json, os, sys
asked = json.load(sys.stdin)
location, catalog, name = asked["location"], asked["catalog"], asked["name"]
version, options = asked["version"], asked["options"]
{read}
rows = found.select(asked["columns"]).to_pylist()
json.dump(sorted(rows, key=lambda row: json.dumps(row, sort_keys=True)), sys.stdout)
sys.stdout.flush()
os._exit(0)  # the libraries' threads may end the process with an error while Python shuts down
"""


def rows_by(
    reader: str,
    table: TableSpec,
    columns: list[str],
    version: str | None = None,
    env: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Rows:
    """The rows that a program reads of a table, now or as of a version, in an order of their own."""
    asked = {
        "location": table.location, "catalog": table.catalog, "name": table.name, "options": dict(options or {}),
        "version": None if version is None else int(version), "columns": columns,
    }  # fmt: skip
    program = _PROGRAM.format(read=READERS[table.format, reader])
    rows: Rows = said_by(program, asked, env)
    return rows


def said_by(program: str, asked: Any = None, env: Mapping[str, str] | None = None) -> Any:
    """What a Python program says as JSON, that is told `asked` on its standard input."""
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(asked), capture_output=True, text=True, timeout=LIMIT_S,
        env=os.environ | (env or {}), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def rows_of_parts(outputs: list[str], columns: list[str]) -> Rows:
    """The rows of the parts of these jobs, as `rows_by` returns them."""
    rows: Rows = []
    for output in outputs:
        rows += ds.dataset(f"{output}/data", format="parquet").to_table(columns).to_pylist()
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def readers_of(format: str) -> list[str]:
    return [reader for of, reader in READERS if of == format]


def sql_catalog(folder: Path, name: str = "lake") -> dict[str, str]:
    """The environment in which pyiceberg, and Nightshift, know a catalog in a SQLite file."""
    return {
        f"PYICEBERG_CATALOG__{name.upper()}__URI": f"sqlite:///{folder}/catalog.db",
        f"PYICEBERG_CATALOG__{name.upper()}__WAREHOUSE": str(folder),
        "NIGHTSHIFT_ICEBERG_CATALOGS": json.dumps([name]),
    }


def make_other_table(table: TableSpec) -> None:
    """Make a Delta table that has another schema than any job's."""
    said_by(
        """
import json, sys
import pyarrow as pa
from deltalake import DeltaTable
DeltaTable.create(json.load(sys.stdin), pa.schema([("id", pa.string()), ("prediction", pa.string())]))
print("null")
""",
        table.location,
    )
