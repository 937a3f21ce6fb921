"""A task of an outside developer: its three files, put into a copy of the packages, and no other edit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import BertConfig, BertForNextSentencePrediction

from tests.acceptance.cli import Done, environment
from tests.checkpoints import SMALL, wordpiece
from tests.integration.harness import read_output
from tests.packages import ROOT, copy_packages

FILES = Path(__file__).parent / "outside_task"
TASK = "next-sentence-prediction"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and the tests with the three files among them."""
    root = copy_packages(tmp_path_factory.mktemp("copy"))
    shutil.copytree(ROOT / "tests", root / "tests", ignore=shutil.ignore_patterns(FILES.name, "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "docs").mkdir()
    for name in ("__init__.py", "task_pages.py"):
        shutil.copy(ROOT / "docs" / name, root / "docs")
    name = TASK.replace("-", "_")
    three = [f"schemas/tasks/{name}.py", f"workers/tasks/{name}.py", f"tests/tasks/test_{name}.py"]
    assert sorted(str(file.relative_to(FILES)) for file in FILES.rglob("*.py")) == sorted(three)
    for file in three:
        assert not (root / file).exists()
        shutil.copy(FILES / file, root / file)
    return root


def python(copy: Path, *arguments: object) -> Done:
    """`python -m` in the copy."""
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, cwd=copy, env=environment(PYTHONPATH=str(copy)),
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def nightshift(copy: Path, *arguments: object) -> Done:
    return python(copy, "nightshift", *arguments)


def test_the_catalogue_lists_it(copy: Path) -> None:
    listed = nightshift(copy, "tasks")
    assert f"{TASK} (nsp)\n  Say whether a text goes on from another." in listed.out, listed
    (told,) = nightshift(copy, "tasks", "nsp", "--json").json
    assert told["params"]["properties"]["threshold"]["default"] == 0.5


def test_the_schema_of_a_spec_has_it(copy: Path) -> None:
    text = json.dumps(nightshift(copy, "schema").json)
    assert TASK in text
    assert "The score from which on the second text follows." in text


def test_it_has_a_page(copy: Path) -> None:
    done = python(copy, "docs.task_pages")
    assert done.code == 0, done
    page = (copy / "docs" / "tasks" / f"{TASK}.md").read_text(encoding="utf-8")
    assert "BertForNextSentencePrediction" in page
    assert "| `threshold` | number (at least 0, at most 1) | `0.5` |" in page
    assert f"[`{TASK}`]({TASK}.md)" in (copy / "docs" / "tasks" / "README.md").read_text(encoding="utf-8")


def test_it_keeps_the_promises_of_every_task(copy: Path) -> None:
    file = f"tests/tasks/test_{TASK.replace('-', '_')}.py"
    done = python(copy, "pytest", "-q", "-p", "no:cacheprovider", file)
    assert done.code == 0, done.out


@pytest.mark.slow
def test_the_command_line_runs_it(copy: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    tokenizer = wordpiece()
    BertForNextSentencePrediction(BertConfig(vocab_size=len(tokenizer), **SMALL)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    records: list[dict[str, Any]] = [{"text": "a good film", "after": "it was bright"}, {"text": "dull", "after": None}]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "in.parquet")
    places = ("--model", tmp_path / "model", "--input", tmp_path / "in.parquet", "--output", tmp_path / "out")
    options = ("--column", "next=after", "--param", "threshold=0", "--json")
    done = nightshift(copy, "run", "--task", "nsp", *places, *options)
    assert done.code == 3, done
    assert (done.json["rows"], done.json["error_rows"]) == (2, 1)
    fine, null = read_output(str(tmp_path / "out"))
    assert fine["prediction"]["follows"] is True
    assert 0 < fine["prediction"]["score"] < 1
    assert (null["prediction"], null["error"]["code"]) == (None, "null_input")
    refused = nightshift(copy, "run", "--task", TASK, *places, "--param", "threshold=2")
    assert (refused.code, "params.threshold" in refused.err) == (2, True), refused
