"""The notebook in docs/examples, run in a kernel of its own against a real server and worker."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.settings import Settings
from tests.acceptance.api import new_token, server
from tests.acceptance.cli import environment, worker

NOTEBOOK = Path(__file__).parents[2] / "docs" / "examples" / "notebook.ipynb"
_RUN = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=180, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""


def test_the_notebook_runs_and_shows_the_job(
    settings: Settings, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_ALLOW_FILES", "true")
    notebook = json.loads(NOTEBOOK.read_text())
    parameters = next(cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
    source = NOTEBOOK.parent / "text" / "text-classification.parquet"
    here = {"MODEL": str(classifier), "INPUT": str(source), "OUTPUT": f"{tmp_path}/out/"}
    parameters["source"] = [*parameters["source"], *(f"\n{name} = {value!r}" for name, value in here.items())]
    (tmp_path / "notebook.ipynb").write_text(json.dumps(notebook))
    token = new_token("notebook", "--inputs", "*", "--outputs", "*")["Authorization"].removeprefix("Bearer ")
    with server(tmp_path / "api.log") as url, worker(tmp_path / "worker.log"):
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(tmp_path / "notebook.ipynb")], capture_output=True, text=True, timeout=240,
            env=environment(NIGHTSHIFT_URL=url, NIGHTSHIFT_TOKEN=token), cwd=tmp_path, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    cells = json.loads((tmp_path / "notebook.ipynb").read_text())["cells"]
    shown = [output for cell in cells for output in cell.get("outputs", [])]
    html = ["".join(output["data"]["text/html"]) for output in shown if "text/html" in output.get("data", {})]
    assert len(html) == 3  # the job, the job that has ended, its first rows
    assert "<th>status</th><td>succeeded</td>" in html[1]
    assert html[2].count("<tr>") == 3
    bars = "".join("".join(output["text"]) for output in shown if output["output_type"] == "stream")
    assert "succeeded" in bars
    assert "Warning" not in bars
