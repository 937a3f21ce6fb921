"""Inputs that change or are broken: reported with file and row group, never mixed; the rest of the job is done."""

import shutil
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightshift.testing import close
from schemas.manifest import JobStatus, Manifest
from tests import media, pictures
from tests.checkpoints import make_classifier
from tests.checkpoints_audio import make_sound_classifier
from tests.checkpoints_vision import make_image_classifier
from tests.faults.conftest import Note
from tests.faults.stage import Stage, Worker, write_table
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
        wait_for("two parts", lambda: len(list(Path(job.output).glob("data/part-*"))) >= 2)
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
    assert (manifest.status, manifest.rows, manifest.errors) == (JobStatus.FAILED, 80, {"unreadable": 10})
    (lost,) = manifest.lost
    assert lost.error.code == "unreadable"
    assert str(footer) in lost.error.message
    assert "footer" in lost.error.message
    errors = {row["source_row"]: row["error"]["message"] for row in read_output(job.output) if row["error"]}
    assert sorted(errors) == list(range(20, 30))
    assert all(f"{page}: rows 0 to 9 of row group 2" in message for message in errors.values())
    note("a corrupt footer", 1, "its shards named; all other rows done")
    note("a corrupt page", 1, "its rows are error rows that name file, row group and rows; all other rows done")


def test_media_that_is_broken_or_a_bomb(stage: Stage, note: Note, tmp_path: Path) -> None:
    """Error rows, beside neighbours that are answered as they are without them; the bomb is never unpacked."""
    whole = [pictures.encoded(pictures.picture(60, 40, seed), "JPEG") for seed in range(12)]
    bomb = (pictures.png_said_to_be(60_000, 60_000), "image_too_large")
    broken = {2: (whole[2][: len(whole[2]) // 2], "unreadable_image"), 7: bomb}
    sound = [media.encoded(samples, 16_000) for samples in media.sounds(8)]
    silent = {3: (media.encoded(np.zeros(0, np.float32), 16_000), "no_audio"), 5: (sound[5][:20], "unreadable_audio")}
    cases = {
        "image-classification": ("image", make_image_classifier(tmp_path / "vit"), whole, broken),
        "audio-classification": ("audio", make_sound_classifier(tmp_path / "wav2vec2", "layer"), sound, silent),
    }
    with stage.worker("--groups", "vision,audio,control") as worker:
        for task, (column, model, good, bad) in cases.items():
            mixed = [bad[n][0] if n in bad else data for n, data in enumerate(good)]
            answers = []
            for name, values in (("good", good), ("mixed", mixed)):
                file = write_media(tmp_path / f"{task}-{name}.parquet", column, values)
                output = str(tmp_path / f"{task}-{name}")
                job = stage.submit(str(file), output, task=task, model=str(model), shard={"rows": 20})
                stage.check(stage.ended(job), job)
                answers.append(read_output(output))
            for n, (alone, beside) in enumerate(zip(*answers, strict=True)):
                if n in bad:
                    assert (beside["prediction"], beside["error"]["code"]) == (None, bad[n][1])
                else:
                    assert beside["error"] is None
                    assert close(beside["prediction"], alone["prediction"]), (task, n)
        assert peak(worker) < 2 << 30, "60,000 x 60,000 pixels would be 10.8 GB"
    note(
        "a truncated JPEG, a decompression bomb, a sound of no length, one cut short",
        4,
        "4 error rows, neighbours right",
    )


def write_media(file: Path, column: str, values: list[bytes]) -> Path:
    cells = [{"bytes": value, "path": None} for value in values]
    pq.write_table(pa.table({"id": range(len(values)), column: pa.array(cells)}), file)
    return file


@pytest.mark.skipif(psutil.virtual_memory().available < 16 << 30, reason="needs 16 GiB of memory that is free")
def test_a_text_of_two_gigabytes(stage: Stage, note: Note, tmp_path: Path) -> None:
    """Nearly the most that a page of Parquet can hold. pyarrow takes three times as much to read it, once."""
    size = 1_900_000_000
    texts = [f"text {i}" for i in range(40)]
    file = tmp_path / "in.parquet"
    column = pa.chunked_array([pa.array(texts[:17]), one_text(b"ab " * (size // 3)), pa.array(texts[18:])])
    table = pa.table({"id": range(40), "text": column})
    pq.write_table(table, file, compression="zstd", use_dictionary=False, write_statistics=False)
    del table, column
    model = make_classifier(tmp_path / "bert")
    with stage.worker() as worker:
        job = stage.submit(str(file), str(tmp_path / "out"), task="text-classification", model=str(model))
        ended = stage.ended(job)
        most = peak(worker)
    manifest = Manifest.model_validate_json(ended.manifest)
    assert (manifest.status, manifest.errors) == (JobStatus.SUCCEEDED, {"too_large": 1})
    rows = read_output(job.output)
    assert [row["id"] for row in rows] == list(range(40))
    assert [row["id"] for row in rows if row["error"]] == [17]
    assert most < 5 * size
    note("a text of 1.9 GB among 40", 1, f"1 error row, neighbours right; the worker took {most / 1e9:.1f} GB at most")


def one_text(data: bytes) -> pa.Array:
    """A column of one text, made without another copy of it."""
    return pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, len(data)], np.int32)), pa.py_buffer(data))


def peak(worker: Worker) -> int:
    """Bytes that the largest process of a worker has had resident at most."""
    status = [Path(f"/proc/{member.pid}/status").read_text() for member in worker.family()]
    return max(int(line.split()[1]) << 10 for text in status for line in text.splitlines() if line.startswith("VmHWM"))
