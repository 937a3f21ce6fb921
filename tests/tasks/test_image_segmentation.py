"""image-segmentation against the Transformers pipeline, on Mask2Former with Swin and on SegFormer: equal masks."""

import logging
import textwrap
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from transformers import MaskFormerImageProcessorPil, pipeline

import schemas.tasks.image_segmentation as schema
from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close, run_case
from schemas.errors import Permanent, RecordError
from schemas.tasks.image_segmentation import TASK
from tests.checkpoints_detection import LABELS, make_detector, make_segmenter, make_semantic
from tests.pictures import encoded, picture, sample
from tests.tasks.handlers import load, loaded_handler, predictions, problems

#: What pycocotools 2.0.11 says of its own code under numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SCHEMA = "1:253d8fb393db"
#: Some shapes come back, so that batches have several of one; the flat picture of one pixel is the hardest to repeat.
SIZES = [(60, 40), (40, 60), (64, 64), (60, 40), (70, 33), (80, 9), (1, 1), (150, 100)]
JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "panoptic": ("mask2former", {"threshold": 0.3, "mask_threshold": 0.2, "overlap_mask_area_threshold": 0.5}),
    "instance": ("mask2former", {"subtask": "instance", "threshold": 0.3}),
    "semantic": ("mask2former", {"subtask": "semantic"}),
    "segformer": ("segformer", {}),
}
#: The pipeline's own defaults differ from the catalogue's in one.
DEFAULTS = {"threshold": 0.9, "mask_threshold": 0.5, "overlap_mask_area_threshold": 0.8}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "mask2former": make_segmenter(tmp_path_factory.mktemp("mask2former")),
        "segformer": make_semantic(tmp_path_factory.mktemp("segformer")),
    }


@cache
def plain(model: Path) -> Any:
    logging.getLogger("transformers").setLevel(logging.ERROR)  # the pipeline warns of each panoptic picture
    return pipeline("image-segmentation", model=str(model), device="cpu")


def reference(model: Path, data: bytes, **params: Any) -> dict[str, Any]:
    """What the pipeline gives for one picture, in the shape of our prediction; remembered."""
    return _reference(model, data, tuple((DEFAULTS | params).items()))


@cache
def _reference(model: Path, data: bytes, params: tuple[Any, ...]) -> dict[str, Any]:
    image = Image.open(BytesIO(data)).convert("RGB")
    segments = [segment_of(found) for found in plain(model)(image, **dict(params))]
    return {"segments": segments, "width": image.width, "height": image.height}


def segment_of(found: dict[str, Any]) -> dict[str, Any]:
    pixels = np.asarray(found["mask"]) > 0
    rle: Any = coco.encode(np.asfortranarray(pixels.astype(np.uint8)))
    rows, columns = np.nonzero(pixels)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else (0, 0, 0, 0)
    return {
        "label": found["label"],
        "score": found["score"],
        "area_px": int(pixels.sum()),
        "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, edges), strict=True)),
        "mask": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
    }


@pytest.fixture(params=list(JOBS))
def case(request: pytest.FixtureRequest, models: dict[str, Path]) -> Case:
    name, params = JOBS[request.param]
    records = [{"image": data} for data in sample(24, SIZES)]
    return Case(
        TASK, models[name], records, params, lambda record: reference(models[name], record["image"], **params), SCHEMA
    )


def test_the_cases_differ(case: Case) -> None:
    answers = [case.reference(record)["segments"] for record in case.records]
    assert len({str(answer) for answer in answers}) > len(answers) * 3 // 4
    assert len({segment["label"] for answer in answers for segment in answer}) > 3
    assert any(len(answer) > 1 for answer in answers)


@pytest.mark.parametrize(("threshold", "mask_threshold"), [(0.0, 0.0), (0.0, 0.4), (0.4, 0.8), (0.6, 0.4)])
@pytest.mark.parametrize("subtask", ["panoptic", "instance"])
def test_each_threshold(subtask: str, threshold: float, mask_threshold: float, models: dict[str, Path]) -> None:
    images = sample(8, SIZES)
    for overlap in (0.0, 0.5, 1.0) if subtask == "panoptic" else (0.5,):
        params = {
            "subtask": subtask,
            "threshold": threshold,
            "mask_threshold": mask_threshold,
            "overlap_mask_area_threshold": overlap,
        }
        for data, found in zip(
            images, predictions(loaded_handler(TASK, models["mask2former"], **params), image=images), strict=True
        ):
            assert close(found, reference(models["mask2former"], data, **params))


def test_masks_as_a_maskformers_processor_makes_them(tmp_path: Path) -> None:
    """Some Mask2Former checkpoints come with that processor, which leaves out a step."""
    model = make_segmenter(tmp_path)
    size = {"shortest_edge": 64, "longest_edge": 128}
    MaskFormerImageProcessorPil(size=size).save_pretrained(model)
    images = sample(8, SIZES)
    for subtask in ("panoptic", "instance", "semantic"):
        params = {"subtask": subtask, "threshold": 0.3}
        for data, found in zip(images, predictions(loaded_handler(TASK, model, **params), image=images), strict=True):
            assert close(found, reference(model, data, **params))


def test_no_segment_is_an_empty_list(models: dict[str, Path]) -> None:
    for subtask in ("panoptic", "instance"):
        (found,) = predictions(
            loaded_handler(TASK, models["mask2former"], subtask=subtask, threshold=1.0), image=[encoded(picture())]
        )
        assert found == {"segments": [], "width": 40, "height": 30}


def test_an_instance_that_others_cover_has_an_empty_mask(models: dict[str, Path]) -> None:
    params = {"subtask": "instance", "threshold": 0.0}
    (found,) = predictions(loaded_handler(TASK, models["mask2former"], **params), image=[encoded(picture(1, 1))])
    assert close(found, reference(models["mask2former"], encoded(picture(1, 1)), **params))
    *covered, last = found["segments"]
    assert covered
    assert {segment["area_px"] for segment in covered} == {0}
    assert last["box"] == {"xmin": 0.0, "ymin": 0.0, "xmax": 1.0, "ymax": 1.0}


def test_every_pixel_has_one_class(models: dict[str, Path]) -> None:
    for data, found in zip(
        sample(8, SIZES), predictions(loaded_handler(TASK, models["segformer"]), image=sample(8, SIZES)), strict=True
    ):
        image = Image.open(BytesIO(data))
        total = sum(coco.decode(segment["mask"]).astype(int) for segment in found["segments"])
        assert np.array_equal(total, np.ones((image.height, image.width)))
        labels = [segment["label"] for segment in found["segments"]]
        assert labels == sorted(labels, key=LABELS.index)
        assert {segment["score"] for segment in found["segments"]} == {None}


def test_the_docs_lines_decode_a_mask_of_the_output(
    models: dict[str, Path], settings: Settings, tmp_path: Path
) -> None:
    records = [{"image": encoded(picture(50, 30))}]
    case = Case(TASK, models["segformer"], records, {}, lambda record: record, SCHEMA)
    (row,) = run_case(case, settings, tmp_path, records)
    code = [line for line in (schema.__doc__ or "").splitlines() if line.startswith("    ")]
    assert len(code) == 3
    names: dict[str, Any] = {"prediction": row["prediction"]}
    exec(textwrap.dedent("\n".join(code)), names)
    assert (names["pixels"].shape, names["pixels"].dtype) == ((30, 50), np.uint8)
    box = {edge: int(value) for edge, value in names["segment"]["box"].items()}
    inside = names["pixels"][box["ymin"] : box["ymax"], box["xmin"] : box["xmax"]]
    assert inside.sum() == names["pixels"].sum() == names["segment"]["area_px"] > 0


def test_error_rows(models: dict[str, Path], settings: Settings, tmp_path: Path) -> None:
    records = [{"image": data} for data in (encoded(picture()), b"", b"no picture", encoded(picture())[:60])]
    case = Case(TASK, models["segformer"], records, {}, lambda record: record, SCHEMA)
    rows = run_case(case, settings, tmp_path, records)
    assert rows[0]["error"] is None
    assert [row["error"]["code"] for row in rows[1:]] == ["no_image", "unreadable_image", "unreadable_image"]


def test_a_number_that_is_none_is_an_error(models: dict[str, Path]) -> None:
    handler = loaded_handler(TASK, models["mask2former"])
    with torch.no_grad():
        handler.loaded.model.class_predictor.bias[0] = float("nan")
    with pytest.raises(RecordError) as error:
        predictions(handler, image=[encoded(picture())])
    assert error.value.code == "not_finite"


@pytest.mark.parametrize("subtask", ["panoptic", "instance"])
def test_a_subtask_that_the_model_cannot_do(subtask: str, models: dict[str, Path]) -> None:
    with pytest.raises(Permanent) as error:
        loaded_handler(TASK, models["segformer"], subtask=subtask)
    assert error.value.code == "bad_params"
    assert "params.subtask" in error.value.message
    assert error.value.message.endswith("it can do semantic")


def test_a_model_of_another_task_is_refused(tmp_path: Path, models: dict[str, Path]) -> None:
    detector = make_detector(tmp_path / "detector")
    mixed = make_semantic(tmp_path / "mixed")
    (mixed / "preprocessor_config.json").write_text((models["mask2former"] / "preprocessor_config.json").read_text())
    for folder in (detector, mixed):
        with pytest.raises(Permanent) as error:
            load(TASK, folder)
        assert error.value.code == "model"


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"subtask": "everything"}, "params.subtask"),
        ({"threshold": -0.1}, "params.threshold"),
        ({"threshold": "high"}, "params.threshold"),
        ({"mask_threshold": 1.5}, "params.mask_threshold"),
        ({"overlap_mask_area_threshold": True}, "params.overlap_mask_area_threshold"),
        ({"top_k": 3}, "params.top_k"),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str) -> None:
    assert field in problems(TASK, params)
