"""depth-estimation against the Transformers pipeline, on GLPN, whose inputs have the picture's shape, and on DPT."""

import inspect
import io
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import PIL.Image
import pytest
import torch

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close, run_case
from schemas.errors import Permanent, RecordError
from schemas.tasks import depth_estimation
from schemas.tasks.depth_estimation import TASK
from tests.checkpoints_vision import image_processor, make_depth_estimator
from tests.pictures import encoded, oriented, picture, sample
from tests.tasks.handlers import loaded_handler, problems, reference_pipeline
from workers.handler import Handler, Piece

SCHEMA = "1:7827389002cc"
SIZES = [(40, 33), (33, 40), (64, 64), (100, 70), (65, 64), (150, 100)]
#: The lines of the schema's page that decode a prediction: for png16, and for float32.
LINES = [line.strip() for line in inspect.cleandoc(depth_estimation.__doc__ or "").splitlines() if line[:4] == "    "]


def decoded(prediction: dict[str, Any]) -> numpy.ndarray:
    """The depth of a prediction, by the very lines that its readers are told."""
    lines = LINES[:2] if prediction["encoding"] == "png16" else LINES[2:]
    names: dict[str, Any] = {"numpy": numpy, "PIL": PIL, "io": io, "p": prediction}
    for line in lines:
        exec(line, names)
    depth: numpy.ndarray = names["depth"]
    return depth


@cache
def true_depth(model: Path, data: bytes) -> numpy.ndarray:
    """The pipeline's for one picture, float32 of shape (height, width)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its picture of a depth that is everywhere the same
        found = reference_pipeline(TASK, model)(PIL.Image.open(io.BytesIO(data)))["predicted_depth"]
    depth: numpy.ndarray = found.numpy()
    return depth


class Encoded:
    """Equal to the bytes of a depth that is within 1e-4 of the true one's range, or for png16 the rounding beside."""

    def __init__(self, depth: numpy.ndarray, encoding: str) -> None:
        self.depth = depth
        self.encoding = encoding

    def __hash__(self) -> int:
        return hash(self.encoding)

    def __eq__(self, other: object) -> bool:
        low, high = float(self.depth.min()), float(self.depth.max())
        height, width = self.depth.shape
        scale = {"min": low, "max": high, "height": height, "width": width}
        found = decoded({"depth": other, "encoding": self.encoding} | scale)
        rounding = 0.5 / 65535 if self.encoding == "png16" else 0.0
        return bool(numpy.abs(found - self.depth).max() <= (1e-4 + rounding) * (high - low))


def reference(model: Path, data: bytes, encoding: str) -> dict[str, Any]:
    depth = true_depth(model, data)
    return {
        "depth": Encoded(depth, encoding),
        "encoding": encoding,
        "min": float(depth.min()),
        "max": float(depth.max()),
        "mean": float(depth.mean(dtype=numpy.float64)),
        "width": depth.shape[1],
        "height": depth.shape[0],
    }


def case_of(model: Path, pictures: list[bytes], encoding: str = "png16") -> Case:
    records = [{"image": data} for data in pictures]
    return Case(TASK, model, records, {"encoding": encoding}, lambda r: reference(model, r["image"], encoding), SCHEMA)


@pytest.fixture(scope="module")
def glpn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_depth_estimator(tmp_path_factory.mktemp("glpn"))


@pytest.fixture(scope="module")
def dpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_depth_estimator(tmp_path_factory.mktemp("dpt"), "dpt")


@pytest.fixture(params=["png16", "float32"])
def case(request: pytest.FixtureRequest, glpn: Path) -> Case:
    pictures = [*sample(18, SIZES), *(oriented(picture(50, 36, 9), turn) for turn in (3, 6, 8))]
    return case_of(glpn, pictures, request.param)


def test_the_answers_differ(glpn: Path) -> None:
    depths = [true_depth(glpn, data) for data in sample(18, SIZES)]
    assert min(depth.std() for depth in depths) > 1.0
    assert len({round(float(depth.mean()), 2) for depth in depths}) == 18


def test_a_model_with_a_shape_of_its_own(dpt: Path, settings: Settings, tmp_path: Path) -> None:
    """Its depth is relative and of any size, so it is compared by its range."""
    case = case_of(dpt, [*sample(12, SIZES), encoded(picture(9, 90))], "float32")
    for record, row in zip(case.records, run_case(case, settings, tmp_path, case.records), strict=True):
        found, expected = row["prediction"], case.reference(record)
        assert expected["depth"] == found["depth"]
        for name in ("min", "max", "mean"):
            assert found[name] == pytest.approx(expected[name], abs=1e-4 * (expected["max"] - expected["min"]))


@pytest.mark.parametrize("encoding", ["png16", "float32"])
def test_a_picture_of_one_pixel_or_one_row(encoding: str, dpt: Path, settings: Settings, tmp_path: Path) -> None:
    """The pipeline fails for one pixel; its depth has no range, and so is `min` everywhere."""
    pictures = [encoded(picture(*size)) for size in ((1, 1), (1, 50), (50, 1))]
    case = case_of(dpt, pictures, encoding)
    for (width, height), row in zip(
        [(1, 1), (1, 50), (50, 1)], run_case(case, settings, tmp_path, case.records), strict=True
    ):
        prediction = row["prediction"]
        assert (prediction["width"], prediction["height"]) == (width, height)
        depth = decoded(prediction)
        assert depth.shape == (height, width)
        assert depth.min() == pytest.approx(prediction["min"], rel=1e-6)
        assert depth.max() == pytest.approx(prediction["max"], rel=1e-6)
        assert depth.mean() == pytest.approx(prediction["mean"], rel=1e-3)


def test_a_picture_too_small_for_the_model_is_an_error(glpn: Path, settings: Settings, tmp_path: Path) -> None:
    """GLPN's processor rounds sides down to multiples of 32, of which nothing may be left."""
    case = case_of(glpn, [encoded(picture(1, 1)), encoded(picture(32, 32)), encoded(picture(31, 400)), b""])
    small, fits, narrow, none = run_case(case, settings, tmp_path, case.records)
    assert close(fits["prediction"], case.reference(case.records[1]))
    assert [row["error"]["code"] for row in (small, narrow, none)] == ["image_unfit", "image_unfit", "no_image"]
    assert "can't take 31 x 400 pixels" in narrow["error"]["message"]


def test_a_picture_too_large_for_a_model_without_a_size(
    glpn: Path, dpt: Path, settings: Settings, tmp_path: Path
) -> None:
    """GLPN sees every pixel, DPT makes any picture as small as it was trained on."""
    for model, codes in ((glpn, [None, "image_too_large"]), (dpt, [None, None])):
        case = case_of(model, [encoded(picture(64, 64)), encoded(picture(65, 64))])
        case.params["max_pixels"] = 4096
        folder = tmp_path / model.name
        folder.mkdir()
        rows = run_case(case, settings, folder, case.records)
        assert [row["error"] and row["error"]["code"] for row in rows] == codes


@pytest.fixture(scope="module")
def handlers(glpn: Path) -> dict[str, Handler[Any]]:
    return {encoding: loaded_handler(TASK, glpn, encoding=encoding) for encoding in ("png16", "float32")}


def finished(handler: Handler[Any], depth: numpy.ndarray) -> dict[str, Any]:
    """The prediction of a picture whose depth the model gave at the picture's own size."""
    height, width = depth.shape
    return handler.finish([Piece({}, 1, (width, height))], [{"predicted_depth": depth.astype(numpy.float32)}])


@pytest.mark.parametrize("encoding", ["png16", "float32"])
def test_a_depth_everywhere_the_same(encoding: str, handlers: dict[str, Handler[Any]]) -> None:
    prediction = finished(handlers[encoding], numpy.full((40, 50), 2.5))
    assert (prediction["min"], prediction["max"], prediction["mean"]) == (2.5, 2.5, 2.5)
    assert (decoded(prediction) == 2.5).all()


def test_16_bits_are_within_half_a_step(handlers: dict[str, Handler[Any]]) -> None:
    """Over more pixels than are scaled at once, and with ends that are met exactly."""
    rng = numpy.random.default_rng(1)
    depth = rng.uniform(-3, 80, (1500, 1100)).astype(numpy.float32)
    prediction = finished(handlers["png16"], depth)
    found = decoded(prediction)
    step = (prediction["max"] - prediction["min"]) / 65535
    assert numpy.abs(found.astype(numpy.float64) - depth).max() < 0.5 * step + 1e-5
    assert (found.min(), found.max()) == (depth.min(), depth.max())
    assert (decoded(finished(handlers["float32"], depth)) == depth).all()


@pytest.mark.parametrize("value", [numpy.nan, numpy.inf])
@pytest.mark.parametrize("encoding", ["png16", "float32"])
def test_a_depth_that_is_no_number_is_an_error(encoding: str, value: float, handlers: dict[str, Handler[Any]]) -> None:
    depth = numpy.ones((32, 32))
    depth[4, 4] = value
    with pytest.raises(RecordError) as error:
        finished(handlers[encoding], depth)
    assert error.value.code == "not_finite"


def test_a_processor_of_another_task_is_refused(tmp_path: Path) -> None:
    model = make_depth_estimator(tmp_path)
    image_processor("vit").save_pretrained(model)
    with pytest.raises(Permanent, match=r"a ViTImageProcessor\w*, is not one of a model of depth") as error:
        loaded_handler(TASK, model)
    assert error.value.code == "model"


def test_the_device_gives_the_small_depth(handlers: dict[str, Handler[Any]]) -> None:
    """What waits for `finish` is of the model's resolution, whatever the picture's."""
    pieces = [Piece({"pixel_values": torch.rand(1, 3, side, 64)}, 1, (9000, 9000)) for side in (64, 96, 64)]
    with torch.inference_mode():
        outputs = handlers["png16"].infer(pieces)
    assert [output["predicted_depth"].shape for output in outputs if isinstance(output, dict)] == [
        (64, 64),
        (96, 64),
        (64, 64),
    ]


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"encoding": "png8"}, "params.encoding", "'png16' or 'float32'"),
        ({"encoding": None}, "params.encoding", "'png16' or 'float32'"),
        ({"max_pixels": 100}, "params.max_pixels", "greater than or equal to 1024"),
        ({"size": 3}, "params.size", "unknown key"),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str, says: str) -> None:
    assert says in problems(TASK, params)[field]
