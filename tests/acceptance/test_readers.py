"""The snippets of docs/results.md, and the readers on a whole output: every row and column, in the input's order.

Each reader runs in a process of its own, since some have threads that a fork doesn't survive.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from jobs.settings import Settings
from nightshift.testing import nightshift_settings  # noqa: F401 (a fixture)
from schemas.manifest import JobStatus
from tests.integration.harness import House, spec_for, write_reviews
from tests.texts import sentences

LOCATION = "s3://annotated/reviews/2026-11-20/"
PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
TEXT = PAGE[PAGE.index("## Readers\n") : PAGE.index("## The whole location\n")]
SNIPPETS = dict(re.findall(r"^### (\w+)\n(?:(?!```).*\n)*?```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
ROWS = 40
NULL = 17
COLUMNS = ["id", "review", "prediction", "error", "source_uri", "source_row"]

needs_datasets = pytest.mark.skipif(
    find_spec("datasets") is None, reason="datasets needs a newer pyarrow than is installed here"
)
#: How each reader takes the whole output, or a copy with the card under the name that the hub has for it.
WHOLE = {
    "pyarrow": "import pyarrow.dataset as ds\ntable = ds.dataset(PLACE, format='parquet').to_table()",
    "DuckDB": "import duckdb\ntable = duckdb.sql(f\"select * from '{PLACE}**/*.parquet'\").to_arrow_table()",
    "Polars": "import polars\ntable = polars.scan_parquet(PLACE + '**/*.parquet').collect()",
    "pandas": "import pandas\ntable = pandas.read_parquet(PLACE)",
    "datasets": "import datasets\ntable = datasets.load_dataset(PLACE, split='train')",
}
#: Prints `tables`, each of any reader, as its columns and rows.
AS_ROWS = """
import json
import pyarrow as pa
def rows(table):
    if type(table).__module__.startswith("pandas"):
        table = pa.Table.from_pandas(table, preserve_index=False)
    if type(table).__module__.startswith("polars"):
        return table.columns, table.to_dicts()
    return table.column_names, table.to_pylist() if isinstance(table, pa.Table) else list(table)
print(json.dumps([rows(table) for table in tables]))
"""


@pytest.fixture(scope="module")
def output(nightshift_settings: Settings, classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A finished job of three parts, with an error row."""
    folder = tmp_path_factory.mktemp("readers")
    texts: list[str | None] = list(sentences(ROWS))
    texts[NULL] = None
    file = write_reviews(folder / "in.parquet", texts)
    manifest = House(nightshift_settings).run(spec_for(classifier, str(file), f"{folder}/out", shard={"rows": 15}))
    assert (manifest.status, len(manifest.parts), manifest.errors) == (JobStatus.SUCCEEDED, 3, {"null_input": 1})
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {"data", "_job.json", "_plan.pq", "_README.md", "_manifest.json"}
    return folder / "out"


def read(code: str, place: Path, home: Path, tables: int) -> None:
    """Run the code, which reads so many `tables`, and compare each with what the job wrote."""
    env = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    script = f"PLACE = {f'{place}/'!r}\n{code}\n{AS_ROWS}"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == tables
    for names, rows in found:
        assert names == COLUMNS
        assert [(row["id"], row["source_row"]) for row in rows] == [(n, n) for n in range(ROWS)]
        assert {row["source_uri"] for row in rows} == {str(place.parent / "in.parquet")}
        null = rows.pop(NULL)
        assert (null["review"], null["prediction"], null["error"]["code"]) == (None, None, "null_input")
        assert all(row["review"] and row["prediction"]["label"] and row["error"] is None for row in rows)


@pytest.mark.parametrize(
    "reader", [pytest.param(one, marks=[needs_datasets] if one == "datasets" else []) for one in WHOLE]
)
def test_a_reader_takes_the_data_and_the_whole_output(output: Path, tmp_path: Path, reader: str) -> None:
    snippet = SNIPPETS[reader]
    assert LOCATION + "data/" in snippet
    # Both in one process: some readers take seconds to import.
    code = f"{snippet.replace(LOCATION, f'{output}/')}\ntables = [table]\n{WHOLE[reader]}\ntables.append(table)"
    read(code, output, tmp_path, 2)


@needs_datasets
def test_the_card_on_the_hub(output: Path, tmp_path: Path) -> None:
    """`datasets` reads a copy by its card: the columns have the types that it declares."""
    copy = output.parent / "copy"
    shutil.copytree(output, copy)
    (copy / "_README.md").rename(copy / "README.md")
    code = "import datasets\nbuilder = datasets.load_dataset_builder(PLACE)\n"
    code += "assert builder.info.features is not None\ntable = datasets.load_dataset(PLACE, split='train')\n"
    code += "assert table.features == builder.info.features\ntables = [table]"
    read(code, copy, tmp_path, 1)


def test_every_reader_of_the_page_is_run() -> None:
    assert SNIPPETS.keys() == WHOLE.keys()


_NIGHTS = """
import json, sys
import duckdb
import polars
import pyarrow.dataset as ds
place = sys.argv[1]
arrow = ds.dataset(place, format="parquet", partitioning="hive").to_table().to_pylist()
glob = place + "**/*.parquet"
duck = duckdb.sql(f"select * from read_parquet('{glob}', hive_partitioning = true)").to_arrow_table().to_pylist()
pola = polars.scan_parquet(glob, hive_partitioning=True).collect().to_dicts()
print(json.dumps([sorted((str(row["date"]), row["id"]) for row in rows) for rows in (arrow, duck, pola)]))
"""


def test_nights_are_partitions_of_one_table(output: Path, tmp_path: Path) -> None:
    """If the date is `date=…` in the output's URI. Whatever else lies there is passed over."""
    for night in (19, 20):
        shutil.copytree(output, tmp_path / f"date=2026-11-{night}")
    command = [sys.executable, "-c", _NIGHTS, f"{tmp_path}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout):
        assert found == [[f"2026-11-{night}", n] for night in (19, 20) for n in range(ROWS)]
