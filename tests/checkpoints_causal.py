"""Tiny causal language models of several kinds of memory, sharpened so that answers differ."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    XLNetConfig,
    XLNetLMHeadModel,
    XLNetTokenizer,
)

from tests.checkpoints import MAX_LENGTH, WORDS

#: Roles by turns, as many models' templates have it, with the token that begins a text.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if loop.index0 and messages[loop.index0 - 1]['role'] == message['role'] %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<{{ message['role'] }}>{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_causal(
    folder: Path, architecture: str, generation: dict[str, Any] | None = None, length: int = MAX_LENGTH, **config: Any
) -> Path:
    """A model in `folder`: gpt2, xlnet, llama, mistral (which looks back 8 tokens) or mamba (which has a state).

    `generation` is written into its generation configuration. There are `length` positions, but for XLNet and Mamba.
    GPT-2 and XLNet have no chat template and no token before each text, GPT-2 no padding token either.
    """
    torch.manual_seed(23)
    tokenizer: Any = pieces_of_words() if architecture == "xlnet" else bytes_of_text(architecture, length)
    settings: dict[str, Any] = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    settings |= {
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }
    model: Any
    if architecture == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": length, "initializer_range": 0.3}
        model = GPT2LMHeadModel(GPT2Config(**(shape | settings | config)))
    elif architecture == "xlnet":
        shape = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "initializer_range": 0.3}
        model = XLNetLMHeadModel(XLNetConfig(**(shape | settings | config)))
    elif architecture == "mamba":
        shape = {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 2, "initializer_range": 0.3}
        model = FalconMambaForCausalLM(FalconMambaConfig(**(shape | settings | config)))
    else:
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        shape |= {"num_key_value_heads": 2, "max_position_embeddings": length, "initializer_range": 0.3}
        if architecture == "mistral":
            model = MistralForCausalLM(MistralConfig(**(shape | settings | {"sliding_window": 8} | config)))
        else:
            model = LlamaForCausalLM(LlamaConfig(**(shape | settings | config)))
    sharpen(model, tokenizer.eos_token_id, 4.0 if architecture == "gpt2" else 2.5)
    model.generation_config.update(**(generation or {}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sharpen(model: Any, end: int, factor: float) -> None:
    """Give the head wide weights of its own, the widest to the end token, so that some texts end before their limit."""
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.weight.normal_(std=0.6)
        head.weight[end] *= factor


def bytes_of_text(architecture: str, length: int) -> Any:
    """GPT-2's kind of tokenizer, where one token begins and ends texts, or else Llama's, with one before each text."""
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    llama = architecture != "gpt2"
    special = ["<s>", "</s>", "<pad>"] if llama else ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    names = {"bos_token": special[0], "eos_token": special[llama]}
    if llama:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
        )
        names |= {"pad_token": "<pad>", "chat_template": TEMPLATE}
    fast: Any = PreTrainedTokenizerFast
    inputs = ["input_ids", "attention_mask"]
    return fast(tokenizer_object=tokenizer, model_max_length=length, model_input_names=inputs, **names)


def pieces_of_words() -> Any:
    """XLNet's tokenizer: the words of the tests' sentences, letters and digits; two special tokens behind each text."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]
    vocab = [(name, 0.0) for name in special] + [("▁", -2.0)] + [(f"▁{word}", -3.0) for word in dict.fromkeys(WORDS)]
    known = {piece for piece, _ in vocab}
    tokenizer: Any = XLNetTokenizer
    return tokenizer(vocab=vocab + [(letter, -6.0) for letter in letters if letter not in known])
