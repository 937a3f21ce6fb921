"""token-classification against the Transformers pipeline, on BERT, and on RoBERTa for tokenizers without word marks."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors
from transformers import ByT5Tokenizer, TokenClassificationPipeline, pipeline

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close, run_case
from schemas.errors import Permanent, RecordError
from schemas.tasks.token_classification import TASK
from tests.checkpoints import MAX_LENGTH
from tests.checkpoints_tokens import TAGS, make_tagger
from tests.tasks.handlers import a_few, any_text, loaded_handler, pieces_of, predictions, problems
from tests.texts import ODD, sentences
from workers.handler import Handler

SCHEMA = "1:3140473353a7"
handler_of = partial(loaded_handler, TASK)
STRATEGIES = ["none", "simple", "first", "average", "max"]

pytestmark = pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")


class WithSpecialTokens(TokenClassificationPipeline):
    """The pipeline without its filter of special tokens."""

    def gather_pre_entities(self, *given: Any, **options: Any) -> Any:
        sentence, ids, scores, offsets, special, *rest = given
        return super().gather_pre_entities(sentence, ids, scores, offsets, special * 0, *rest, **options)


@cache
def reference_pipeline(model: Path, kind: type = TokenClassificationPipeline) -> Any:
    run: Any = pipeline("token-classification", model=str(model), device="cpu", pipeline_class=kind)
    run.tokenizer.model_max_length = MAX_LENGTH
    return run


def reference(model: Path, text: str, **params: Any) -> dict[str, Any]:
    """What the pipeline gives for one text, in the shape of our prediction; remembered."""
    return _reference(model, text, tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in params.items()))


@cache
def _reference(model: Path, text: str, items: tuple[Any, ...]) -> dict[str, Any]:
    params = {"aggregation_strategy": "simple", "ignore_labels": ("O",)} | dict(items)
    everything = params["aggregation_strategy"] == "none" and not params["ignore_labels"]
    run = reference_pipeline(model, WithSpecialTokens if everything else TokenClassificationPipeline)
    found = run(text, **params | {"ignore_labels": list(params["ignore_labels"])})
    whole = len(run.tokenizer(text, verbose=False)["input_ids"])
    entities = [
        {
            "entity": one.get("entity_group", one.get("entity")),
            "score": float(one["score"]),
            "index": one.get("index"),
            "word": one["word"],
            "start": one["start"],
            "end": one["end"],
        }
        for one in found
    ]
    return {"entities": entities, "truncated": whole > MAX_LENGTH and params.get("stride") is None}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tagger(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tagger(tmp_path_factory.mktemp("roberta"), "roberta")


PARAMS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "windows": {"aggregation_strategy": "max", "stride": 16},
}


@pytest.fixture(params=PARAMS)
def case(request: pytest.FixtureRequest, bert: Path) -> Case:
    params = PARAMS[request.param]
    records = [{"text": text} for text in [*ODD, *sentences(80)]]
    return Case(TASK, bert, records, params, lambda record: reference(bert, record["text"], **params), SCHEMA)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy(strategy: str, architecture: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(architecture)
    texts = [*sentences(25, seed=1), *ODD, "unheard-of wörds, glued.together 日本 and-such"]
    found = predictions(handler_of(model, aggregation_strategy=strategy), text=texts)
    for text, answer in zip(texts, found, strict=True):
        assert close(answer, reference(model, text, aggregation_strategy=strategy)), text


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize("stride", [0, 10, 45])
@pytest.mark.parametrize("strategy", ["simple", "average"])
def test_windows(strategy: str, stride: int, architecture: str, request: pytest.FixtureRequest) -> None:
    """A long text in windows that share from none to nearly all of their tokens."""
    model = request.getfixturevalue(architecture)
    texts = ["good " * 150, " leading space " + "battery " * 100, "short", *sentences(4, seed=2, longest=200)]
    params = {"aggregation_strategy": strategy, "stride": stride}
    handler = handler_of(model, **params)
    assert max(len(pieces) for pieces in pieces_of(handler, text=texts)) > 2
    for text, answer in zip(texts, predictions(handler, text=texts), strict=True):
        assert close(answer, reference(model, text, **params)), text
        assert not answer["truncated"]


@pytest.mark.parametrize("ignored", [[], ["O", "PER"], ["B-PER", "MISC"], list(TAGS.values())])
@pytest.mark.parametrize("strategy", ["none", "simple"])
def test_ignored_labels(strategy: str, ignored: list[str], bert: Path) -> None:
    """Compared with an entity's own name, so that B-PER is one of a token, but of no aggregate."""
    params = {"aggregation_strategy": strategy, "ignore_labels": ignored}
    texts = sentences(20, seed=3)
    for text, answer in zip(texts, predictions(handler_of(bert, **params), text=texts), strict=True):
        assert close(answer, reference(bert, text, **params)), text


def test_nothing_ignored_and_nothing_joined_is_every_token(bert: Path, settings: Settings, tmp_path: Path) -> None:
    """Special tokens included; they are in no aggregate."""
    records = [{"text": "a good film"}, {"text": ""}]
    params: dict[str, Any] = {"aggregation_strategy": "none", "ignore_labels": []}
    rows = run_case(Case(TASK, bert, records, params, lambda r: r, SCHEMA), settings, tmp_path, records)
    full, empty = [row["prediction"]["entities"] for row in rows]
    assert [one["word"] for one in full] == ["[CLS]", "a", "good", "film", "[SEP]"]
    assert [one["index"] for one in full] == [0, 1, 2, 3, 4]
    assert [(one["start"], one["end"]) for one in full] == [(0, 0), (0, 1), (2, 6), (7, 11), (0, 0)]
    assert [one["word"] for one in empty] == ["[CLS]", "[SEP]"]
    for record, row in zip(records, rows, strict=True):
        assert close(row["prediction"], reference(bert, record["text"], **params))
    joined_ones = predictions(handler_of(bert, ignore_labels=[]), text=["a good film", ""])
    assert [one["word"] for entity in joined_ones for one in entity["entities"]][-1].endswith("film")


def test_the_alias_is_the_task(bert: Path, settings: Settings, tmp_path: Path) -> None:
    records = [{"text": "good " * 300}]
    case = Case(TASK, bert, records, {}, lambda r: r, SCHEMA)
    (row,) = run_case(case, settings, tmp_path, records, task="ner")
    assert row["prediction"]["truncated"]
    assert {one["index"] for one in row["prediction"]["entities"]} <= {None}


def test_offsets_are_into_the_original_text(bert: Path) -> None:
    """Though the tokens are lowercased, stripped of accents and of control characters."""
    text = "\u200b The GOOD 😀 Fílm\x00 "
    (answer,) = predictions(handler_of(bert, aggregation_strategy="none", ignore_labels=[]), text=[text])
    spans = {one["word"]: text[one["start"] : one["end"]] for one in answer["entities"]}
    assert spans | {"the": "The", "good": "GOOD", "film": "Fílm"} == spans


def test_a_text_without_tokens_has_no_entities(roberta: Path) -> None:
    handler = handler_of(roberta)
    handler.loaded.processor.backend_tokenizer.post_processor = processors.ByteLevel()
    empty, other = predictions(handler, text=["", "good"])
    assert empty == {"entities": [], "truncated": False}
    assert len(other["entities"]) <= 1


def test_no_number_is_no_answer(bert: Path) -> None:
    handler = handler_of(bert)
    (pieces,) = pieces_of(handler, text=["a good film"])
    with pytest.raises(RecordError) as caught:
        handler.finish(pieces, [np.full((5, len(TAGS)), np.nan, np.float32)])
    assert caught.value.code == "not_finite"


def test_a_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = make_tagger(tmp_path / "model")
    for file in folder.glob("*token*"):
        file.unlink()
    ByT5Tokenizer().save_pretrained(folder)
    with pytest.raises(Permanent, match=r"ByT5Tokenizer, can't tell .*tokenizer\.json"):
        handler_of(folder)


def test_a_stride_that_leaves_no_room_fails_the_job(bert: Path) -> None:
    assert handler_of(bert, stride=61)
    with pytest.raises(Permanent, match=r"params\.stride: 62 .* use less than 62"):
        handler_of(bert, stride=62)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"aggregation_strategy": "mean"}, "params.aggregation_strategy"),
        ({"aggregation_strategy": "none", "stride": 8}, "params.stride"),
        ({"stride": -1}, "params.stride"),
        ({"stride": "8"}, "params.stride"),
        ({"ignore_labels": "O"}, "params.ignore_labels"),
        ({"ignore_label": ["O"]}, "params.ignore_label"),
    ],
)
def test_bad_parameters_are_refused_by_name(params: dict[str, Any], field: str) -> None:
    assert list(problems(TASK, params)) == [field]


@pytest.fixture(
    scope="module", params=[{"aggregation_strategy": "none"}, {"aggregation_strategy": "first", "stride": 9}]
)
def handler(request: pytest.FixtureRequest, bert: Path) -> Handler[Any]:
    return handler_of(bert, **request.param)


@given(st.lists(any_text, min_size=1, max_size=8))
@a_few
def test_any_unicode_at_any_length(bert: Path, handler: Handler[Any], texts: list[str]) -> None:
    params = handler.params.model_dump(exclude={"ignore_labels"}, exclude_none=True)
    for text, answer in zip(texts, predictions(handler, text=texts), strict=True):
        assert close(answer, reference(bert, text, **params)), text
