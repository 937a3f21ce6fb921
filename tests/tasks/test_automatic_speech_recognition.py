"""automatic-speech-recognition against the Transformers pipeline, with CTC and Whisper, in one chunk and in many."""

import tracemalloc
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers.models.whisper.tokenization_whisper import LANGUAGES as NAMES

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, run_case
from schemas.errors import Permanent, RecordError
from schemas.tasks.automatic_speech_recognition import TASK, Params
from tests.checkpoints_audio import make_sound_classifier
from tests.checkpoints_speech import WINDOW_S, make_ctc, make_whisper
from tests.media import encoded, sounds
from tests.tasks.handlers import load, loaded_handler, predictions, problems, reference_pipeline
from workers.audio.clip import Clip

RATE = 16_000
SCHEMA = "1:fe2111cb00d6"
#: Chunks of CTC and of Whisper that make a few seconds a long clip.
CTC: dict[str, Any] = {"chunk_length_s": 1.0, "stride_s": 0.2}
WHISPER: dict[str, Any] = {"chunk_length_s": float(WINDOW_S), "stride_s": 0.4, "num_beams": 1}
_TIMES = {"none": None, "segment": True, "word": "word", "char": "char"}


def speech(samples: int, seed: int) -> np.ndarray:
    """Different sounds one after the other, float32 of shape (samples,)."""
    return np.concatenate(sounds(3 + samples // 1000, seed=seed))[:samples]


def wav(samples: np.ndarray) -> bytes:
    return encoded(samples, RATE, "wav float")


#: Of less than a chunk, at the edges of chunks of either size, and of several chunks.
LENGTHS = [16_000, 16_001, 25_600, 25_601, 600, 5000, 5000, 41_600, 32_001, 70_000]
RECORDS: list[dict[str, Any]] = [{"audio": encoded(speech(40_000, 99), 44_100, "mp3")}]
RECORDS += [{"audio": wav(speech(n, seed))} for seed, n in enumerate(LENGTHS)]
RECORDS += [{"audio": wav(np.zeros(40_000, np.float32))}]


@cache
def reference(model: Path, data: bytes, spoken: str | None = None, **params: Any) -> dict[str, Any]:
    """What the pipeline gives for one clip with a job's parameters, in the shape of our prediction; remembered."""
    run = reference_pipeline(TASK, model)
    samples = Clip(data).samples(RATE)
    asked = Params(**params)
    options: dict[str, Any] = {"chunk_length_s": asked.chunk_length_s, "stride_length_s": asked.stride_s}
    if asked.timestamps != "none":
        options["return_timestamps"] = _TIMES[asked.timestamps]
    if run.type == "seq2seq_whisper":
        options["generate_kwargs"] = {} if asked.num_beams is None else {"num_beams": asked.num_beams}
        if run.model.generation_config.is_multilingual:
            given = {} if asked.language is None else {"language": asked.language}
            options["generate_kwargs"] |= {"task": asked.task} | given
    with warnings.catch_warnings(action="ignore"):  # of windows that begin behind the sound
        found = run(samples, **options)
    chunks = [
        {"text": chunk["text"], "start_s": chunk["timestamp"][0], "end_s": chunk["timestamp"][1]}
        for chunk in found.get("chunks", ())
    ]
    return {"text": found["text"], "chunks": chunks, "duration_s": len(samples) / RATE, "language": spoken}


@cache
def languages_of(model: Path, data: bytes, chunk_length_s: float, stride_s: float) -> list[str]:
    """The codes of the languages that the pipeline names, of the first chunk on."""
    samples = Clip(data).samples(RATE)
    sizes = {"chunk_length_s": chunk_length_s, "stride_length_s": stride_s}
    kwargs = {"generate_kwargs": {"task": "transcribe", "num_beams": 1}}
    found = reference_pipeline(TASK, model)(samples, **sizes, **kwargs, return_timestamps=True, return_language=True)
    codes = {name: code for code, name in NAMES.items()}
    return [codes[chunk["language"]] for chunk in found["chunks"]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {norm: make_ctc(tmp_path_factory.mktemp(norm), norm) for norm in ("group", "layer")}
    made |= {name: make_whisper(tmp_path_factory.mktemp(name), many) for name, many in (("many", True), ("en", False))}
    return made


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ctc, words": ("group", CTC | {"timestamps": "word"}),
    "ctc, characters": ("layer", CTC | {"timestamps": "char"}),
    "whisper, segments": ("en", WHISPER | {"timestamps": "segment"}),
    "whisper, words by beams": ("en", WHISPER | {"timestamps": "word", "num_beams": None}),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, models: dict[str, Path]) -> Case:
    name, params = CASES[request.param]
    language = "en" if name == "en" else None

    def expected(record: dict[str, Any]) -> dict[str, Any]:
        return reference(models[name], record["audio"], language, **params)

    return Case(TASK, models[name], RECORDS if name in ("group", "layer") else RECORDS[-7:], params, expected, SCHEMA)


@pytest.mark.parametrize("name", ["group", "layer", "en", "many"])
def test_the_cases_differ(name: str, models: dict[str, Path]) -> None:
    params = CTC if name in ("group", "layer") else WHISPER
    texts = {reference(models[name], record["audio"], **params)["text"] for record in RECORDS[-7:]}
    assert len(texts) == 7


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("layer", CTC),
        ("group", {"chunk_length_s": 1.1, "stride_s": 0.0, "timestamps": "char"}),
        ("layer", {"chunk_length_s": 1.3, "stride_s": 0.11, "timestamps": "word"}),
        ("group", {}),
        ("en", WHISPER),
        ("en", WHISPER | {"chunk_length_s": 1.1, "stride_s": 0.07, "timestamps": "segment"}),
        ("many", WHISPER | {"language": "de", "timestamps": "word"}),
        ("many", WHISPER | {"language": "Japanese", "task": "translate"}),
        ("many", WHISPER | {"language": "<|en|>", "timestamps": "segment"}),
    ],
)
def test_parameters_mean_what_they_mean_to_the_pipeline(
    name: str, params: dict[str, Any], models: dict[str, Path]
) -> None:
    clips = [record["audio"] for record in RECORDS[-7:]]
    code = {"de": "de", "Japanese": "ja", "<|en|>": "en"}.get(params.get("language", ""))
    language = "en" if name == "en" else code
    found = predictions(loaded_handler(TASK, models[name], **params), audio=clips)
    assert found == [reference(models[name], clip, language, **params) for clip in clips]


def test_whisper_finds_the_language_of_each_clip(models: dict[str, Path]) -> None:
    clips = [wav(speech(n, seed)) for seed, n in enumerate([4000, 9000, 12_000, 20_000, 24_000, 30_000, 31_000])]
    found = predictions(loaded_handler(TASK, models["many"], **WHISPER, timestamps="segment"), audio=clips)
    named = [languages_of(models["many"], clip, WHISPER["chunk_length_s"], WHISPER["stride_s"]) for clip in clips]
    assert [prediction["language"] for prediction in found] == [codes[0] for codes in named]
    assert len({codes[0] for codes in named}) > 1


def test_a_language_of_the_configuration_counts_as_given(tmp_path: Path) -> None:
    model = make_whisper(tmp_path / "model", generation={"language": "en", "task": "transcribe"})
    clip = RECORDS[-3]["audio"]
    (found,) = predictions(loaded_handler(TASK, model, **WHISPER), audio=[clip])
    assert found == reference(model, clip, "en", **WHISPER)


def test_words_without_spaces_are_told_apart(models: dict[str, Path]) -> None:
    """In Japanese every character is a word; the pipeline does so where its tokenizer's language says it."""
    params = WHISPER | {"timestamps": "word", "language": "ja"}
    clips = [record["audio"] for record in RECORDS[-4:]]
    run = reference_pipeline(TASK, models["many"])
    run.tokenizer.language = "japanese"
    try:
        expected = [reference(models["many"], clip, "ja", **params) for clip in clips]
    finally:
        run.tokenizer.language = None
    found = predictions(loaded_handler(TASK, models["many"], **params), audio=clips)
    assert found == expected
    as_german = predictions(loaded_handler(TASK, models["many"], **(params | {"language": "de"})), audio=clips)
    assert found != as_german


def test_what_a_clip_that_is_hardly_one_comes_to(models: dict[str, Path], settings: Settings, tmp_path: Path) -> None:
    clips = {
        "no sample": wav(np.zeros(0, np.float32)),
        "one sample": wav(np.ones(1, np.float32)),
        "less than a frame": wav(np.ones(399, np.float32)),
        "a frame": wav(np.ones(400, np.float32)),
        "no sound file": b"RIFF or not",
        "cut off": RECORDS[-2]["audio"][:30_000],
    }
    errors = {}
    for name, params in (("group", CTC), ("en", WHISPER)):
        folder = tmp_path / name
        folder.mkdir()
        case = Case(TASK, models[name], [], params, lambda r: r, SCHEMA)
        rows = run_case(case, settings, folder, [{"audio": data} for data in clips.values()])
        errors[name] = [row["error"] and row["error"]["code"] for row in rows]
        assert [row["prediction"] is None for row in rows] == [row["error"] is not None for row in rows]
        assert rows[-1]["prediction"]["duration_s"] == pytest.approx(30_000 / 4 / RATE, abs=0.02)
    short = "audio_too_short"
    assert errors["group"] == ["no_audio", short, short, None, "unreadable_audio", None]
    assert errors["en"] == ["no_audio", None, None, None, "unreadable_audio", None]


def test_a_last_chunk_of_less_than_a_frame_adds_nothing(models: dict[str, Path]) -> None:
    whole = speech(16_000, 4)
    longer = np.concatenate([whole, np.ones(100, np.float32)])
    handler = loaded_handler(TASK, models["group"], chunk_length_s=1.0, stride_s=0.0, timestamps="word")
    alone, more = predictions(handler, audio=[wav(whole), wav(longer)])
    assert (more["text"], more["chunks"]) == (alone["text"], alone["chunks"])
    assert more["duration_s"] == len(longer) / RATE


def test_a_long_clip_is_never_held_whole(models: dict[str, Path]) -> None:
    """Twenty minutes, of 77 MB as samples."""
    clip = Clip(encoded(np.zeros(1_200_000, np.float32), 1000, "wav u8"))
    handler = loaded_handler(TASK, models["group"])
    tracemalloc.start()
    try:
        lengths = [piece.notes.own for (pieces,) in [handler.prepare([{"audio": clip}])] for piece in pieces]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(lengths) == 1200 * RATE
    assert peak < 20 << 20


@pytest.mark.parametrize("architecture", ["wav2vec2", "hubert", "wavlm", "unispeech", "data2vec-audio"])
def test_other_architectures_of_ctc(architecture: str, tmp_path: Path) -> None:
    model = make_ctc(tmp_path / "model", "layer", architecture)
    clips = [record["audio"] for record in RECORDS]
    params = CTC | {"timestamps": "char"}
    found = predictions(loaded_handler(TASK, model, **params), audio=clips)
    assert found == [reference(model, clip, **params) for clip in clips]


def refused(model: Path, **params: Any) -> str:
    with pytest.raises(Permanent) as error:
        loaded_handler(TASK, model, **params)
    assert error.value.code == "bad_params"
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        (
            "group",
            {"timestamps": "segment"},
            "params.timestamps: a CTC model knows no segments; it gives char and word",
        ),
        ("group", {"language": "en"}, "params.language: a CTC model has no choice of it; leave it out"),
        ("group", {"num_beams": 1}, "params.num_beams: a CTC model has no choice of it"),
        ("group", {"task": "translate"}, "params.task: a CTC model can only transcribe"),
        ("many", {"timestamps": "char"} | WHISPER, "params.timestamps: Whisper gives no times of characters"),
        ("many", {}, f"params.chunk_length_s: the model hears {WINDOW_S} seconds at once at most"),
        (
            "many",
            {"language": "xx"} | WHISPER,
            "params.language: the model doesn't know 'xx'; its languages are de, en, ja",
        ),
        ("many", {"language": "french"} | WHISPER, "the model doesn't know 'french'"),
        ("en", {"language": "en"} | WHISPER, "params.language: the model has one language, which it transcribes"),
        ("en", {"task": "translate"} | WHISPER, "params.task: the model has one language"),
    ],
)
def test_what_a_model_cannot_do_is_refused(
    name: str, params: dict[str, Any], says: str, models: dict[str, Path]
) -> None:
    assert says in refused(models[name], **params)


def test_times_need_what_the_configuration_says_of_them(tmp_path: Path) -> None:
    blind = make_whisper(tmp_path / "blind", generation={"alignment_heads": None})
    assert "lacks alignment_heads, which word needs; take segment" in refused(blind, timestamps="word", **WHISPER)
    old = make_whisper(tmp_path / "old", generation={"no_timestamps_token_id": None})
    assert "lacks no_timestamps_token_id; leave it at none" in refused(old, timestamps="segment", **WHISPER)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="CTC model: it lacks") as error:
        load(TASK, make_sound_classifier(tmp_path / "labels"))
    assert error.value.code == "model"


def test_the_error_of_a_clip_is_its_own(models: dict[str, Path]) -> None:
    good, bad = loaded_handler(TASK, models["group"]).prepare(
        [{"audio": Clip(RECORDS[-3]["audio"])}, {"audio": Clip(b"")}]
    )
    assert len(list(good)) == 1
    with pytest.raises(RecordError):
        list(bad)


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"chunk_length_s": 0.5}, "params.chunk_length_s", "greater than or equal to 1"),
        ({"chunk_length_s": 500.0}, "params.chunk_length_s", "less than or equal to 300"),
        ({"chunk_length_s": "30"}, "params.chunk_length_s", "valid number"),
        ({"stride_s": -1.0}, "params.stride_s", "greater than or equal to 0"),
        ({"stride_s": 15.0}, "params.stride_s", "must be less than half of chunk_length_s, which is 30"),
        ({"timestamps": True}, "params.timestamps", "'none', 'char', 'word' or 'segment'"),
        ({"task": "summarize"}, "params.task", "'transcribe' or 'translate'"),
        ({"language": ""}, "params.language", "at least 1 character"),
        ({"num_beams": 0}, "params.num_beams", "greater than or equal to 1"),
        ({"beams": 1}, "params.beams", ""),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str, says: str) -> None:
    assert says in problems(TASK, params)[field]
