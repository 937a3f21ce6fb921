"""Tiny checkpoints of real architectures, made on the spot: hidden size 32, a tokenizer trained on a few words.

Heads are sharpened, so that answers differ and near-ties don't flip.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

_WORDS = """the a good bad film movie was is not very really dull bright long short and but of in to it this that
battery died works great value night shift worker job data table row column model text label score batch shard part"""
WORDS = _WORDS.split()
MAX_LENGTH = 64
SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
LABELS = {0: "NEGATIVE", 1: "NEUTRAL", 2: "POSITIVE"}


def wordpiece(uses_types: bool = True) -> Any:
    """A BERT-like tokenizer, with token types or, as DistilBERT has it, without."""
    # Written out: a trained vocabulary is another one in each process.
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    signs = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
    pieces = [*special, *signs, *(f"##{sign}" for sign in signs), *(word for word in WORDS if len(word) > 1)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer: Any = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", tokenizer.token_to_id("[SEP]")), ("[CLS]", tokenizer.token_to_id("[CLS]"))
    )
    tokenizer.decoder = decoders.WordPiece()
    names = ["input_ids", "token_type_ids", "attention_mask"]
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=names if uses_types else [names[0], names[2]],
    )


def byte_level() -> Any:
    """A RoBERTa-like tokenizer: bytes, so that any text has tokens of its own."""
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>"))
    )
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )


def make_classifier(folder: Path, architecture: str = "bert", **config: Any) -> Path:
    """A text classifier of three labels in `folder`: bert, distilbert or roberta."""
    torch.manual_seed(7)
    labels: dict[str, Any] = {
        "id2label": LABELS,
        "label2id": {name: i for i, name in LABELS.items()},
        "initializer_range": 0.3,
    }
    tokenizer = byte_level() if architecture == "roberta" else wordpiece(uses_types=architecture == "bert")
    size: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    model: Any
    if architecture == "bert":
        settings = SMALL | labels | size | {"max_position_embeddings": MAX_LENGTH} | config
        model = BertForSequenceClassification(BertConfig(**settings))
    elif architecture == "roberta":
        # As in RoBERTa's own checkpoints: two positions more than tokens, since positions begin behind padding's.
        settings = SMALL | labels | size | {"max_position_embeddings": MAX_LENGTH + 2, "type_vocab_size": 1} | config
        model = RobertaForSequenceClassification(RobertaConfig(**settings))
    else:
        shape: dict[str, Any] = {
            "dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 64,
            "max_position_embeddings": MAX_LENGTH,
        }
        model = DistilBertForSequenceClassification(DistilBertConfig(**(shape | labels | size | config)))
    sharpen(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sharpen(model: Any) -> None:
    """Multiply the weights of the head by ten."""
    head = model.classifier
    last = getattr(head, "out_proj", head)
    with torch.no_grad():
        last.weight.mul_(10)


def make_masked(folder: Path) -> Path:
    """A BERT for another task."""
    tokenizer = wordpiece()
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **SMALL)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
