"""Tiny checkpoints that answer questions: BERT, DistilBERT and RoBERTa with a head for spans."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    RobertaConfig,
    RobertaForQuestionAnswering,
)

from tests.checkpoints import MAX_LENGTH, SMALL, byte_level, wordpiece

#: What the weights of the head are multiplied by: so that near-ties are rare.
SHARP = 3


def make_reader(folder: Path, architecture: str = "bert", **tokenizer_options: Any) -> Path:
    """A model that finds answers in a text, in `folder`: bert, distilbert or roberta."""
    torch.manual_seed(7)
    tokenizer = byte_level() if architecture == "roberta" else wordpiece(uses_types=architecture == "bert")
    for name, value in tokenizer_options.items():
        setattr(tokenizer, name, value)
    size = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "initializer_range": 0.3}
    model: Any
    if architecture == "bert":
        model = BertForQuestionAnswering(BertConfig(**(SMALL | size | {"max_position_embeddings": MAX_LENGTH})))
    elif architecture == "roberta":
        # As in RoBERTa's own checkpoints: two positions more than tokens, since positions begin behind padding's.
        settings = SMALL | size | {"max_position_embeddings": MAX_LENGTH + 2, "type_vocab_size": 1}
        model = RobertaForQuestionAnswering(RobertaConfig(**settings))
    else:
        shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": MAX_LENGTH}
        model = DistilBertForQuestionAnswering(DistilBertConfig(**(shape | size)))
    with torch.no_grad():
        model.qa_outputs.weight.mul_(SHARP)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
