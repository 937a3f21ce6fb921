"""question-answering against a plain loop over one record's windows and spans, on BERT and DistilBERT."""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForQuestionAnswering, ByT5Tokenizer

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close, run_case
from schemas.errors import Permanent, RecordError
from schemas.tasks.question_answering import TASK, Params
from tests.checkpoints import MAX_LENGTH
from tests.checkpoints_qa import make_reader
from tests.tasks.handlers import a_few, load, loaded_handler, pieces_of, predictions, problems, reference_model
from tests.texts import ODD, sentences
from workers.handler import Handler


def parts(tokens: int, room: int, stride: int) -> Iterator[range]:
    """Windows over so many tokens, each with `stride` of the one before it, up to the first that reaches the end."""
    start = 0
    while start + room < tokens:
        yield range(start, start + room)
        start += room - stride
    yield range(start, tokens)


def reference(model: Path, record: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The pipeline's rule for one record, one window and one span at a time, in the shape of our prediction."""
    return _reference(model, record["question"], record["context"], tuple(options.items()))


@cache
def _reference(model: Path, question: str, context: str, chosen: tuple[Any, ...]) -> dict[str, Any]:
    options = Params(**dict(chosen))
    limit = min(MAX_LENGTH, options.max_seq_len)
    stride = min(limit // 2, 128) if options.doc_stride is None else options.doc_stride
    tokenizer, network = reader(model)
    asked = tokenizer(question, add_special_tokens=False, verbose=False)["input_ids"]
    read = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets, words = read["input_ids"], read["offset_mapping"], read.word_ids()
    head = [tokenizer.cls_token_id, *asked, tokenizer.sep_token_id]
    found: list[dict[str, Any]] = []
    null = 1.0
    for part in parts(len(ids), limit - len(head) - 1, stride):
        tokens = [*head, *ids[part.start : part.stop], tokenizer.sep_token_id]
        inputs = {"input_ids": torch.tensor([tokens])}
        if "token_type_ids" in tokenizer.model_input_names:
            inputs["token_type_ids"] = torch.tensor([[0] * len(head) + [1] * (len(part) + 1)])
        with torch.no_grad():
            output = network(**inputs)
        masked = torch.tensor([id != tokenizer.cls_token_id for id in tokens])
        masked[len(head) : -1] = False
        start = output.start_logits[0].masked_fill(masked, -10000.0).softmax(-1).tolist()
        end = output.end_logits[0].masked_fill(masked, -10000.0).softmax(-1).tolist()
        null = min(null, start[0] * end[0])
        start, end = start[len(head) :], end[len(head) :]
        spans = []
        for i in range(len(part)):
            for j in range(i, min(i + options.max_answer_len, len(part))):
                spans.append((start[i] * end[j], part[i], part[j]))
        spans.sort(key=lambda span: -span[0])
        for score, i, j in spans[: 2 * options.top_k + 10]:
            first, last = i, j
            while first - 1 in part and words[first - 1] == words[first]:
                first -= 1
            while last + 1 in part and words[last + 1] == words[last]:
                last += 1
            begin, stop = offsets[first][0], offsets[last][1]
            same = [answer for answer in found if answer["answer"].lower() == context[begin:stop].lower()]
            if same:
                same[0]["score"] += score
            else:
                found.append({"answer": context[begin:stop], "score": score, "start": begin, "end": stop})
    if options.handle_impossible_answer:
        found.append({"answer": "", "score": null, "start": 0, "end": 0})
    top = sorted(found, key=lambda answer: -answer["score"])[: options.top_k]
    for answer in top:
        answer["score"] = min(answer["score"], 1.0)
    return top[0] | {"top": top}


SCHEMA = "1:7e69a9599762"
handler_of = partial(loaded_handler, TASK)
reader = partial(reference_model, AutoModelForQuestionAnswering)
QUESTIONS = sentences(200, seed=5, longest=6)
#: Contexts of one window to a dozen, with every odd text at both edges.
CONTEXTS = [text for text in ODD if text.strip()] + [
    *(f"{text}the good film {text}" for text in ODD),
    *sentences(40, seed=6, longest=150),
]


def asked(contexts: list[str]) -> list[dict[str, Any]]:
    return [{"question": q, "context": c} for q, c in zip(QUESTIONS, contexts, strict=False)]


@pytest.fixture(scope="module", params=["bert", "distilbert"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reader(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(
    params=[{"top_k": 3}, {"handle_impossible_answer": True, "max_seq_len": 40, "doc_stride": 16, "max_answer_len": 4}],
    ids=["three answers", "maybe none"],
)
def case(request: pytest.FixtureRequest, model: Path) -> Case:
    options = request.param
    return Case(TASK, model, asked(CONTEXTS), options, lambda r: reference(model, r, **options), SCHEMA)


def answer_of(handler: Handler[Any], record: dict[str, Any]) -> dict[str, Any]:
    (found,) = predictions(handler, **{name: [value] for name, value in record.items()})
    return found


@pytest.fixture(scope="module")
def handler(model: Path) -> Handler[Any]:
    return handler_of(model, top_k=5)


@pytest.mark.parametrize("options", [{"max_answer_len": 1}, {"doc_stride": 0}, {"top_k": 20, "max_seq_len": 30}])
def test_each_parameter(options: dict[str, Any], model: Path) -> None:
    ours = handler_of(model, **options)
    for record in asked(sentences(12, seed=8, longest=200)):
        assert close(answer_of(ours, record), reference(model, record, **options))


def test_no_answer_is_lost_at_a_windows_edge(model: Path) -> None:
    """Each span as long as the overlap is whole in some window."""
    context = " ".join(sentences(6, seed=9))
    overlap = 20
    (pieces,) = pieces_of(handler_of(model, doc_stride=overlap), question=["is it good"], context=[context])
    assert len(pieces) > 5
    assert max(piece.cost for piece in pieces) <= MAX_LENGTH
    whole = reader(model)[0](context, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = whole["offset_mapping"]
    windows = [(int(p.notes.window.starts[0]), int(p.notes.window.ends[-1])) for p in pieces]
    for first in range(len(offsets) - overlap + 1):
        start, end = offsets[first][0], offsets[first + overlap - 1][1]
        assert any(a <= start and end <= b for a, b in windows), (first, windows)


def test_the_best_window_wins(model: Path) -> None:
    """Whatever window the answer is in, it is found with the place it has in the whole context."""
    ours = handler_of(model)
    places = []
    for record in asked(sentences(30, seed=10, longest=250)):
        prediction = answer_of(ours, record)
        assert close(prediction, reference(model, record))
        places.append(prediction["start"])
    assert max(places) > 5 * MAX_LENGTH


def test_no_answer_competes_by_its_least_score(model: Path) -> None:
    records = asked(sentences(40, seed=11, longest=8))
    ours = handler_of(model, handle_impossible_answer=True)
    found = [answer_of(ours, record) for record in records]
    none = [p for p in found if p["answer"] == ""]
    assert 0 < len(none) < len(records)
    assert all((p["start"], p["end"]) == (0, 0) for p in none)
    for record, prediction in zip(records, found, strict=True):
        assert close(prediction, reference(model, record, handle_impossible_answer=True))


def test_fewer_answers_than_asked_for(model: Path) -> None:
    prediction = answer_of(handler_of(model, top_k=10), {"question": "is it good", "context": "good film"})
    assert {answer["answer"] for answer in prediction["top"]} == {"good", "film", "good film"}


def test_what_has_no_answer_is_an_error_row(model: Path, settings: Settings, tmp_path: Path) -> None:
    fine = {"question": "is it good", "context": "a good film"}
    expected = {
        "empty_question": [fine | {"question": text} for text in ("", " ", "\n\t")],
        "empty_context": [fine | {"context": text} for text in ("", " \u3000", "\u200b\u200d")],
        "question_too_long": [{"question": "good " * 50, "context": "film " * 50}],
    }
    records = [record for bad in expected.values() for record in [*bad, fine]]
    codes = [error for code, bad in expected.items() for error in [*[code] * len(bad), None]]
    case = Case(TASK, model, records, {}, lambda r: reference(model, r), SCHEMA)
    rows = run_case(case, settings, tmp_path, records)
    assert [row["error"] and row["error"]["code"] for row in rows] == codes
    for row in rows:
        assert row["prediction"] is None if row["error"] else close(row["prediction"], case.reference(fine))


def test_a_long_question_is_fine_with_a_context_that_fits(model: Path) -> None:
    record = {"question": "good " * 50, "context": "a film " * 5}
    assert close(answer_of(handler_of(model), record), reference(model, record))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_an_error(value: float, handler: Handler[Any]) -> None:
    (pieces,) = pieces_of(handler, question=["is it good"], context=["a good film"])
    with pytest.raises(RecordError) as raised:
        handler.finish(pieces, [np.full((2, pieces[0].cost), value, dtype=np.float32)])
    assert raised.value.code == "not_finite"


def test_padding_on_either_side_changes_nothing(tmp_path: Path) -> None:
    for side in ("left", "right"):
        ours = handler_of(make_reader(tmp_path / side, "bert", padding_side=side), top_k=3)
        together = predictions(ours, question=QUESTIONS[: len(CONTEXTS)], context=CONTEXTS)
        for record, prediction in zip(asked(CONTEXTS), together, strict=True):
            assert close(prediction, answer_of(ours, record))
            assert prediction["answer"] == record["context"][prediction["start"] : prediction["end"]]


def test_a_tokenizer_without_offsets_is_refused(tmp_path: Path) -> None:
    model = make_reader(tmp_path / "model")
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    ByT5Tokenizer().save_pretrained(model)
    with pytest.raises(Permanent, match=r"ByT5Tokenizer, can.t tell .*tokenizer\.json") as raised:
        load(TASK, model)
    assert raised.value.code == "model"


def test_an_overlap_beyond_the_models_window_fails_the_job(model: Path) -> None:
    with pytest.raises(Permanent, match=r"params\.doc_stride: windows can't share 100 tokens"):
        handler_of(model, doc_stride=100)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"top_k": 0}, "top_k"),
        ({"max_answer_len": 0}, "max_answer_len"),
        ({"max_seq_len": 3}, "max_seq_len"),
        ({"doc_stride": -1}, "doc_stride"),
        ({"doc_stride": 384}, "doc_stride"),
        ({"max_seq_len": 100, "doc_stride": 128}, "doc_stride"),
        ({"handle_impossible_answer": 1}, "handle_impossible_answer"),
        ({"max_question_len": 64}, "max_question_len"),
    ],
)
def test_bad_parameters_are_named(params: dict[str, Any], field: str) -> None:
    assert list(problems(TASK, params)) == [f"params.{field}"]


@pytest.fixture(scope="module")
def any_handlers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handler[Any]]:
    """Of words and of bytes: the second has tokens for any text."""
    names = ("bert", "roberta")
    return {name: handler_of(make_reader(tmp_path_factory.mktemp(name), name), top_k=5) for name in names}


text = st.text(st.characters(codec="utf-8"), max_size=4 * MAX_LENGTH)


@given(st.lists(st.tuples(text, text), min_size=1, max_size=4), st.sampled_from(["bert", "roberta"]))
@a_few
def test_any_unicode_at_any_length(
    any_handlers: dict[str, Handler[Any]], pairs: list[tuple[str, str]], architecture: str
) -> None:
    """Every answer is a piece of its context, or the error one of those that are documented."""
    ours = any_handlers[architecture]
    for question, context in pairs:
        try:
            prediction = answer_of(ours, {"question": question, "context": context})
        except RecordError as error:
            assert error.code in ("empty_question", "empty_context", "question_too_long")  # noqa: PT017
            continue
        assert 1 <= len(prediction["top"]) <= 5
        assert {name: prediction[name] for name in prediction["top"][0]} == prediction["top"][0]
        for answer in prediction["top"]:
            assert 0 <= answer["start"] <= answer["end"] <= len(context)
            assert answer["answer"] == context[answer["start"] : answer["end"]]
            assert 0 <= answer["score"] <= 1
