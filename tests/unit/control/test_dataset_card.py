"""The dataset card: its header is what `datasets` would write, and reads as the columns of the parts."""

import base64
import json
import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec

import pyarrow as pa
import pytest
import yaml

from jobs.control.dataset_card import card, features
from schemas.job import AcceptedJob, ResolvedModel, parse_spec
from schemas.layout import Layout
from schemas.output import output_schema
from schemas.tasks import all_tasks

KEPT = pa.schema(
    [
        ("id", pa.int64()), ("half", pa.float16()), ("single", pa.float32()), ("double", pa.float64()),
        ("day", pa.date32()), ("ms", pa.date64()), ("at", pa.timestamp("us", tz="UTC")), ("plain", pa.timestamp("ns")),
        ("price", pa.decimal128(10, 2)), ("took", pa.duration("ms")), ("flag", pa.bool_()), ("raw", pa.binary()),
        ("large", pa.large_string()), ("kind", pa.dictionary(pa.int8(), pa.string())), ("nothing", pa.null()),
        ("tags", pa.list_(pa.string())), ("vector", pa.list_(pa.float32(), 3)), ("wide", pa.large_list(pa.int8())),
        ("grid", pa.list_(pa.list_(pa.int32()))), ("boxes", pa.list_(pa.struct([("x", pa.float64())]))),
        ("deep", pa.struct([("in", pa.struct([("er", pa.list_(pa.int64()))]))])),
    ]
)  # fmt: skip
#: Reads columns as an Arrow schema, and what a card says of them; writes both as `datasets` has them.
COMPARE = """
import base64, json, sys
import pyarrow as pa
from datasets import Features
for line in sys.stdin:
    one = json.loads(line)
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(one["schema"])))
    assert Features._from_yaml_list(one["features"]) == Features.from_arrow_schema(schema), line
    print("equal")
"""


def job(prefix: str = "", layout: Layout = Layout.DATA) -> AcceptedJob:
    places = {"input": {"uri": "/in/"}, "output": {"uri": "/out/", "prefix": prefix}}
    return AcceptedJob(
        id="20261120-031500-k3v9x2", spec=parse_spec({"task": "text-classification", "model": "m", **places}),
        fingerprint="f", model=ResolvedModel(source="org/model", kind="hub", revision="abc"),
        accepted_at=datetime(2026, 11, 20, tzinfo=UTC), accepted_by="me", version="0", layout=layout,
    )  # fmt: skip


@pytest.mark.skipif(find_spec("datasets") is None, reason="it needs a newer pyarrow than is installed here")
def test_the_columns_as_datasets_has_them() -> None:
    """Of every task, and kept ones of many types. `datasets` runs in a process of its own, as it has threads."""
    schemas = [KEPT]
    for task in all_tasks().values():
        columns = {"input": {"uri": "/in/"}, "output": {"uri": "/out/"}}
        spec = parse_spec({"task": task.id, "model": "m", **columns, "params": PARAMS.get(task.id, {})})
        schemas.append(output_schema(spec, pa.schema([("id", pa.int64())])))
    lines = [
        json.dumps(
            {
                "schema": base64.b64encode(schema.remove_metadata().serialize().to_pybytes()).decode(),
                "features": yaml.safe_load(yaml.safe_dump(features(schema), sort_keys=False)),
            }
        )
        for schema in schemas
    ]
    command = [sys.executable, "-c", COMPARE]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["equal"] * len(schemas)), done.stderr


#: Parameters that a task can't do without.
PARAMS = {"zero-shot-classification": {"labels": ["a", "b"]}}


@pytest.mark.parametrize(("layout", "path"), [(Layout.DATA, "data/part-*.parquet"), (Layout.FLAT, "part-*.parquet")])
def test_the_header_names_the_parts(layout: Layout, path: str) -> None:
    one = job("ns_", layout)
    text = card(one, output_schema(one.spec, pa.schema([("error", pa.string())])))
    _, header, body = text.split("---\n", 2)
    said = yaml.safe_load(header)
    assert said["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": path}]}]
    names = [feature["name"] for feature in said["dataset_info"]["features"]]
    assert names == ["error", "ns_prediction", "ns_error", "ns_source_uri", "ns_source_row"]
    assert "`org/model` at `abc`" in body
    assert "`ns_error`: why" in body


def test_a_type_that_a_card_has_no_name_for() -> None:
    """The rest of the card is written all the same."""
    odd = pa.schema([("pairs", pa.map_(pa.string(), pa.int64()))])
    with pytest.raises(ValueError, match="no name for map"):
        features(odd)
    text = card(job(), output_schema(job().spec, odd))
    assert "dataset_info" not in text
    assert "data/part-*.parquet" in text
