"""fill-mask against the Transformers pipeline, on BERT, DistilBERT and RoBERTa."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.pipelines.base import PipelineException

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close, run_case
from schemas.errors import Permanent, RecordError
from schemas.tasks.fill_mask import TASK
from tests.checkpoints import MAX_LENGTH
from tests.checkpoints_tokens import make_masked_lm
from tests.tasks.handlers import a_few, computed, loaded_handler, pieces_of, problems, reference_pipeline
from tests.texts import ODD, sentences
from workers.engine.runner import infer
from workers.handler import Handler

SCHEMA = "1:c23b57027634"
handler_of = partial(loaded_handler, TASK)
ARCHITECTURES = ["bert", "distilbert", "roberta"]


def reference(model: Path, text: str, top_k: int = 5, targets: list[str] | None = None) -> Any:
    """What the pipeline gives for one text, in the shape of our prediction, or our code of its error; remembered."""
    return _reference(model, text, top_k, None if targets is None else tuple(targets))


@cache
def _reference(model: Path, text: str, top_k: int, targets: tuple[str, ...] | None) -> dict[str, Any] | str:
    run = reference_pipeline(TASK, model)
    own = run.tokenizer.mask_token
    text = text.replace("[MASK]", own).replace("<mask>", own)
    whole = run.tokenizer(text, verbose=False)["input_ids"]
    limits = {"truncation": True, "max_length": MAX_LENGTH}
    try:
        answer = run(text, top_k=top_k, targets=targets and list(targets), tokenizer_kwargs=limits)
    except PipelineException:
        return "mask_truncated" if run.tokenizer.mask_token_id in whole else "no_mask"
    masks = [answer] if isinstance(answer[0], dict) else answer
    return {"masks": masks, "truncated": len(whole) > MAX_LENGTH}


def masked(texts: list[str]) -> list[dict[str, Any]]:
    """Records with one of their first words masked, and every third with another mask, anywhere."""
    records = []
    for index, text in enumerate(texts):
        words = text.split(" ")
        words.insert(index % 12 % len(words), ["[MASK]", "<mask>"][index % 2])
        if index % 3 == 0:
            words.insert(index * 7 % len(words) + 1, ["<mask>", "[MASK]", "[MASK],"][index % 9 // 3])
        records.append({"text": " ".join(words)})
    return records


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_masked_lm(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_masked_lm(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def case(model: Path) -> Case:
    records = [*masked(sentences(80)), *({"text": f"<mask> {text}"} for text in ODD)]
    return Case(TASK, model, records, {"top_k": 3}, lambda record: reference(model, record["text"], 3), SCHEMA)


def answers(handler: Handler[Any], texts: list[str]) -> list[dict[str, Any] | str]:
    """Predictions of one batch, or codes of errors."""
    found: list[dict[str, Any] | str] = []
    for pieces, outputs in computed(handler, text=texts):
        try:
            found.append(handler.finish(pieces, outputs))
        except RecordError as error:
            found.append(error.code)
    return found


@pytest.fixture(scope="module")
def handler(model: Path) -> Handler[Any]:
    return handler_of(model, top_k=3)


def test_a_text_without_a_mask_is_an_error_row(bert: Path, settings: Settings, tmp_path: Path) -> None:
    """Whatever else is in it; its neighbours are answered."""
    far = "good " * 300 + "[MASK]"
    records = [{"text": text} for text in [*(text for text in ODD if "MASK" not in text), "a [MASK] film", far]]
    case = Case(TASK, bert, records, {}, lambda r: r, SCHEMA)
    *without, fine, cut = run_case(case, settings, tmp_path, records)
    assert {row["error"]["code"] for row in without} == {"no_mask"}
    assert close(fine["prediction"], reference(bert, "a [MASK] film"))
    assert (cut["prediction"], cut["error"]["code"]) == (None, "mask_truncated")


def test_both_masks_in_one_text(handler: Handler[Any], model: Path) -> None:
    """Each is filled by itself, and the other one stays in the sequence as the model's own mask."""
    (answer,) = answers(handler, ["the <mask> was [MASK]"])
    assert isinstance(answer, dict)
    assert close(answer, reference(model, "the <mask> was [MASK]", 3))
    assert [len(mask) for mask in answer["masks"]] == [3, 3]
    assert all(handler.loaded.processor.mask_token in one["sequence"] for mask in answer["masks"] for one in mask)


def test_masks_beyond_the_limit_are_left_out(handler: Handler[Any], model: Path) -> None:
    (answer,) = answers(handler, [text := "the <mask> " + "good " * 100 + "<mask>"])
    assert isinstance(answer, dict)
    assert (len(answer["masks"]), answer["truncated"]) == (1, True)
    assert close(answer, reference(model, text, 3))


@pytest.mark.parametrize(
    ("top_k", "targets"),
    [
        (5, ["film", "movie"]),
        (1, ["film", "movie", " film", "battery"]),
        (2, ["movie", "movie", "unheard-of", "goodfilm", ""]),
        (9, ["日"]),
    ],
)
def test_targets(top_k: int, targets: list[str], model: Path) -> None:
    """Known, repeated, unknown and empty ones: as the pipeline has them."""
    texts = [record["text"] for record in masked(sentences(20, seed=1))]
    found = answers(handler_of(model, top_k=top_k, targets=targets), texts)
    assert close(found, [reference(model, text, top_k, targets) for text in texts])


def test_targets_in_a_job(bert: Path, settings: Settings, tmp_path: Path) -> None:
    records = masked(sentences(10))
    params = {"targets": ["good", "bad"]}
    rows = run_case(Case(TASK, bert, records, params, lambda r: r, SCHEMA), settings, tmp_path, records)
    expected = [reference(bert, record["text"], 5, ["good", "bad"]) for record in records]
    assert close([row["prediction"] for row in rows], expected)


def test_targets_without_any_token_fail_the_job(bert: Path) -> None:
    with pytest.raises(Permanent, match=r"params\.targets: the model has no token for any of '', ' '"):
        handler_of(bert, targets=["", " "])


def test_top_k_beyond_the_vocabulary_is_all_of_it(bert: Path) -> None:
    handler = handler_of(bert, top_k=1_000_000)
    (answer,) = answers(handler, ["a [MASK] film"])
    assert isinstance(answer, dict)
    (mask,) = answer["masks"]
    assert len({one["token"] for one in mask}) == handler.loaded.model.config.vocab_size
    assert sum(one["score"] for one in mask) == pytest.approx(1)


def test_only_the_masks_leave_the_device(handler: Handler[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the model calls its widest layer in a way that lets it be spared the rest."""
    pieces = [one for (one,) in pieces_of(handler, text=["a [MASK] film", "<mask> and <mask>, very long"])]
    outputs = infer(handler, pieces)
    head = handler.loaded.model.get_output_embeddings()
    assert not head._forward_pre_hooks
    monkeypatch.setattr(handler.loaded.model, "get_output_embeddings", torch.nn.Identity)
    others = infer(handler, pieces)
    assert [output.shape for output in outputs] == [(2, 1, 3), (2, 2, 3)]
    assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(outputs, others, strict=True))


def test_a_tokenizer_that_pads_on_the_left_changes_nothing(tmp_path: Path) -> None:
    folder = make_masked_lm(tmp_path / "model")
    texts = ["a [MASK] film", "the <mask> was very very long and it was [MASK]"]
    expected = answers(handler_of(folder), texts)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    assert close(answers(handler_of(folder), texts), expected)


def test_no_number_is_no_answer(handler: Handler[Any]) -> None:
    (pieces,) = pieces_of(handler, text=["a [MASK] film"])
    with pytest.raises(RecordError) as caught:
        handler.finish(pieces, [np.full((2, 1, 3), np.nan, np.float32)])
    assert caught.value.code == "not_finite"


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    folder = make_masked_lm(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(Permanent, match="no mask token"):
        handler_of(folder)


@pytest.mark.parametrize(
    "params", [{"top_k": 0}, {"top_k": "5"}, {"targets": []}, {"targets": "good"}, {"targets": [1]}, {"target": ["a"]}]
)
def test_bad_parameters_are_refused_by_name(params: dict[str, Any]) -> None:
    assert [name.startswith(f"params.{next(iter(params))}") for name in problems(TASK, params)] == [True]


part = st.text(st.characters(codec="utf-8"), max_size=MAX_LENGTH * 3 // 2)


@given(st.lists(st.tuples(part, st.sampled_from(["", "[MASK]", "<mask>"]), part), min_size=1, max_size=8))
@a_few
def test_any_unicode_at_any_length(model: Path, handler: Handler[Any], parts: list[tuple[str, str, str]]) -> None:
    texts = ["".join(one) for one in parts]
    for text, answer in zip(texts, answers(handler, texts), strict=True):
        assert close(but_for_ties(answer), but_for_ties(reference(model, text, 3))), text


def but_for_ties(answer: Any) -> Any:
    """An answer without the candidates that are as probable as the last one: rounding decides which of them is last."""
    if not isinstance(answer, dict):
        return answer
    return answer | {
        "masks": [
            [[one["score"] for one in mask], [one for one in mask if one["score"] > mask[-1]["score"] + 1e-6]]
            for mask in answer["masks"]
        ]
    }
