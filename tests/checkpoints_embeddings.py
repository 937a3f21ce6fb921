"""Tiny checkpoints for embeddings and zero-shot classification: encoders, and BERT and BART heads of entailment."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    RobertaConfig,
    RobertaModel,
)

from tests.checkpoints import MAX_LENGTH, SMALL, byte_level, wordpiece

NLI = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}


def make_nli(folder: Path, architecture: str = "bert", labels: dict[int, str] = NLI) -> Path:
    """A model of entailment in `folder`: bert or bart."""
    torch.manual_seed(11)
    tokenizer = byte_level() if architecture == "bart" else wordpiece()
    tokenizer.model_max_length = MAX_LENGTH
    names = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}}
    settings: dict[str, Any] = names | {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": MAX_LENGTH,
    }
    model: Any
    if architecture == "bart":
        shape = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in _SIDE.items()}
        ends = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "decoder_start_token_id": tokenizer.eos_token_id,
        }
        model = BartForSequenceClassification(BartConfig(d_model=32, init_std=0.3, **(shape | ends | settings)))
        last = model.classification_head.out_proj
    else:
        model = BertForSequenceClassification(BertConfig(initializer_range=0.3, **(SMALL | settings)))
        last = model.classifier
    with torch.no_grad():
        last.weight.mul_(5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


_SIDE = {"layers": 2, "attention_heads": 2, "ffn_dim": 64}


def make_encoder(folder: Path, architecture: str = "bert", **pooling: Any) -> Path:
    """An encoder in `folder`: bert, roberta, or masked (a BERT with the head of masked language modelling).

    `pooling` is the content of its sentence-transformers pooling configuration; see `follow`.
    """
    torch.manual_seed(13)
    tokenizer = byte_level() if architecture == "roberta" else wordpiece()
    tokenizer.model_max_length = MAX_LENGTH
    settings = SMALL | {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.3,
        "max_position_embeddings": MAX_LENGTH + 2 * (architecture == "roberta"),
    }
    model: Any
    if architecture == "roberta":
        model = RobertaModel(RobertaConfig(type_vocab_size=1, **settings))
    elif architecture == "masked":
        model = BertForMaskedLM(BertConfig(**settings))
    else:
        model = BertModel(BertConfig(**settings))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if pooling:
        follow(folder, ["Transformer", "Pooling", "Normalize"], pooling)
    return folder


def follow(folder: Path, kinds: list[str], pooling: dict[str, Any], **files: dict[str, Any]) -> None:
    """Write the files that sentence-transformers follows; `files` are others by their names."""
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": SMALL["hidden_size"]} | pooling)
    )
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
