"""Texts for tests: repeatable sentences of many lengths, and odd ones."""

import random

from tests.checkpoints import WORDS

ODD = [
    "",
    " ",
    "\n\t",
    "a",
    "😀 emoji 👩‍👩‍👧‍👦 family",
    "e\u0301 combining a\u0300\u0301\u0302",
    "שלום עולם right to left العربية",
    "日本語のテキスト",
    "null \x00 byte",
    "\u200b\u200d\ufeff invisible",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010fffd",
    "[MASK] [CLS] [SEP] <s> </s> <mask>",
    "x" * 5000,
    "good " * 300,
]


def sentences(count: int, seed: int = 0, longest: int = 90) -> list[str]:
    """So many sentences of one to `longest` words."""
    source = random.Random(seed)
    return [" ".join(source.choices(WORDS, k=source.randint(1, longest))) + f" {i}" for i in range(count)]
