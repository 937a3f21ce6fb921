"""object-detection against a plain loop of one picture at a time, and against the Transformers pipeline, on DETR."""

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection, pipeline

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, run_case
from schemas.errors import Permanent, RecordError
from schemas.tasks.object_detection import TASK
from tests.checkpoints_detection import LABELS, make_detector, make_semantic
from tests.pictures import encoded, picture, sample
from tests.tasks.handlers import load, loaded_handler, predictions, problems

SCHEMA = "1:a130efb67b27"
#: Landscape, portrait, square, and as narrow as a banner; some shapes come back, so that batches have several.
SIZES = [(60, 40), (40, 60), (64, 64), (60, 40), (70, 33), (80, 9), (60, 40)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_detector(tmp_path_factory.mktemp("detr"))


@cache
def plain(model: Path) -> tuple[Any, Any]:
    processor: Any = AutoImageProcessor
    return processor.from_pretrained(model), AutoModelForObjectDetection.from_pretrained(model).eval()


@cache
def reference(model: Path, data: bytes, threshold: float = 0.5) -> dict[str, Any]:
    """One picture by hand, in the shape of our prediction."""
    processor, network = plain(model)
    image = Image.open(BytesIO(data)).convert("RGB")
    with torch.inference_mode():
        outputs = network(**processor(images=[image], return_tensors="pt"))
    sizes = torch.IntTensor([[image.height, image.width]])
    (found,) = processor.post_process_object_detection(outputs, threshold, sizes)
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    objects = [
        {"label": LABELS[label], "score": score, "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))}
        for label, score, box in rows
    ]
    return {"objects": objects, "width": image.width, "height": image.height}


@pytest.fixture
def case(model: Path) -> Case:
    records = [{"image": data} for data in sample(40, SIZES)]
    return Case(TASK, model, records, {}, lambda record: reference(model, record["image"]), SCHEMA)


def test_the_cases_differ(case: Case) -> None:
    answers = [case.reference(record)["objects"] for record in case.records]
    assert len({str(answer) for answer in answers}) > len(answers) // 2
    assert len({found["label"] for answer in answers for found in answer}) > 3
    assert [] in answers


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 1.0])
def test_as_the_pipeline_but_for_fractions_of_a_pixel(threshold: float, model: Path) -> None:
    run: Any = pipeline("object-detection", model=str(model), device="cpu")
    images = sample(12, SIZES)
    for data, found in zip(
        images, predictions(loaded_handler(TASK, model, threshold=threshold), image=images), strict=True
    ):
        expected = run(Image.open(BytesIO(data)), threshold=threshold)
        whole = [
            {"label": o["label"], "box": {edge: int(value) for edge, value in o["box"].items()}}
            for o in found["objects"]
        ]
        assert whole == [{"label": o["label"], "box": o["box"]} for o in expected]
        assert [o["score"] for o in found["objects"]] == pytest.approx([o["score"] for o in expected], abs=1e-4)


def test_no_object_never_appears(model: Path) -> None:
    """At threshold 0 every query is an object, by its best label that is one."""
    found = predictions(loaded_handler(TASK, model, threshold=0.0), image=sample(12, SIZES))
    assert all(len(prediction["objects"]) == 12 for prediction in found)
    assert {o["label"] for prediction in found for o in prediction["objects"]} <= set(LABELS)


def test_padding_would_change_the_answer(model: Path) -> None:
    """Why only pictures of equal shapes are batched: with the mask for padding the model still answers otherwise."""
    processor, network = plain(model)
    images = [picture(60, 40, seed=1), picture(40, 60, seed=2)]
    with torch.inference_mode():
        padded = network(**processor(images=images, return_tensors="pt"))
        alone = network(**processor(images=images[:1], return_tensors="pt"))
    assert (padded.pred_boxes[0] - alone.pred_boxes[0]).abs().max() > 1e-3


def test_pixels_of_padding_in_the_processors_configuration(tmp_path: Path) -> None:
    """A processor that pads every picture to one size does so here, with its mask."""
    model = make_detector(tmp_path, pad_size={"height": 160, "width": 160})
    images = sample(6, [(60, 40), (40, 60)])
    for data, found in zip(images, predictions(loaded_handler(TASK, model), image=images), strict=True):
        assert close_objects(found, model, data)


def test_tiny_and_narrow_pictures(model: Path) -> None:
    images = [encoded(picture(*size)) for size in [(1, 1), (2, 1), (1, 40), (300, 9)]]
    for data, found in zip(images, predictions(loaded_handler(TASK, model, threshold=0.0), image=images), strict=True):
        assert close_objects(found, model, data, threshold=0.0)


def close_objects(found: dict[str, Any], model: Path, data: bytes, threshold: float = 0.5) -> bool:
    """Whether labels are equal, scores within 1e-4 and edges within 0.01 pixel."""
    expected = reference(model, data, threshold)
    if [o["label"] for o in found["objects"]] != [o["label"] for o in expected["objects"]]:
        return False
    return (found["width"], found["height"]) == (expected["width"], expected["height"]) and all(
        abs(ours["score"] - theirs["score"]) <= 1e-4
        and all(abs(ours["box"][edge] - theirs["box"][edge]) <= 0.01 for edge in theirs["box"])
        for ours, theirs in zip(found["objects"], expected["objects"], strict=True)
    )


def test_a_picture_too_narrow_for_the_processor_is_its_own_error(model: Path) -> None:
    """Made smaller it would have no pixel left across."""
    with pytest.raises(RecordError) as error:
        predictions(loaded_handler(TASK, model), image=[encoded(picture(1, 1000))])
    assert error.value.code == "image_unfit"


def test_error_rows_and_empty_lists(model: Path, settings: Settings, tmp_path: Path) -> None:
    records = [{"image": data} for data in (encoded(picture()), b"", b"no picture", encoded(picture())[:60])]
    case = Case(TASK, model, records, {"threshold": 1.0}, lambda record: record, SCHEMA)
    rows = run_case(case, settings, tmp_path, records)
    assert rows[0]["prediction"] == {"objects": [], "width": 40, "height": 30}
    assert [row["error"]["code"] for row in rows[1:]] == ["no_image", "unreadable_image", "unreadable_image"]


def test_boxes_are_of_the_picture_as_it_is_seen(model: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    (found,) = predictions(loaded_handler(TASK, model), image=[encoded(picture(60, 40), "PNG", exif=exif)])
    assert (found["width"], found["height"]) == (40, 60)


def test_a_number_that_is_none_is_an_error(model: Path) -> None:
    handler = loaded_handler(TASK, model)
    with torch.no_grad():
        handler.loaded.model.class_labels_classifier.bias[0] = float("nan")
    with pytest.raises(RecordError) as error:
        predictions(handler, image=[encoded(picture())])
    assert error.value.code == "not_finite"


def test_a_processor_of_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Permanent) as error:
        load(TASK, make_semantic(tmp_path))
    assert error.value.code == "model"


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"threshold": -0.1}, "params.threshold"),
        ({"threshold": 1.5}, "params.threshold"),
        ({"threshold": "high"}, "params.threshold"),
        ({"top_k": 3}, "params.top_k"),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str) -> None:
    assert field in problems(TASK, params)
