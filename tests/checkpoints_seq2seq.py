"""Tiny checkpoints of sequence to sequence: BART, T5, mBART and Marian, sharpened so that near-ties don't flip."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES

from tests.checkpoints import MAX_LENGTH, WORDS, byte_level

#: T5's entries, in the order that a saved configuration has them.
TASKS: dict[str, Any] = {
    "summarization": {
        "prefix": "summarize: ",
        "num_beams": 3,
        "max_length": 12,
        "min_length": 4,
        "length_penalty": 2.0,
    },
    "translation_de_to_en": {"prefix": "translate German to English: ", "num_beams": 2, "max_length": 9},
    "translation_en_to_de": {
        "prefix": "translate English to German: ",
        "num_beams": 3,
        "max_length": 11,
        "early_stopping": True,
    },
    "translation_en_to_fr": {"prefix": "translate English to French: ", "num_beams": 2, "max_length": 9},
}
_SIDES = {
    f"{side}_{name}": number
    for side in ("encoder", "decoder")
    for name, number in {"layers": 2, "attention_heads": 2, "ffn_dim": 64}.items()
}


def make_seq2seq(folder: Path, architecture: str, generation: dict[str, Any] | None = None, **config: Any) -> Path:
    """A model in `folder`: bart, t5, mbart or marian. `generation` is written into its generation configuration."""
    torch.manual_seed(17)
    tokenizer: Any = multilingual() if architecture == "mbart" else byte_level()
    tokenizer.model_max_length = MAX_LENGTH
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "pad_token_id": pad,
        "eos_token_id": end,
        "decoder_start_token_id": end if architecture in ("bart", "mbart") else pad,
    }
    if architecture == "marian":
        settings |= {"forced_eos_token_id": None}  # by default the id of Marian's own vocabularies
    if architecture != "t5":
        settings |= _SIDES | {"d_model": 32, "init_std": 0.3, "max_position_embeddings": MAX_LENGTH}
        settings |= {"bos_token_id": tokenizer.bos_token_id}
    model: Any
    if architecture == "bart":
        model = BartForConditionalGeneration(BartConfig(**(settings | config)))
    elif architecture == "mbart":
        model = MBartForConditionalGeneration(MBartConfig(**(settings | config)))
    elif architecture == "marian":
        model = MarianMTModel(MarianConfig(**(settings | config)))
    else:
        shape = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "initializer_factor": 3.0}
        model = T5ForConditionalGeneration(T5Config(**(shape | settings | {"task_specific_params": TASKS} | config)))
    sharpen(model, end, 2.0 if architecture == "mbart" else 4.0, 4.0)
    model.generation_config.update(**(generation or {}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sharpen(model: Any, end: int, bias: float, factor: float) -> None:
    """Make the encoder count for more, and the end token likelier, so that some texts end before the limit."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "encoder_attn" in name or "EncDecAttention" in name:
                weight.mul_(factor)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias[0, end] = bias


def multilingual() -> MBartTokenizer:
    """A tokenizer with language codes: each word of the tests' sentences, and each letter and digit."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocab += [(f"▁{word}", -3.0) for word in dict.fromkeys(WORDS)]
    known = {piece for piece, _ in vocab}
    vocab += [(letter, -6.0) for letter in letters if letter not in known]
    vocab += [(code, 0.0) for code in FAIRSEQ_LANGUAGE_CODES] + [("<mask>", 0.0)]
    return MBartTokenizer(vocab=vocab)
