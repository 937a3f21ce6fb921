"""Models as a producer judges them: pinned by content, fit for the task, whole."""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from jobs.settings import Settings
from jobs.storage import Storage
from jobs.submission.validate import validate
from schemas.errors import Permanent, SpecError
from schemas.job import AcceptedJob
from schemas.manifest import JobStatus
from tests.checkpoints import make_classifier
from tests.integration.harness import House, read_output, spec_for, write_reviews
from tests.servers import s3_client
from tests.texts import sentences
from workers.handler import Loaded
from workers.models.cache import ModelCache
from workers.models.device import pick_device
from workers.models.download import local_folder
from workers.models.load import load_model
from workers.models.trust import loaded_size
from workers.tasks.text_classification import TextClassification


def retrain(folder: Path) -> None:
    """Other weights under the same names, shapes and sizes."""
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    weights["classifier.bias"] = weights["classifier.bias"] + torch.tensor([0.0, 50.0, 0.0])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def own(classifier: Path, tmp_path: Path) -> Path:
    """A copy of the classifier that a test may change."""
    shutil.copytree(classifier, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_reviews(tmp_path / "in.parquet", sentences(30))


def test_a_model_is_pinned_by_its_content(own: Path, texts: Path, tmp_path: Path, settings: Settings) -> None:
    house = House(settings)
    before = house.run(spec_for(own, str(texts), f"{tmp_path}/one"))
    waiting = house.submit(spec_for(own, str(texts), f"{tmp_path}/two"))
    retrain(own)
    after = house.run(spec_for(own, str(texts), f"{tmp_path}/three"))
    assert before.model.revision != after.model.revision
    assert {row["prediction"]["label"] for row in read_output(f"{tmp_path}/three")} == {"NEUTRAL"}
    assert {row["prediction"]["label"] for row in read_output(f"{tmp_path}/one")} != {"NEUTRAL"}
    fresh = House(settings)
    fresh.plan(waiting)
    fresh.attempt(waiting, 0)
    manifest = fresh.finish(waiting)
    assert manifest.status is JobStatus.FAILED
    assert manifest.error is not None
    assert "was changed after the job was accepted" in manifest.error.message


def test_two_models_of_one_shape_in_s3(
    own: Path, texts: Path, tmp_path: Path, settings: Settings, s3: str, s3_endpoint: str
) -> None:
    client, bucket = s3_client(s3_endpoint), s3.removeprefix("s3://")
    for version in ("v1", "v2"):
        for path in own.iterdir():
            client.upload_file(str(path), bucket, f"{version}/{path.name}")
        retrain(own)
    house = House(settings)
    for version in ("v1", "v2"):
        spec = spec_for(own, str(texts), f"{tmp_path}/{version}").model_copy(update={"model": f"{s3}/{version}"})
        assert house.run(spec).status is JobStatus.SUCCEEDED
    assert {row["prediction"]["label"] for row in read_output(f"{tmp_path}/v2")} == {"NEUTRAL"}
    assert {row["prediction"]["label"] for row in read_output(f"{tmp_path}/v1")} != {"NEUTRAL"}


def test_a_model_without_a_tokenizer_is_refused(own: Path, texts: Path, tmp_path: Path, settings: Settings) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (own / name).unlink()
    with pytest.raises(SpecError, match="has no tokenizer"):
        validate(spec_for(own, str(texts), f"{tmp_path}/out"), Storage(), settings)


def test_a_tokenizer_without_a_vocabulary_fails_the_job(
    own: Path, texts: Path, tmp_path: Path, settings: Settings
) -> None:
    (own / "tokenizer.json").unlink()
    config = json.loads((own / "tokenizer_config.json").read_text()) | {"tokenizer_class": "BertTokenizer"}
    (own / "tokenizer_config.json").write_text(json.dumps(config))
    manifest = House(settings).run(spec_for(own, str(texts), f"{tmp_path}/out"))
    assert manifest.status is JobStatus.FAILED
    assert manifest.error is not None
    assert "vocabulary" in manifest.error.message or "tokenizer doesn't load" in manifest.error.message


def test_numbers_that_are_none_are_errors(own: Path, texts: Path, tmp_path: Path, settings: Settings) -> None:
    weights = {name: tensor * float("nan") for name, tensor in load_file(own / "model.safetensors").items()}
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    manifest = House(settings).run(spec_for(own, str(texts), f"{tmp_path}/out"))
    assert manifest.status is JobStatus.FAILED
    assert manifest.error is not None
    assert manifest.error.code == "not_finite"


def test_a_head_of_another_size_is_named(own: Path) -> None:
    config = json.loads((own / "config.json").read_text())
    config["id2label"] = {str(i): f"L{i}" for i in range(5)}
    config["label2id"] = {f"L{i}": i for i in range(5)}
    (own / "config.json").write_text(json.dumps(config))
    with pytest.raises(Permanent, match=r"classifier\.weight"):
        TextClassification.load(own, pick_device(), torch.float32)


def test_code_of_a_models_own_is_never_run(own: Path) -> None:
    config = json.loads((own / "config.json").read_text()) | {
        "model_type": "homemade",
        "auto_map": {"AutoModelForSequenceClassification": "evil.Evil", "AutoConfig": "evil.EvilConfig"},
    }
    (own / "config.json").write_text(json.dumps(config))
    (own / "evil.py").write_text("raise SystemExit('this was run')")
    with pytest.raises(Permanent, match="code of its own, which is never run"):
        load_model(AutoModelForSequenceClassification, own, pick_device(), torch.float32)


def test_models_that_grow_too_large_in_all_are_let_go(
    texts: Path, tmp_path: Path, settings: Settings, classifier: Path
) -> None:
    other = make_classifier(tmp_path / "other", "distilbert")
    house = House(settings.model_copy(update={"model_memory_gb": 1e-6}))
    jobs = [house.submit(spec_for(m, str(texts), f"{tmp_path}/out-{m.name}")) for m in (classifier, other)]
    cache: ModelCache = house.process.models
    for job in (*jobs, jobs[0]):
        cache.get(job, TextClassification)
        assert len(cache._held) == 1


class Crowded:
    """Stands for a device with room for so many models: a loader that runs out of memory when there are more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: ModelCache, room: int) -> None:
        self.held: list[int] = []
        self._load = TextClassification.load
        self._cache = cache
        self._room = room
        monkeypatch.setattr(TextClassification, "load", self.load)

    def load(self, *args: Any) -> Loaded:
        self.held.append(len(self._cache._held))
        if len(self._cache._held) >= self._room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._load(*args)


@pytest.fixture
def three(house: House, texts: Path, tmp_path: Path) -> list[AcceptedJob]:
    """Jobs with a model each, of about the same size."""
    models = [make_classifier(tmp_path / f"model-{n}", "distilbert") for n in range(3)]
    return [house.submit(spec_for(m, str(texts), f"{tmp_path}/out-{m.name}")) for m in models]


def models_of(jobs: list[AcceptedJob]) -> list[str]:
    return [job.model.source for job in jobs]


def held_by(cache: ModelCache) -> list[str]:
    return [source for source, *_ in cache._held]


def test_room_is_made_before_a_model_is_loaded(
    house: House, three: list[AcceptedJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two used last stay, if there is room for two."""
    size = house.process.models.get(three[0], TextClassification).size
    settings = house.settings.model_copy(update={"model_memory_gb": 2.5 * size / (1 << 30)})
    cache = ModelCache(settings, house.storage)
    seen = Crowded(monkeypatch, cache, room=2)
    for job in (three[0], three[1], three[0], three[2]):
        cache.get(job, TextClassification)
    assert seen.held == [0, 1, 1]
    assert held_by(cache) == models_of([three[0], three[2]])


def test_models_go_until_the_device_has_room(
    house: House, three: list[AcceptedJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, whatever `model_memory_gb` says."""
    cache = house.process.models
    size = cache.get(three[0], TextClassification).size
    monkeypatch.setattr(
        "workers.models.cache.available_memory", lambda device: 2.5 * size - sum(h.size for h in cache._held.values())
    )
    seen = Crowded(monkeypatch, cache, room=2)
    for job in three[1:]:
        cache.get(job, TextClassification)
    assert seen.held == [1, 1]
    assert held_by(cache) == models_of(three[1:])


def test_a_model_that_runs_out_of_memory_is_loaded_without_the_others(
    house: House, three: list[AcceptedJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = house.process.models
    seen = Crowded(monkeypatch, cache, room=1)
    for job in three:
        cache.get(job, TextClassification)
    assert seen.held == [0, 1, 0, 1, 0]
    assert held_by(cache) == models_of(three[2:])


def test_a_model_that_fits_nowhere_says_so(
    house: House, three: list[AcceptedJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = house.process.models
    cache.get(three[0], TextClassification)
    seen = Crowded(monkeypatch, cache, room=0)
    with pytest.raises(torch.OutOfMemoryError):
        cache.get(three[1], TextClassification)
    assert seen.held == [1, 0]


def test_no_error_holds_what_was_loaded_when_it_is_tried_again(
    house: House, three: list[AcceptedJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ran out of memory is gone, and so are the other models, before the second try."""
    cache = house.process.models
    alive = [weakref.ref(cache.get(three[0], TextClassification).loaded.model)]
    load = TextClassification.load

    def halfway(*args: Any) -> Loaded:
        loaded = load(*args)
        if len(alive) == 1:
            alive.append(weakref.ref(loaded.model))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert [ref() for ref in alive] == [None, None]
        return loaded

    monkeypatch.setattr(TextClassification, "load", halfway)
    cache.get(three[1], TextClassification)
    assert held_by(cache) == models_of(three[1:2])


def test_memory_that_runs_out_is_no_fault_of_the_model(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", full)
    with pytest.raises(torch.OutOfMemoryError):
        load_model(AutoModelForSequenceClassification, own, pick_device(), torch.float32)


@pytest.mark.parametrize(
    ("stored", "dtype", "size"),
    [
        (torch.float32, torch.float32, 4),
        (torch.float32, torch.bfloat16, 2),
        (torch.bfloat16, torch.float32, 4),
        (torch.float8_e4m3fn, torch.float16, 2),
        (torch.int8, torch.float32, 1),
        (torch.int64, torch.bfloat16, 8),
        (torch.bool, torch.float32, 1),
    ],
    ids=str,
)
def test_the_size_of_a_model_once_it_is_loaded(
    stored: torch.dtype, dtype: torch.dtype, size: int, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        save_file(
            {"w": torch.zeros(3, 5).to(stored), "s": torch.zeros(()).to(stored)}, tmp_path / f"{name}.safetensors"
        )
    assert loaded_size(tmp_path, dtype) == 2 * 16 * size


def test_a_fetch_that_was_cut_off_is_begun_again(
    own: Path, texts: Path, tmp_path: Path, settings: Settings, s3: str, s3_endpoint: str
) -> None:
    client, bucket = s3_client(s3_endpoint), s3.removeprefix("s3://")
    for path in own.iterdir():
        client.upload_file(str(path), bucket, f"m/{path.name}")
    spec = spec_for(own, str(texts), f"{tmp_path}/out").model_copy(update={"model": f"{s3}/m/"})
    model = validate(spec, Storage(), settings).model
    aside = settings.home / "models" / f"{model.revision}.part"
    aside.mkdir(parents=True)
    (aside / "model.safetensors").write_bytes(b"half")
    folder = local_folder(model, Storage(), settings.home)
    assert (folder / "model.safetensors").read_bytes() == (own / "model.safetensors").read_bytes()
    assert not aside.exists()
