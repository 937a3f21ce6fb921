"""Tiny checkpoints of heads that answer for each token: masked language models and token classifiers."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForTokenClassification,
)

from tests.checkpoints import MAX_LENGTH, SMALL, byte_level, wordpiece

TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC", 5: "MISC"}
#: Wide enough at first, that answers differ from token to token.
_WIDE = {"initializer_range": 0.3}
# As in RoBERTa's own checkpoints: two positions more than tokens, since positions begin behind padding's.
_ROBERTA = SMALL | _WIDE | {"max_position_embeddings": MAX_LENGTH + 2, "type_vocab_size": 1}


def make_masked_lm(folder: Path, architecture: str = "bert") -> Path:
    """A masked language model in `folder`: bert, distilbert or roberta."""
    torch.manual_seed(7)
    tokenizer = byte_level() if architecture == "roberta" else wordpiece(uses_types=architecture == "bert")
    size = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    model: Any
    if architecture == "bert":
        model = BertForMaskedLM(BertConfig(**(SMALL | _WIDE | size | {"max_position_embeddings": MAX_LENGTH})))
        norm = model.cls.predictions.transform.LayerNorm
    elif architecture == "roberta":
        model = RobertaForMaskedLM(RobertaConfig(**(_ROBERTA | size)))
        norm = model.lm_head.layer_norm
    else:
        shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": MAX_LENGTH}
        model = DistilBertForMaskedLM(DistilBertConfig(**(shape | _WIDE | size)))
        norm = model.vocab_layer_norm
    with torch.no_grad():  # the output weights themselves are the input's embeddings too
        norm.weight.mul_(3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tagger(folder: Path, architecture: str = "bert") -> Path:
    """A token classifier in `folder`, of people, places and a label without B- and I-: bert or roberta."""
    torch.manual_seed(7)
    tokenizer = byte_level() if architecture == "roberta" else wordpiece()
    labels = {"id2label": TAGS, "label2id": {name: i for i, name in TAGS.items()}}
    settings = labels | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    model: Any
    if architecture == "roberta":
        model = RobertaForTokenClassification(RobertaConfig(**(_ROBERTA | settings)))
    else:
        shape = SMALL | _WIDE | settings | {"max_position_embeddings": MAX_LENGTH}
        model = BertForTokenClassification(BertConfig(**shape))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
