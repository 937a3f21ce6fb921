"""Inputs that change or are broken: reported with file and row group, never mixed; the rest of the job is done."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from schemas.manifest import JobStatus
from tests.faults.conftest import Note
from tests.faults.stage import Stage, write_table
from tests.integration.harness import read_output
from tests.servers import wait_for

pytestmark = pytest.mark.slow


def _spoil_page(file: Path, row_group: int) -> None:
    """Overwrite the beginning of the text column's pages in one row group."""
    column = pq.ParquetFile(file).metadata.row_group(row_group).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(file.read_bytes())
    data[start : start + 60] = b"\xff" * 60
    file.write_bytes(data)


def _spoil_footer(file: Path) -> None:
    """Overwrite the beginning of the footer; its length and the end of the file stay."""
    data = bytearray(file.read_bytes())
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[start : start + 60] = b"\xff" * 60
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_an_input_overwritten_while_the_job_runs(stage: Stage, note: Note, tmp_path: Path, how: str) -> None:
    """A file that takes another's place leaves that to whoever has it open: then the job may end with the old one."""
    file = write_table(tmp_path / "in.parquet", [f"text {i}" for i in range(400)], row_group=20)
    kept = shutil.copy(file, tmp_path / "kept.parquet")
    other = write_table(tmp_path / "other.parquet", [f"changed {i}" for i in range(400)], row_group=20)
    with stage.worker():
        usual = {"shard": {"rows": 10}, "batch_size": 5, "params": {"batch_ms": 100}}
        job = stage.submit(str(file), str(tmp_path / "out"), **usual)
        wait_for("two parts", lambda: len(list(Path(job.output).glob("part-*"))) >= 2)
        if how == "in place":
            file.write_bytes(other.read_bytes())
        else:
            other.replace(file)
        ended = stage.ended(job)
    manifest = stage.check(ended, job, was={str(file): str(kept)})
    texts = [row["text"] for row in read_output(job.output)]
    assert all(text.startswith("text ") for text in texts), "rows of the new one among those of the old"
    assert {lost.error.code for lost in manifest.lost} <= {"input_changed"}
    assert all(str(file) in lost.error.message for lost in manifest.lost)
    assert (manifest.status is JobStatus.FAILED) == bool(manifest.lost)
    if how == "in place":
        assert manifest.lost
    done, lost = len(manifest.parts), len(manifest.lost)
    note(
        f"input overwritten ({how}) while the job runs", 1, f"{done} shards of the old one, {lost} reported, none mixed"
    )


def test_a_corrupt_footer_and_a_corrupt_page(stage: Stage, note: Note, tmp_path: Path) -> None:
    """Three files: one whole, one whose footer is garbage, one of four row groups with one page spoilt."""
    texts = [f"text {i}" for i in range(40)]
    whole, footer, page = (tmp_path / f"{name}.parquet" for name in ("a-whole", "b-footer", "c-page"))
    for file in (whole, footer, page):
        write_table(file, texts, row_group=10)
    kept = shutil.copy(page, tmp_path / "kept.parquet")
    _spoil_page(page, 2)
    _spoil_footer(footer)
    with stage.worker():
        job = stage.submit([str(whole), str(footer), str(page)], str(tmp_path / "out"), shard={"rows": 10})
        ended = stage.ended(job)
    job.inputs.remove(str(footer))
    manifest = stage.check(ended, job, was={str(page): str(kept)})
    assert (manifest.status, manifest.rows) == (JobStatus.FAILED, 70)
    first, second = manifest.lost
    assert first.error.code == second.error.code == "unreadable"
    assert str(footer) in first.error.message
    assert "footer" in first.error.message
    assert f"{page}: row group 2" in second.error.message
    note("a corrupt footer, a corrupt page", 1, "named with file and row group; all other rows done")
