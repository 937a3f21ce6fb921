"""Every task over pictures and sound by the command line: from a bucket of files and from a {bytes, path} table."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.settings import Settings
from schemas.task import Kind
from schemas.tasks import all_tasks, find_task
from tests import media, pictures
from tests.acceptance.cli import nightshift, worker
from tests.checkpoints_audio import make_sound_classifier
from tests.checkpoints_detection import make_detector, make_segmenter, make_semantic
from tests.checkpoints_speech import make_ctc, make_whisper
from tests.checkpoints_vision import make_depth_estimator, make_image_classifier, make_image_encoder
from tests.integration.harness import read_output
from tests.servers import s3_client


@dataclass(frozen=True)
class Kit:
    """A task with a checkpoint of one architecture."""

    task: str
    make: Callable[[Path], Path]
    params: dict[str, str] = field(default_factory=dict)


KITS = {
    "wav2vec2 heads": Kit("audio-classification", make_sound_classifier),
    "wav2vec2 ctc": Kit("automatic-speech-recognition", make_ctc, {"timestamps": "word"}),
    "whisper": Kit("automatic-speech-recognition", make_whisper, {"chunk_length_s": "2", "stride_s": "0.3"}),
    "vit": Kit("image-classification", make_image_classifier),
    "convnext": Kit("image-classification", partial(make_image_classifier, architecture="convnext")),
    "vit encoder": Kit("image-feature-extraction", make_image_encoder),
    "detr": Kit("object-detection", make_detector, {"threshold": "0.1"}),
    "mask2former": Kit("image-segmentation", make_segmenter, {"threshold": "0.1"}),
    "segformer": Kit("image-segmentation", make_semantic),
    "glpn": Kit("depth-estimation", make_depth_estimator),
}


def image_files() -> dict[str, bytes]:
    """Two photographs, and pictures made here in several formats; one file that is none."""
    photos = files("sklearn.datasets") / "images"
    found = {name: (photos / name).read_bytes() for name in ("china.jpg", "flower.jpg")}
    for number, format in enumerate(["PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG"]):
        data = pictures.encoded(pictures.picture(40 + 7 * number, 64 - 5 * number, seed=number), format)
        found[f"made/{number}.{format.lower()}"] = data
    return found | {"torn.png": found["made/0.png"][:60]}


def sound_files() -> dict[str, bytes]:
    forms = {"wav 16": "wav", "flac": "flac", "mp3": "mp3", "ogg opus": "opus", "m4a": "m4a"}
    clips = media.sounds(len(forms), rate=16_000)
    found = {
        f"{number}.{suffix}": media.encoded(np.tile(clip, 3), 16_000, form)
        for number, (clip, (form, suffix)) in enumerate(zip(clips, forms.items(), strict=True))
    }
    return found | {"torn.wav": b"no sound at all"}


def put(endpoint: str, uri: str, contents: dict[str, bytes]) -> None:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for name, data in contents.items():
        s3_client(endpoint).put_object(Bucket=bucket, Key=prefix + name, Body=data)


def table_of(contents: dict[str, bytes], column: str) -> bytes:
    """As Hugging Face datasets have media, in the order of the names."""
    cells = [{"bytes": contents[name], "path": name} for name in sorted(contents)]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"name": sorted(contents), column: pa.array(cells, struct)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=3)
    return buffer.getvalue()


def test_every_task_over_media_is_here() -> None:
    assert {kit.task for kit in KITS.values()} == {task.id for task in all_tasks().values() if task.media}


@pytest.mark.timeout(600)
def test_every_media_task_from_a_bucket_and_from_a_table(
    s3: str, s3_endpoint: str, settings: Settings, tmp_path: Path
) -> None:
    contents = {Kind.IMAGE: image_files(), Kind.AUDIO: sound_files()}
    for kind, made in contents.items():
        put(s3_endpoint, f"{s3}/{kind}/", made | {"notes.txt": b"x", "_hidden.png": b"x"})
        put(s3_endpoint, f"{s3}/tables/{kind}/", {"in.parquet": table_of(made, kind)})

    def run(name: str, source: str) -> list[dict[str, Any]]:
        kit, output = KITS[name], tmp_path / name.replace(" ", "-") / source
        kind = next(column.kind for column in find_task(kit.task).columns)
        uri = f"{s3}/{kind}/" if source == "bucket" else f"{s3}/tables/{kind}/"
        params = [option for key, value in kit.params.items() for option in ("--param", f"{key}={value}")]
        model = tmp_path / "models" / name
        done = nightshift("run", "--task", kit.task, "--model", model, "--input", uri, "--output", output, *params)
        assert done.code == 3, (name, done)
        assert "1 error row: unreadable" in done.err
        if source == "bucket":
            assert "1 files of other kinds" in done.err
        return read_output(str(output))

    for name, kit in KITS.items():
        kit.make(tmp_path / "models" / name)
    with worker(tmp_path / "worker.log", "--processes", "2"), ThreadPoolExecutor(2) as pool:
        runs = {(name, source): pool.submit(run, name, source) for name in KITS for source in ("bucket", "table")}
        rows = {key: future.result() for key, future in runs.items()}
    for name, kit in KITS.items():
        kind = next(column.kind for column in find_task(kit.task).columns)
        listed, tabled = rows[name, "bucket"], rows[name, "table"]
        by_uri = {row["source_uri"].removeprefix(f"{s3}/{kind}/"): row for row in listed}
        assert set(by_uri) == set(contents[kind])
        assert [row["name"] for row in tabled] == sorted(contents[kind])
        assert [row["source_row"] for row in tabled] == list(range(len(tabled)))
        for row in tabled:
            other = by_uri[row["name"]]
            assert other["source_row"] == 0
            assert (row["prediction"], row["error"]) == (other["prediction"], other["error"]), (name, row["name"])
            assert (row["error"] is None) == (not row["name"].startswith("torn"))
