"""A tiny checkpoint with the tokenizer that the Marian models of the hub have: one SentencePiece model a language."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from tests.checkpoints import MAX_LENGTH, WORDS
from tests.checkpoints_seq2seq import sharpen
from tests.texts import sentences

SHAPE: dict[str, Any] = {
    "d_model": 32,
    "init_std": 0.3,
    "scale_embedding": True,
    "max_position_embeddings": MAX_LENGTH,
    **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")},
}


def make_opus(folder: Path) -> Path:
    """As Helsinki-NLP's models are: end token 0, padding the last id, from which the decoder starts."""
    folder.mkdir(parents=True)
    pieces: list[str] = []
    for side, words in (("source", WORDS), ("target", [word[::-1] for word in WORDS])):
        file = folder / f"{side}.spm"
        file.write_bytes(_trained(words))
        model: Any = sentencepiece.SentencePieceProcessor(model_file=str(file))
        pieces += [model.id_to_piece(id) for id in range(3, model.get_piece_size())]
    vocabulary = ["</s>", "<unk>", *dict.fromkeys(pieces), ">>fra<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: id for id, piece in enumerate(vocabulary)}))
    source, target, vocab = (str(folder / name) for name in ("source.spm", "target.spm", "vocab.json"))
    tokenizer: Any = MarianTokenizer(source, target, vocab, model_max_length=MAX_LENGTH)
    torch.manual_seed(17)
    pad = tokenizer.pad_token_id
    settings: dict[str, Any] = SHAPE | {
        "vocab_size": len(vocabulary),
        "pad_token_id": pad,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "decoder_start_token_id": pad,
        "forced_eos_token_id": 0,
    }
    network: Any = MarianMTModel(MarianConfig(**settings))
    sharpen(network, 0, 4.0, 4.0)
    network.generation_config.update(num_beams=4, max_length=24, bad_words_ids=[[pad]], forced_eos_token_id=0)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _trained(words: list[str]) -> bytes:
    """A SentencePiece model of sentences of these words, upper case and accents among them."""
    renamed = dict(zip(WORDS, words, strict=True))
    lines = [" ".join(renamed.get(word, word) for word in line.split()) for line in sentences(300, seed=51)]
    lines += [line.upper() for line in lines[:60]] + ["é è à ü ö ä ß 0123456789 .,!?'-"] * 5
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, vocab_size=300, hard_vocab_limit=False, minloglevel=2
    )
    return written.getvalue()
