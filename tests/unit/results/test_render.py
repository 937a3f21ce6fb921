"""Results drawn to look at: jobs' real rows where a tiny model makes them, hand-made ones for the other tasks."""

import io
import math
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.cli.results import results
from jobs.results.drawing import ALARM, COLOURS, LONGEST, PAPER, colour_of, original
from jobs.results.render import render
from jobs.results.source_media import SourceMedia
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.job_folder import JobFolder
from jobs.submission.accept import new_job
from schemas.errors import NotFound, SpecError
from schemas.job import AcceptedJob, JobSpec, ResolvedModel, parse_spec
from schemas.output import OwnColumns
from schemas.tasks import find_task
from tests.checkpoints_detection import make_detector, make_semantic
from tests.integration.harness import House, read_output
from tests.pictures import encoded, oriented, picture
from tests.unit.vision.test_rle_masks import by_runs

#: What pycocotools 2.0.11 says of its own code under numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
PLACE: dict[str, Any] = {"error": None, "source_uri": "s3://photos/a.parquet", "source_row": 3}


def row(**prediction: Any) -> dict[str, Any]:
    return PLACE | {"prediction": prediction}


def drawn(task: str, made: dict[str, Any], data: bytes, folder: Path) -> np.ndarray:
    """The picture of one row, as (height, width, 3)."""
    (file,) = render(find_task(task), [made], lambda _: data, folder, OwnColumns())
    assert file == folder / "00000.png"
    return np.asarray(Image.open(file))


def test_boxes_stand_where_they_are_said_to_be(tmp_path: Path) -> None:
    box = {"xmin": 100.0, "ymin": 80.0, "xmax": 300.0, "ymax": 240.0}
    made = row(objects=[{"label": "cat", "score": 0.98, "box": box}], width=640, height=480)
    pixels = drawn("object-detection", made, encoded(Image.new("RGB", (640, 480), "white")), tmp_path)
    assert pixels.shape == (480, 640, 3)
    for x, y in [(100, 160), (300, 160), (200, 240)]:
        assert tuple(pixels[y, x]) == colour_of("cat")
    assert tuple(pixels[160, 200]) == (255, 255, 255)
    assert (pixels[60:79, 100:180] == colour_of("cat")).all(axis=2).any()  # its label


def test_a_box_may_reach_over_the_edge_and_a_picture_may_be_tiny(tmp_path: Path) -> None:
    box = {"xmin": -9.0, "ymin": -9.0, "xmax": 30.0, "ymax": 0.5}
    made = row(objects=[{"label": "cat" * 50, "score": 0.98, "box": box}], width=2, height=1)
    assert max(drawn("object-detection", made, encoded(picture(2, 1)), tmp_path).shape) <= LONGEST


def test_large_and_turned_pictures_keep_their_proportions(tmp_path: Path) -> None:
    assert original(encoded(Image.new("RGB", (4000, 3000)))).size == (1280, 960)
    assert original(encoded(picture(40, 30))).size == (640, 480)
    assert original(oriented(picture(640, 480), 6)).size == (480, 640)
    assert original(encoded(Image.fromarray(np.full((500, 500), 0x8000, np.uint16)))).getpixel((9, 9)) == (128,) * 3


def test_masks_lie_over_the_picture(tmp_path: Path) -> None:
    segments = np.zeros((480, 640), np.uint8)
    segments[100:200, 100:300], segments[300:400, 200:600] = 1, 2
    made = row(
        segments=[
            {"label": "sky", "score": None, "area_px": mask.area, "box": mask.box, "mask": mask.rle}
            for mask in by_runs(segments, [1, 2, 3])
        ],
        width=640,
        height=480,
    )
    pixels = drawn("image-segmentation", made, encoded(Image.new("RGB", (640, 480), "black")), tmp_path)
    assert tuple(pixels[150, 100]) == COLOURS[0]
    assert tuple(pixels[350, 220]) == tuple(int(0.45 * part) for part in COLOURS[1])
    assert tuple(pixels[250, 250]) == (0, 0, 0)


@pytest.mark.parametrize("encoding", ["png16", "float32"])
def test_depth_is_coloured_from_least_to_greatest(encoding: str, tmp_path: Path) -> None:
    depth = np.tile(np.linspace(2, 6, 640, dtype="<f4"), (480, 1))
    data = depth.tobytes()
    if encoding == "png16":
        data = encoded(Image.fromarray(((depth - 2) / 4 * 65535).astype(np.uint16)))
    made = row(depth=data, encoding=encoding, min=2.0, max=6.0, mean=4.0, width=640, height=480)
    pixels = drawn("depth-estimation", made, encoded(picture(640, 480)), tmp_path).astype(int)
    left, right = pixels[240, 650], pixels[240, 1285]
    assert np.abs(left - (68, 1, 84)).max() < 9
    assert np.abs(right - (253, 231, 37)).max() < 9


@pytest.mark.parametrize(
    ("task", "prediction"),
    [
        ("image-classification", {"label": "cat", "score": 0.9, "top": [{"label": "cat", "score": 0.9}]}),
        ("image-feature-extraction", {"embedding": [0.25] * 32}),
        ("object-detection", {"objects": [], "width": 640, "height": 480}),
        ("image-segmentation", {"segments": [], "width": 640, "height": 480}),
    ],
)
def test_text_stands_under_the_picture(task: str, prediction: dict[str, Any], tmp_path: Path) -> None:
    pixels = drawn(task, row(**prediction), encoded(Image.new("RGB", (640, 480), "red")), tmp_path)
    assert pixels.shape[0] > 500
    assert (pixels[:480] == (255, 0, 0)).all()
    assert (pixels[480:] == PAPER).all(axis=2).mean() > 0.8
    assert (pixels[480:] < 60).all(axis=2).any()


def beep(seconds: float, rate: int = 16_000) -> bytes:
    """A WAV whose second half is loud."""
    count = int(seconds * rate)
    values = np.sin(np.arange(count) * 2 * math.pi * 440 / rate) * np.where(np.arange(count) < count / 2, 0.1, 0.9)
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(rate)
        made.writeframes((values * 32767).astype("<i2").tobytes())
    return file.getvalue()


def test_a_transcript_under_its_waveform(tmp_path: Path) -> None:
    chunks = [{"text": " hello", "start_s": 0.2, "end_s": 0.8}, {"text": " all", "start_s": 0.8, "end_s": None}]
    made = row(text="hello all " * 30, chunks=chunks, duration_s=2.0, language="en")
    pixels = drawn("automatic-speech-recognition", made, beep(2.0), tmp_path)
    blue = (pixels[:220] == (0, 110, 170)).all(axis=2).sum(axis=0)
    assert blue[100:500].max() < 30
    assert blue[700:1100].min() > 150
    assert tuple(pixels[5, 240]) == (225, 236, 244)


@pytest.mark.parametrize("seconds", [0.001, 0.05])
def test_a_very_short_clip(seconds: float, tmp_path: Path) -> None:
    made = row(label="yes", score=0.9, top=[{"label": "yes", "score": 0.9}], duration_s=seconds)
    assert drawn("audio-classification", made, beep(seconds), tmp_path).shape[1] == 1200


@pytest.mark.parametrize("task", ["object-detection", "automatic-speech-recognition"])
def test_what_cannot_be_drawn_says_why(task: str, tmp_path: Path) -> None:
    def gone(made: dict[str, Any]) -> bytes:
        if made["source_row"] == 0:
            raise NotFound("there is no such object")
        return b"neither picture nor sound" if made["source_row"] == 1 else b""

    error = {"prediction": None, "error": {"code": "unreadable_image", "message": "it is broken"}}
    good = row(objects=[], width=1, height=1, duration_s=1.0, text="", chunks=[])
    rows = [good | {"source_row": 0}, good | {"source_row": 1}, good | {"source_row": 2}, PLACE | error]
    files = list(render(find_task(task), rows, gone, tmp_path / "look", OwnColumns()))
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png", "00003.png"]
    for file in files:
        assert (np.asarray(Image.open(file)) == ALARM).all(axis=2).any()


def test_a_task_over_text_has_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        list(render(find_task("text-classification"), [], lambda _: b"", tmp_path, OwnColumns()))
    assert error.value.problems[0].field == "render"
    spec = spec_of("text-classification", tmp_path, tmp_path / "in.parquet")
    with pytest.raises(SpecError):
        SourceMedia(new_job(spec, ResolvedModel(source="m", kind="local", revision="1")), Storage(), Settings.read())


def job_at(output: str) -> AcceptedJob:
    job = JobFolder(output, Storage()).read_job()
    assert job is not None
    return job


def spec_of(task: str, model: Path, uri: Path, **changes: Any) -> JobSpec:
    output = {"uri": f"{uri.parent}/out"}
    return parse_spec({"task": task, "model": str(model), "input": {"uri": str(uri)} | changes, "output": output})


def as_structs(images: list[bytes], folder: Path) -> tuple[Path, dict[str, Any]]:
    column = pa.array([{"bytes": data, "path": None} for data in images])
    pq.write_table(pa.table({"n": range(len(images)), "image": column}), folder / "in.parquet", row_group_size=2)
    return folder / "in.parquet", {}


def as_bytes(images: list[bytes], folder: Path) -> tuple[Path, dict[str, Any]]:
    pq.write_table(pa.table({"photo": images}), folder / "in.parquet", row_group_size=3)
    return folder / "in.parquet", {"columns": {"image": "photo"}}


def as_uris(images: list[bytes], folder: Path) -> tuple[Path, dict[str, Any]]:
    as_objects(images, folder)
    names = [f"photos/{number}.png" for number in range(len(images))]
    pq.write_table(pa.table({"image": names}), folder / "in.parquet")
    return folder / "in.parquet", {}


def as_objects(images: list[bytes], folder: Path) -> tuple[Path, dict[str, Any]]:
    (folder / "photos").mkdir()
    for number, data in enumerate(images):
        (folder / "photos" / f"{number}.png").write_bytes(data)
    return folder / "photos", {}


@pytest.mark.parametrize("stored", [as_structs, as_bytes, as_uris, as_objects])
def test_source_media_of_a_job(
    stored: Callable[[list[bytes], Path], tuple[Path, dict[str, Any]]], settings: Settings, tmp_path: Path
) -> None:
    images = [encoded(picture(40, 30, seed)) for seed in range(7)]
    uri, changes = stored(images, tmp_path)
    spec = spec_of("object-detection", make_detector(tmp_path / "model"), uri, **changes)
    House(settings).run(spec)
    rows = read_output(f"{tmp_path}/out")
    fetch = SourceMedia(job_at(f"{tmp_path}/out"), Storage(), settings)
    assert [fetch(made) for made in rows] == images
    assert [fetch(rows[number]) for number in (5, 1, 1, 4)] == [images[number] for number in (5, 1, 1, 4)]
    with pytest.raises(NotFound):
        fetch(rows[0] | {"source_row": 99, "source_uri": rows[0]["source_uri"].replace("photos/0", "photos/99")})


def test_source_media_are_those_that_the_jobs_submitter_may_read(settings: Settings, tmp_path: Path) -> None:
    uri, changes = as_uris([encoded(picture(40, 30))], tmp_path)
    House(settings).run(spec_of("object-detection", make_detector(tmp_path / "model"), uri, **changes))
    job = job_at(f"{tmp_path}/out").model_copy(update={"allowed_inputs": ("s3://another/",)})
    with pytest.raises(SpecError, match="outside"):
        SourceMedia(job, Storage(), settings)(read_output(f"{tmp_path}/out")[0])


def test_the_command_draws_a_jobs_first_rows(settings: Settings, tmp_path: Path) -> None:
    images = [encoded(picture(60, 40, seed)) for seed in range(3)] + [b"broken"]
    uri, _ = as_structs(images, tmp_path)
    House(settings).run(spec_of("image-segmentation", make_semantic(tmp_path / "model"), uri))
    look = tmp_path / "deep" / "look"
    done = CliRunner().invoke(results, [f"{tmp_path}/out", "--render", "10", str(look)], catch_exceptions=False)
    assert done.exit_code == 0
    assert [Path(line) for line in done.stdout.split()] == [look / f"{number:05d}.png" for number in range(4)]
    assert all(np.asarray(Image.open(file)).shape == (480, 720, 3) for file in sorted(look.iterdir())[:3])
    assert CliRunner().invoke(results, [f"{tmp_path}/out", "--render", "0", str(look)]).exit_code == 2
