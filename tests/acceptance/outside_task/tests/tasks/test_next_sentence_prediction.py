"""next-sentence-prediction against a plain one-record loop."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case
from transformers import AutoModelForNextSentencePrediction, AutoTokenizer, BertConfig, BertForNextSentencePrediction

from schemas.tasks.next_sentence_prediction import TASK
from tests.checkpoints import MAX_LENGTH, SMALL, wordpiece
from tests.texts import ODD, sentences


@cache
def plain(model: Path) -> tuple[Any, Any]:
    return AutoTokenizer.from_pretrained(model), AutoModelForNextSentencePrediction.from_pretrained(model).eval()


def reference(model: Path, record: dict[str, Any]) -> dict[str, Any]:
    tokenizer, network = plain(model)
    inputs = tokenizer(record["text"], record["next"] or None, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        score = float(network(**inputs).logits[0].softmax(-1)[0])
    return {"follows": score >= 0.5, "score": score}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(8)
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = wordpiece()
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": MAX_LENGTH, "initializer_range": 0.3}
    network = BertForNextSentencePrediction(BertConfig(**(SMALL | size)))
    with torch.no_grad():
        network.cls.seq_relationship.weight.mul_(3)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


RECORDS = [{"text": a, "next": b} for a, b in zip([*ODD, *sentences(60)], [*sentences(60, seed=1), *ODD], strict=True)]


@pytest.fixture
def case(model: Path) -> Case:
    return Case(TASK, model, RECORDS, {}, lambda record: reference(model, record), "1:8dbb44c75023")


def test_the_answers_differ(model: Path) -> None:
    assert {reference(model, record)["follows"] for record in RECORDS} == {True, False}
