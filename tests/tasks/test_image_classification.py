"""image-classification against the Transformers pipeline, on ViT and on ConvNeXT, which crops or warps by its size."""

import subprocess
import sys
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close, run_case
from schemas.errors import Permanent
from schemas.tasks.image_classification import TASK
from tests.checkpoints_vision import SPECIES, image_processor, make_image_classifier, make_image_encoder
from tests.pictures import WRITTEN, encoded, in_mode, oriented, picture, png_said_to_be, png_with_text_bomb, sample
from tests.tasks.handlers import loaded_handler, problems, reference_pipeline

SCHEMA = "1:38f293b29ee7"
SIZES = [(40, 30), (30, 40), (32, 32), (100, 9), (5, 70), (1, 1), (300, 200)]


@cache
def reference(model: Path, data: bytes, top_k: int = 5, **options: Any) -> dict[str, Any]:
    """What the pipeline gives for one picture, in the shape of our prediction; remembered."""
    top = reference_pipeline(TASK, model)(Image.open(BytesIO(data)), top_k=top_k, **options)
    image = Image.open(BytesIO(data))
    turned = image.getexif().get(274, 1) >= 5
    width, height = image.size[::-1] if turned else image.size
    return {"label": top[0]["label"], "score": top[0]["score"], "top": top, "width": width, "height": height}


def every_format() -> list[bytes]:
    """All that a file can be but 16-bit grey, which the pipeline would clip to white."""
    written = [
        encoded(in_mode(picture(44, 33, seed), mode), format)
        for seed, (format, modes) in enumerate(WRITTEN.items())
        for mode in modes
        if mode != "I;16"
    ]
    return [*written, *(oriented(picture(50, 20, 9), turn) for turn in range(1, 9))]


def case_of(model: Path, pictures: list[bytes], **params: Any) -> Case:
    records = [{"image": data} for data in pictures]
    return Case(TASK, model, records, params, lambda r: reference(model, r["image"], **params), SCHEMA)


@pytest.fixture(scope="module", params=["vit", "convnext", "convnext-384"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image_classifier(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image_classifier(tmp_path_factory.mktemp("vit"))


@pytest.fixture
def case(model: Path) -> Case:
    return case_of(model, [*sample(30, SIZES), *sample(20, SIZES, "JPEG")], top_k=3)


def test_the_answers_differ(model: Path) -> None:
    """What else is compared here would say little."""
    answers = [reference(model, data) for data in sample(30, SIZES)]
    assert len({answer["label"] for answer in answers}) >= 3
    assert len({round(answer["score"], 3) for answer in answers}) >= 15


def test_every_format_and_mode(vit: Path, settings: Settings, tmp_path: Path) -> None:
    case = case_of(vit, every_format())
    for record, row in zip(case.records, run_case(case, settings, tmp_path, case.records), strict=True):
        assert row["error"] is None
        assert close(row["prediction"], case.reference(record))


def test_bad_pictures_beside_good_ones(vit: Path, settings: Settings, tmp_path: Path) -> None:
    good = sample(8, SIZES)
    jpeg = encoded(picture(), "JPEG")
    bad = {
        b"": "no_image",
        b"a text named .png": "unreadable_image",
        jpeg[: len(jpeg) // 2]: "unreadable_image",
        png_with_text_bomb(): "unreadable_image",
        png_said_to_be(30_000, 30_000): "image_too_large",
        encoded(picture(), "PPM"): "unreadable_image",
    }
    mixed = [data for pair in zip(good, bad, strict=False) for data in pair]
    case = case_of(vit, [*mixed, *good[len(bad) :]])
    for record, row in zip(case.records, run_case(case, settings, tmp_path, case.records), strict=True):
        if record["image"] in bad:
            assert (row["prediction"], row["error"]["code"]) == (None, bad[record["image"]])
        else:
            assert close(row["prediction"], case.reference(record))


def test_a_long_and_narrow_picture_is_not_enlarged_beyond_bounds(settings: Settings, tmp_path: Path) -> None:
    """ConvNeXT makes the shorter side fit before it crops: of one pixel by 100,000 that would be 130 million."""
    model = make_image_classifier(tmp_path / "model", "convnext")
    narrow = encoded(Image.new("RGB", (1, 100_000)))
    case = case_of(model, [narrow, encoded(picture(3, 300))])
    first, second = run_case(case, settings, tmp_path, case.records)
    assert first["error"]["code"] == "image_too_large"
    assert "3600000 x 36" in first["error"]["message"]
    assert close(second["prediction"], case.reference(case.records[1]))


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_each_function(function: str, vit: Path, settings: Settings, tmp_path: Path) -> None:
    case = case_of(vit, sample(12, SIZES), top_k=2, function_to_apply=function)
    for record, row in zip(case.records, run_case(case, settings, tmp_path, case.records), strict=True):
        assert close(row["prediction"], case.reference(record))


@pytest.mark.parametrize(
    "config",
    [
        {"problem_type": "multi_label_classification"},
        {"problem_type": "regression"},
        {"problem_type": "regression", "id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}},
        {"id2label": {0: "SCORE"}, "label2id": {"SCORE": 0}},
    ],
    ids=["multi-label", "regression", "regression of one", "one label"],
)
def test_the_configuration_decides_the_function(config: dict[str, Any], settings: Settings, tmp_path: Path) -> None:
    model = make_image_classifier(tmp_path / "model", **config)
    case = case_of(model, sample(12, SIZES))
    for record, row in zip(case.records, run_case(case, settings, tmp_path, case.records), strict=True):
        assert close(row["prediction"], case.reference(record))


def test_more_labels_than_there_are_are_all_of_them(vit: Path, settings: Settings, tmp_path: Path) -> None:
    case = case_of(vit, sample(2, SIZES), top_k=100)
    for record, row in zip(case.records, run_case(case, settings, tmp_path, case.records), strict=True):
        assert close(row["prediction"], case.reference(record))
        assert len(row["prediction"]["top"]) == len(SPECIES)


def test_without_pillow_a_job_says_what_to_install(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(Permanent, match=r"pip install 'nightshift-inference\[vision\]'") as error:
        loaded_handler(TASK, vit)
    assert error.value.code == "missing_extra"


def test_nothing_is_imported_of_pillow_before_a_job_needs_it() -> None:
    """A worker of other tasks may lack it."""
    names = [
        f"workers.tasks.{name}" for name in ("image_classification", "image_feature_extraction", "depth_estimation")
    ]
    script = f"import sys, importlib\nsys.modules['PIL'] = None\nfor name in {names}: importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_a_checkpoint_without_an_image_processor_is_refused(vit: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((vit / name).read_bytes())
    with pytest.raises(Permanent, match="the image processor doesn't load") as error:
        loaded_handler(TASK, tmp_path)
    assert error.value.code == "model"


def test_a_processor_of_another_size_than_the_model_is_refused(tmp_path: Path) -> None:
    model = make_image_classifier(tmp_path)
    processor = image_processor("vit")
    processor.size = {"height": 48, "width": 48}
    processor.save_pretrained(model)
    with pytest.raises(Permanent, match=r"the model can't run on a picture: .*48") as error:
        loaded_handler(TASK, model)
    assert error.value.code == "model"


def test_an_encoder_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="no ImageClassification model: it lacks classifier"):
        loaded_handler(TASK, make_image_encoder(tmp_path))


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"top_k": 0}, "params.top_k", "greater than or equal to 1"),
        ({"top_k": True}, "params.top_k", "valid integer"),
        ({"function_to_apply": "argmax"}, "params.function_to_apply", "'softmax', 'sigmoid' or 'none'"),
        ({"labels": []}, "params.labels", "unknown key"),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str, says: str) -> None:
    assert says in problems(TASK, params)[field]
