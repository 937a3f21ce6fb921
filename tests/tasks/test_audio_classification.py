"""audio-classification against the Transformers pipeline, on Wav2Vec2 of both kinds, its kin, and spectra."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close, run_case
from schemas.errors import Permanent, RecordError
from schemas.tasks.audio_classification import TASK
from tests.checkpoints import make_classifier
from tests.checkpoints_audio import make_sound_classifier, make_spectrum_classifier
from tests.media import FORMATS, encoded, sounds, tone
from tests.tasks.handlers import load, loaded_handler, pieces_of, predictions, problems, reference_pipeline
from workers.audio.clip import Clip
from workers.handler import Handler

SCHEMA = "1:c3bf7dc812a4"
RATE = 16_000


@cache
def reference(model: Path, data: bytes, top_k: int = 5, **options: Any) -> dict[str, Any]:
    """What the pipeline gives for the clip's samples, in the shape of our prediction; remembered."""
    samples = Clip(data).samples(RATE)
    top = reference_pipeline(TASK, model)({"raw": samples, "sampling_rate": RATE}, top_k=top_k, **options)
    top = [{"label": one["label"], "score": one["score"]} for one in top]
    return {**top[0], "top": top, "duration_s": len(samples) / RATE}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "group": make_sound_classifier(folder / "group", "group"),
        "layer": make_sound_classifier(folder / "layer", "layer"),
        "spectra": make_spectrum_classifier(folder / "spectra"),
    }


@pytest.fixture(scope="module")
def clips() -> list[bytes]:
    """Clips of several rates, formats and lengths, many of them of a length that others have too."""
    made = [encoded(wave, RATE) for wave in sounds(60)]
    made += [encoded(wave, 44_100, "flac") for wave in sounds(6, 44_100, seed=6)]
    return [*made, encoded(np.zeros(RATE // 3, np.float32), RATE), encoded(tone(500, 1.7, 48_000), 48_000, "ogg opus")]


@pytest.fixture(params=["group", "layer", "spectra"])
def case(request: pytest.FixtureRequest, models: dict[str, Path], clips: list[bytes]) -> Case:
    model = models[request.param]
    records = [{"audio": data} for data in clips]
    return Case(TASK, model, records, {"top_k": 3}, lambda r: reference(model, r["audio"], top_k=3), SCHEMA)


@pytest.mark.parametrize("name", ["group", "layer", "spectra"])
def test_the_answers_differ(name: str, models: dict[str, Path], clips: list[bytes]) -> None:
    answers = [reference(models[name], data) for data in clips]
    assert len({answer["label"] for answer in answers}) >= 3
    assert len({round(answer["score"], 3) for answer in answers}) > len(answers) // 2


@pytest.mark.parametrize("form", FORMATS)
def test_each_format(form: str, models: dict[str, Path]) -> None:
    rate = 48_000 if form in ("ogg opus", "webm") else 44_100
    wave = tone(700, 0.4, rate)
    data = encoded(np.stack([wave, 0.5 * wave]), rate, form)
    (answer,) = predictions(loaded_handler(TASK, models["layer"]), audio=[data])
    assert close(answer, reference(models["layer"], data))
    assert answer["duration_s"] == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_each_function(function: str, models: dict[str, Path], clips: list[bytes]) -> None:
    handler = loaded_handler(TASK, models["group"], function_to_apply=function, top_k=2)
    for data, answer in zip(clips[:8], predictions(handler, audio=clips[:8]), strict=True):
        assert close(answer, reference(models["group"], data, top_k=2, function_to_apply=function))


@pytest.mark.parametrize(
    "config",
    [
        {"problem_type": "multi_label_classification"},
        {"problem_type": "regression", "id2label": {0: "A"}, "label2id": {"A": 0}},
        {"id2label": {0: "A"}, "label2id": {"A": 0}},
        {"use_weighted_layer_sum": True},
        {"do_stable_layer_norm": False},
    ],
    ids=["multi-label", "regression", "one label", "weighted layers", "norm after"],
)
def test_the_configuration_decides(config: dict[str, Any], tmp_path: Path, clips: list[bytes]) -> None:
    model = make_sound_classifier(tmp_path, "layer", **config)
    for data, answer in zip(
        clips[:8], predictions(loaded_handler(TASK, model, top_k=10), audio=clips[:8]), strict=True
    ):
        assert close(answer, reference(model, data, top_k=10))


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # of WavLM in the pipeline
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("architecture", ["hubert", "unispeech", "unispeech-sat", "wavlm", "data2vec-audio"])
def test_batches_of_its_kin(architecture: str, norm: str, tmp_path: Path, clips: list[bytes]) -> None:
    """Of those only some don't hear padding, though they all take a mask."""
    model = make_sound_classifier(tmp_path, norm, architecture)
    for data, answer in zip(clips[:12], predictions(loaded_handler(TASK, model), audio=clips[:12]), strict=True):
        assert close(answer, reference(model, data))


def calls(handler: Handler[Any], files: list[bytes]) -> list[tuple[int, ...]]:
    """The shapes that the model gets for these clips."""
    seen: list[tuple[int, ...]] = []
    hook = handler.loaded.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_values"].shape)), with_kwargs=True
    )
    predictions(handler, audio=files)
    hook.remove()
    return seen


def test_only_models_that_take_a_mask_get_padding(models: dict[str, Path]) -> None:
    files = [encoded(tone(500, seconds, RATE), RATE) for seconds in (0.3, 0.2, 0.3, 0.1)]
    layer, group = loaded_handler(TASK, models["layer"]), loaded_handler(TASK, models["group"])
    assert calls(layer, files) == [(4, 4800)]
    assert calls(group, files) == [(2, 4800), (1, 3200), (1, 1600)]
    assert [piece.cost for (piece,) in pieces_of(group, audio=files)] == [15, 10, 15, 5]


@pytest.mark.parametrize("name", ["group", "layer"])
@pytest.mark.parametrize("samples", [1, 399])
def test_a_clip_too_short_for_the_model(samples: int, name: str, models: dict[str, Path]) -> None:
    handler = loaded_handler(TASK, models[name])
    with pytest.raises(RecordError, match="400") as error:
        pieces_of(handler, audio=[encoded(tone(500, 1, RATE)[:samples], RATE)])
    assert error.value.code == "audio_too_short"
    shortest, longer = encoded(tone(500, 1, RATE)[:400], RATE), encoded(tone(500, 1, RATE), RATE)
    assert close(predictions(handler, audio=[shortest, longer])[0], reference(models[name], shortest))


def test_a_clip_too_short_for_spectra(models: dict[str, Path]) -> None:
    with pytest.raises(RecordError) as error:
        pieces_of(loaded_handler(TASK, models["spectra"]), audio=[encoded(tone(500, 0.024, RATE), RATE)])
    assert error.value.code == "audio_too_short"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "no_audio"),
        (b"RIFF, says the text", "unreadable_audio"),
        (encoded(tone(500, 0.2, RATE), RATE)[:30], "unreadable_audio"),
        (encoded(np.zeros(0, np.float32), RATE), "no_audio"),
        (encoded(np.full(4000, np.nan), RATE, "wav float"), "unreadable_audio"),
        (encoded(tone(500, 0.01, RATE), RATE), "audio_too_short"),
        (encoded(tone(500, 3, RATE), RATE), "audio_too_long"),
    ],
    ids=["empty", "text", "cut header", "no samples", "not a number", "too short", "too long"],
)
def test_a_bad_clip_is_its_own_error_alone(
    data: bytes, code: str, models: dict[str, Path], settings: Settings, tmp_path: Path
) -> None:
    good = [encoded(wave, RATE) for wave in sounds(4)]
    records = [{"audio": one} for one in (good[0], data, *good[1:])]
    case = Case(
        TASK, models["layer"], records, {"max_seconds": 2}, lambda r: reference(models["layer"], r["audio"]), ""
    )
    rows = run_case(case, settings, tmp_path, records)
    assert [row["error"] and row["error"]["code"] for row in rows] == [None, code, None, None, None]
    for row, record in zip(rows, records, strict=True):
        assert row["prediction"] is None if row["error"] else close(row["prediction"], case.reference(record))


def test_silence_has_an_answer(models: dict[str, Path]) -> None:
    data = encoded(np.zeros(8000, np.float32), RATE)
    for model in models.values():
        (answer,) = predictions(loaded_handler(TASK, model), audio=[data])
        assert close(answer, reference(model, data))


def test_a_model_that_is_none_of_sound(tmp_path: Path, models: dict[str, Path]) -> None:
    with pytest.raises(Permanent) as error:
        loaded_handler(TASK, make_classifier(tmp_path / "text"))
    assert error.value.code == "model"
    (models["group"] / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(Permanent) as error:
        load(TASK, tmp_path)
    assert error.value.code == "model"
    (tmp_path / "config.json").rename(models["group"] / "config.json")


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"top_k": 0}, "params.top_k"),
        ({"top_k": 2.0}, "params.top_k"),
        ({"function_to_apply": "relu"}, "params.function_to_apply"),
        ({"max_seconds": 0}, "params.max_seconds"),
        ({"max_seconds": "60"}, "params.max_seconds"),
        ({"sampling_rate": 16_000}, "params.sampling_rate"),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str) -> None:
    assert list(problems(TASK, params)) == [field]
