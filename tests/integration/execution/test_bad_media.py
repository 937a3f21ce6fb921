"""Bad pictures and sounds, each beside good neighbours: an error row of its own, the neighbours' answers unchanged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.settings import Settings
from schemas.job import parse_spec
from schemas.manifest import JobStatus
from tests import media, pictures
from tests.checkpoints_audio import make_sound_classifier
from tests.checkpoints_vision import make_image_classifier
from tests.faults.proxy import s3_proxy
from tests.integration.harness import House, read_output
from tests.servers import s3_client


def run(task: str, model: Path, source: Path, output: Path, settings: Settings, gone: str = "") -> dict[str, Any]:
    """Each file's row, by its name. The file `gone` is deleted once the job is planned."""
    spec = {"task": task, "model": str(model), "input": {"uri": f"{source}/"}, "output": {"uri": str(output)}}
    house = House(settings)
    job = house.submit(parse_spec(spec))
    shards = house.plan(job)
    if gone:
        (source / gone).unlink()
    for shard in range(shards):
        house.attempt(job, shard, id=f"a{shard}")
    assert house.finish(job).status is JobStatus.SUCCEEDED
    return {Path(row["source_uri"]).name: row for row in read_output(str(output))}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def beside_bad(
    task: str, model: Path, good: dict[str, bytes], bad: dict[str, tuple[bytes, str]], settings: Settings, folder: Path
) -> list[tuple[Any, Any]]:
    """The prediction of each good file beside bad ones, and alone. The bad ones must have their codes."""
    alone = run(task, model, write(folder / "good", good), folder / "out-good", settings)
    mixed = write(folder / "mixed", good | {name: data for name, (data, _) in bad.items()})
    (gone,) = [name for name, (_, code) in bad.items() if code == "input_changed"]
    rows = run(task, model, mixed, folder / "out", settings, gone)
    codes = {name: row["error"] and row["error"]["code"] for name, row in rows.items()}
    assert codes == dict.fromkeys(good) | {name: code for name, (_, code) in bad.items()}
    assert all(rows[name]["prediction"] is None for name in bad)
    return [(rows[name]["prediction"], alone[name]["prediction"]) for name in good]


def test_bad_pictures(settings: Settings, tmp_path: Path) -> None:
    good = {
        f"{n}-good.{format.lower()}": pictures.encoded(pictures.picture(40 + n, 50, seed=n), format)
        for format in ("JPEG", "PNG")
        for n in range(5)
    }
    jpeg = pictures.encoded(pictures.picture(300, 200), "JPEG")
    bad = {
        "0-truncated.jpg": (jpeg[: len(jpeg) // 2], "unreadable_image"),
        "1-bomb.png": (pictures.png_said_to_be(60_000, 60_000), "image_too_large"),
        "2-bomb.gif": (pictures.gif_said_to_be(65_000, 65_000), "image_too_large"),
        "3-text.png": (b"this is no picture", "unreadable_image"),
        "4-empty.png": (b"", "no_image"),
        "5-gone.png": (jpeg, "input_changed"),
    }
    model = make_image_classifier(tmp_path / "model")
    for found, alone in beside_bad("image-classification", model, good, bad, settings, tmp_path):
        assert found == alone


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_bad_sounds(norm: str, settings: Settings, tmp_path: Path) -> None:
    clips = media.sounds(6)
    good = {f"{n}-good.wav": media.encoded(clip, 16_000) for n, clip in enumerate(clips)}
    good["6-silence.flac"] = media.encoded(np.zeros(8000, np.float32), 16_000, "flac")
    whole = good["0-good.wav"]
    bad = {
        "0-zero-length.wav": (media.encoded(np.zeros(0, np.float32), 16_000), "no_audio"),
        "1-one-sample.wav": (media.encoded(np.full(1, 0.1, np.float32), 16_000), "audio_too_short"),
        "2-text.wav": (b"this is no sound", "unreadable_audio"),
        "3-empty.wav": (b"", "no_audio"),
        "4-header.wav": (whole[:20], "unreadable_audio"),
        "5-gone.wav": (whole, "input_changed"),
    }
    model = make_sound_classifier(tmp_path / "model", norm)
    for found, alone in beside_bad("audio-classification", model, good, bad, settings, tmp_path):
        assert found["label"] == alone["label"]
        assert found["score"] == pytest.approx(alone["score"], abs=1e-4)


@pytest.mark.parametrize("times", [10, 10**6], ids=["for a while", "for ever"])
def test_pictures_that_are_refused(
    times: int, s3: str, s3_endpoint: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Access that is refused and granted again costs tries and no row; what stays denied ends as error rows."""
    for n in range(6):
        body = pictures.encoded(pictures.picture(40, 50, seed=n), "PNG")
        s3_client(s3_endpoint).put_object(Bucket=s3.removeprefix("s3://"), Key=f"in/{n}.png", Body=body)
    model = make_image_classifier(tmp_path / "model")
    spec = {"task": "image-classification", "model": str(model), "input": {"uri": f"{s3}/in/"}}
    with s3_proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        house = House(settings.model_copy(update={"max_transient": 3}))
        job = house.submit(parse_spec(spec | {"output": {"uri": str(tmp_path / "out")}}))
        assert house.plan(job) == 1
        proxy.fail("403", "*", r"in/\d", times)
        outcomes = [house.attempt(job, 0).how]
        while outcomes[-1] == "put_back":
            house.end_delays()
            outcomes.append(house.attempt(job, 0, f"a{len(outcomes)}").how)
    manifest = house.finish(job)
    assert manifest.status is JobStatus.SUCCEEDED
    if times == 10:
        assert (outcomes, manifest.error_rows) == (["put_back", "committed"], 0)
    else:
        assert (outcomes, manifest.errors) == (["put_back", "put_back", "committed"], {"access_denied": 6})
