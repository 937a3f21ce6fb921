"""docs/extending.md: its package, built as a wheel and installed, adds a task to the command line and to workers."""

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import BertConfig, BertForNextSentencePrediction

from tests.acceptance.cli import Done
from tests.acceptance.test_wheel import Installed, wheel
from tests.checkpoints import SMALL, wordpiece
from tests.integration.harness import read_output

__all__ = ["wheel"]

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def files_of(page: str) -> dict[str, str]:
    """The files that the page shows: a name in backticks on a line of its own, then a block of code."""
    return dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", page, re.M | re.S))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    source = tmp_path_factory.mktemp("extension")
    files = files_of(PAGE.read_text())
    assert sorted(files) == [
        "nightshift_next_sentence/handler.py", "nightshift_next_sentence/task.py", "pyproject.toml",
        "test_next_sentence.py",
    ]  # fmt: skip
    for name, text in (files | {"nightshift_next_sentence/__init__.py": ""}).items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text)
    env = Installed(tmp_path_factory.mktemp("extended"), wheel)
    pip = [sys.executable, "-m", "pip", "--python", str(env.python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", str(source)], check=True)
    return env


def nsp_model(folder: Path) -> Path:
    torch.manual_seed(7)
    tokenizer = wordpiece()
    BertForNextSentencePrediction(BertConfig(vocab_size=len(tokenizer), **SMALL)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_installed_package_adds_a_task(installed: Installed, tmp_path: Path) -> None:
    listed = installed.nightshift("tasks", cwd=tmp_path)
    assert "next-sentence-prediction (nsp)\n  Say whether a text goes on from another." in listed.out, listed
    model = nsp_model(tmp_path / "model")
    records = [{"text": "a good film", "after": "it was bright"}, {"text": "dull", "after": None}]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "in.parquet")

    def run(output: str, *options: object) -> Done:
        places = ("--model", model, "--input", "in.parquet", "--output", output, "--column", "next=after")
        return installed.nightshift("run", "--task", "nsp", *places, *options, cwd=tmp_path)

    done = run("out", "--param", "threshold=0")
    assert done.code == 3, done  # the null is an error row
    fine, null = read_output(str(tmp_path / "out"))
    assert fine["prediction"]["follows"] is True
    assert (null["prediction"], null["error"]["code"]) == (None, "null_input")
    refused = run("out2", "--param", "threshold=2")
    assert (refused.code, "params.threshold" in refused.err) == (2, True), refused


def test_it_is_tested_as_the_page_says(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "test_next_sentence.py").write_text(files_of(PAGE.read_text())["test_next_sentence.py"])
    nsp_model(tmp_path / "bert")
    done = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path, PYTEST_ADDOPTS="")
    assert done.code == 0, done.out
    assert "7 passed" in done.out
    site = next((installed.folder / "venv" / "lib").glob("python*/site-packages"))
    handler = site / "nightshift_next_sentence" / "handler.py"
    right = handler.read_text()
    try:
        handler.write_text(right.replace("[0])", "[1])"))
        done = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path, PYTEST_ADDOPTS="")
    finally:
        handler.write_text(right)
    assert done.code == 1, done.out
    assert "test_same_answer_in_any_order" in done.out


def test_a_broken_package_harms_no_other_task(installed: Installed, tmp_path: Path) -> None:
    """Its own task is refused with what is wrong with it."""
    site = next((installed.folder / "venv" / "lib").glob("python*/site-packages"))
    task = site / "nightshift_next_sentence" / "task.py"
    whole = task.read_text()
    for broken, said in (
        ("import no_such_module\n", "No module named 'no_such_module'"),
        (whole.replace('"nsp",', '"ner",'), "another task is already called 'ner'"),
        ("TASK = 1\n", "is a int, not a Task"),
    ):
        task.write_text(broken)
        assert "text-classification" in installed.nightshift("tasks", cwd=tmp_path).out
        named = installed.nightshift("tasks", "next-sentence-prediction", cwd=tmp_path)
        assert named.code == 2, named
        assert "the package nightshift-next-sentence can't provide it" in named.err
        assert said in named.err
    task.write_text(whole)
