"""image-feature-extraction against the Transformers pipeline: its pooled output, or its hidden states pooled here."""

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import ViTMAEConfig, ViTMAEModel

from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close
from schemas.errors import Permanent, RecordError
from schemas.tasks.image_feature_extraction import TASK
from tests.checkpoints import SMALL
from tests.checkpoints_vision import SIDE, image_processor, make_image_classifier, make_image_encoder
from tests.pictures import sample
from tests.tasks.handlers import loaded_handler, predictions, problems, reference_pipeline
from workers.handler import Handler, Piece

SCHEMA = "1:b4e34f9eb280"
SIZES = [(40, 30), (30, 40), (32, 32), (100, 9), (1, 1), (300, 200)]
#: What each architecture allows, the default first.
POOLINGS = {
    "vit": ["pooler", "cls", "mean"],
    "vit-unpooled": ["cls", "mean"],
    "convnext": ["pooler", "mean"],
    "dinov2": ["pooler", "cls", "mean"],
    "swin": ["pooler", "mean"],
}
EACH = [(architecture, pooling) for architecture, allowed in POOLINGS.items() for pooling in allowed]


@cache
def reference(model: Path, data: bytes, pooling: str, normalize: bool = True) -> dict[str, Any]:
    """What the pipeline gives for one picture, in the shape of our prediction; remembered."""
    found = reference_pipeline(TASK, model)(Image.open(BytesIO(data)), pool=pooling == "pooler", return_tensors=True)
    hidden = found.numpy()[0]
    if pooling == "pooler":
        vector = hidden.reshape(-1)
    elif pooling == "cls":
        vector = hidden[0]
    else:
        vector = hidden.mean(axis=(1, 2) if hidden.ndim == 3 else 0)
    if normalize:
        vector = vector / np.linalg.norm(vector)
    return {"embedding": vector.tolist()}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_image_encoder(tmp_path_factory.mktemp(name), name) for name in POOLINGS}


def case_of(model: Path, pooling: str, pictures: list[bytes], params: dict[str, Any]) -> Case:
    normalize = params.get("normalize", True)
    records = [{"image": data} for data in pictures]
    return Case(TASK, model, records, params, lambda r: reference(model, r["image"], pooling, normalize), SCHEMA)


@pytest.fixture(params=["vit", "convnext"])
def case(request: pytest.FixtureRequest, models: dict[str, Path]) -> Case:
    return case_of(models[request.param], "pooler", [*sample(25, SIZES), *sample(15, SIZES, "JPEG")], {})


def embeddings(handler: Handler[Any], pictures: list[bytes]) -> list[dict[str, Any]]:
    """Predictions of pictures in one batch."""
    found = predictions(handler, image=pictures)
    return [{"embedding": one["embedding"].tolist()} for one in found]


@pytest.mark.parametrize(("architecture", "pooling"), EACH)
@pytest.mark.parametrize("normalize", [True, False])
def test_each_pooling(architecture: str, pooling: str, normalize: bool, models: dict[str, Path]) -> None:
    model, pictures = models[architecture], sample(8, SIZES)
    found = embeddings(loaded_handler(TASK, model, pooling=pooling, normalize=normalize), pictures)
    for data, prediction in zip(pictures, found, strict=True):
        assert close(prediction, reference(model, data, pooling, normalize))


@pytest.mark.parametrize("architecture", POOLINGS)
def test_the_default_pooling(architecture: str, models: dict[str, Path]) -> None:
    """The pooling layer only where the checkpoint has one: the pipeline would make one up."""
    pictures = sample(3, SIZES)
    for data, prediction in zip(
        pictures, embeddings(loaded_handler(TASK, models[architecture]), pictures), strict=True
    ):
        assert close(prediction, reference(models[architecture], data, POOLINGS[architecture][0]))


@pytest.mark.parametrize(("architecture", "pooling"), EACH)
def test_the_answers_differ(architecture: str, pooling: str, models: dict[str, Path]) -> None:
    vectors = np.array([reference(models[architecture], data, pooling)["embedding"] for data in sample(8, SIZES)])
    alike = (vectors @ vectors.T)[~np.eye(8, dtype=bool)]
    assert alike.max() < 0.995


@pytest.mark.parametrize(
    ("architecture", "pooling", "allowed"),
    [("vit-unpooled", "pooler", "cls and mean"), ("convnext", "cls", "pooler and mean"), ("swin", "cls", "pooler")],
)
def test_a_pooling_that_the_model_lacks_is_refused(
    architecture: str, pooling: str, allowed: str, models: dict[str, Path]
) -> None:
    with pytest.raises(Permanent, match=rf"params\.pooling: .* has no {pooling}; it allows {allowed}") as error:
        loaded_handler(TASK, models[architecture], pooling=pooling)
    assert error.value.code == "bad_params"


def test_a_classifier_is_an_encoder_without_a_pooling_layer(tmp_path: Path) -> None:
    model, pictures = make_image_classifier(tmp_path), sample(4, SIZES)
    for data, prediction in zip(pictures, embeddings(loaded_handler(TASK, model), pictures), strict=True):
        assert close(prediction, reference(model, data, "cls"))


def test_other_missing_weights_are_refused(tmp_path: Path) -> None:
    model = make_image_classifier(tmp_path)
    config = (model / "config.json").read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    (model / "config.json").write_text(config)
    with pytest.raises(Permanent, match=r"no ImageFeatureExtraction model: it lacks layers\.2") as error:
        loaded_handler(TASK, model)
    assert error.value.code == "model"


def test_a_model_that_draws_at_random_is_refused(tmp_path: Path) -> None:
    """A masked autoencoder hides three of four patches, other ones each time."""
    shape = {"image_size": SIDE, "patch_size": 8, "initializer_range": 0.3, "decoder_hidden_size": 32}
    ViTMAEModel(ViTMAEConfig(**(SMALL | shape))).save_pretrained(tmp_path)
    image_processor("vit").save_pretrained(tmp_path)
    with pytest.raises(Permanent, match="draws at random") as error:
        loaded_handler(TASK, tmp_path)
    assert error.value.code == "model"


def test_a_vector_that_is_no_number_is_an_error(models: dict[str, Path]) -> None:
    handler = loaded_handler(TASK, models["vit"])
    with pytest.raises(RecordError) as error:
        handler.finish([Piece({}, 1)], [np.full(32, np.nan, np.float32)])
    assert error.value.code == "not_finite"


def test_nothing_normalised_is_nothing(models: dict[str, Path]) -> None:
    handler = loaded_handler(TASK, models["vit"])
    assert handler.finish([Piece({}, 1)], [np.zeros(32, np.float32)])["embedding"].tolist() == [0.0] * 32


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"pooling": "max"}, "params.pooling", "'pooler', 'cls' or 'mean'"),
        ({"normalize": 1}, "params.normalize", "valid boolean"),
        ({"dimensions": 8}, "params.dimensions", "unknown key"),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str, says: str) -> None:
    assert says in problems(TASK, params)[field]
