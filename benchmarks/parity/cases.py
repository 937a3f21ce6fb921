"""What is compared: tiny checkpoints that both versions of Transformers can read, texts, and parameters."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.parity.marian import make_opus
from tests.checkpoints import MAX_LENGTH
from tests.checkpoints_qa import make_reader
from tests.checkpoints_seq2seq import TASKS, make_seq2seq
from tests.texts import ODD, sentences

#: Texts for sequence to sequence, up to three times what a model reads, and the few that a slow run gets.
TEXTS = [*ODD, "<pad> good <pad>", ">>fra<< Good Film, BAD movie!", *sentences(24, seed=41, longest=3 * MAX_LENGTH)]
FEW = [*TEXTS[3:6], *TEXTS[-5:]]
READERS = ("bert", "distilbert", "roberta")
QA_PARAMS: list[dict[str, Any]] = [
    {},
    {"top_k": 3},
    {"top_k": 5, "handle_impossible_answer": True},
    {"max_seq_len": 40, "doc_stride": 10, "max_answer_len": 4, "top_k": 2},
    {"handle_impossible_answer": True, "doc_stride": 20},
]
#: As facebook/bart-large-cnn has it, but for the lengths.
CNN: dict[str, Any] = {
    "num_beams": 4,
    "max_length": 30,
    "min_length": 8,
    "length_penalty": 2.0,
    "early_stopping": True,
    "no_repeat_ngram_size": 3,
    "forced_bos_token_id": 0,
}


@dataclass(frozen=True)
class Run:
    """Records of one task on one model, with the job's `params` and the pipeline's `options` that say the same.

    `spelled` are options that say outright what the model's files or the job say already. A record that is equal only
    with them is explained by `why`.
    """

    task: str
    pipeline: str
    name: str
    model: str
    params: dict[str, Any]
    options: dict[str, Any]
    records: list[dict[str, str]]
    spelled: dict[str, Any] | None = None
    why: str = ""


OWN_LENGTH = "the pipeline's default of 256 new tokens goes before the model's own length"
JOB_LENGTH = "the pipeline's default of 256 new tokens goes before the call's max_length"
OWN_BEAMS = "the pipeline's default of 4 beams goes before the model's own number"


def readable(folder: Path) -> str:
    """The folder, its tokenizer's configuration in the words that Transformers 4 has too."""
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    if config["tokenizer_class"] == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "extra_special_tokens" in config:
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    file.write_text(json.dumps(config))
    return str(folder)


def runs(folder: Path) -> list[Run]:
    """Everything that is compared; the checkpoints are made in the folder."""
    return [*question_answering(folder), *summarization(folder), *translation(folder)]


def questions() -> list[dict[str, str]]:
    """Contexts of one window to a dozen, odd texts at both edges, CLS tokens written out; questions of all kinds."""
    source = random.Random(1)
    contexts = [text for text in ODD if text.strip()]
    contexts += [f"{text}the good film {other}" for text in ODD for other in source.sample(ODD, 2)]
    longer = sentences(150, seed=21, longest=200)
    contexts += [text.capitalize() if i % 3 else text for i, text in enumerate(longer)]
    asked = [text for text in ODD if text.strip() and len(text) < 200] + sentences(400, seed=22, longest=8)
    pairs = list(zip(source.sample(asked, len(contexts)), contexts, strict=True))
    pairs += [("is it good", f"{text} [CLS] film") for text in sentences(12, seed=31, longest=120)]
    pairs += [("[CLS] good", text) for text in sentences(12, seed=32, longest=120)]
    pairs += [("", "a good film"), (" \n", "a good film"), ("is it good", ""), ("is it good", " ")]
    pairs += [("good " * 90, "a film " * 90), ("good " * 50, "a film " * 3)]
    return [{"question": question, "context": context} for question, context in pairs]


def question_answering(folder: Path) -> Iterator[Run]:
    records = questions()
    for name in READERS:
        model = readable(make_reader(folder / f"qa-{name}", name, model_max_length=MAX_LENGTH))
        for params in QA_PARAMS:
            yield Run("question-answering", "question-answering", name, model, params, params, records)


def texts(some: list[str]) -> list[dict[str, str]]:
    return [{"text": text} for text in some]


def summarization(folder: Path) -> Iterator[Run]:
    def run(name: str, params: dict[str, Any], options: dict[str, Any] | None = None, **more: Any) -> Run:
        records = texts(FEW if more.pop("few", False) or "why" in more else TEXTS)
        said = params if options is None else options
        return Run("summarization", "summarization", name, models[name], params, said, records, **more)

    made: dict[str, tuple[str, dict[str, Any] | None, dict[str, Any]]] = {
        "BART": ("bart", None, {}),
        "BART as for CNN": ("bart", CNN, {}),
        "BART, prefix": ("bart", None, {"prefix": "in short: "}),
        "BART, 2 beams": ("bart", {"num_beams": 2, "max_length": 12}, {}),
        "BART, 12 new": ("bart", {"max_new_tokens": 12}, {}),
        "BART, long": ("bart", None, {"max_position_embeddings": 300}),
        "T5": ("t5", None, {}),
        "T5, no entries": ("t5", None, {"task_specific_params": None}),
    }
    models = {
        name: readable(make_seq2seq(folder / f"sum-{index}", kind, generation, **config))
        for index, (name, (kind, generation, config)) in enumerate(made.items())
    }
    yield run("BART", {"max_new_tokens": 12, "num_beams": 1})
    yield run("BART", {"max_new_tokens": 12})
    yield run("BART", {"max_new_tokens": 16, "num_beams": 3, "length_penalty": 4.0})
    yield run("BART", {"max_new_tokens": 16, "num_beams": 3, "length_penalty": -4.0})
    yield run("BART", {"max_new_tokens": 12, "min_length": 9, "num_beams": 2})
    yield run("BART as for CNN", {})
    yield run("BART as for CNN", {"max_length": 14, "min_length": 12, "num_beams": 2})
    yield run("BART, prefix", {"max_new_tokens": 8})
    yield run("BART, long", {}, few=True)
    entry = {"max_new_tokens": TASKS["summarization"]["max_length"] - 1}
    yield run("T5", {}, entry)
    yield run("T5", {"max_new_tokens": 14, "num_beams": 1, "min_length": 0})
    yield run("T5", {"max_new_tokens": 20, "num_beams": 2, "length_penalty": -1.0})
    yield run("T5, no entries", {}, few=True)
    yield run("T5", {}, spelled=entry, why=OWN_LENGTH)
    yield run("T5", {"max_length": 8}, spelled={"max_new_tokens": 7}, why=JOB_LENGTH)
    yield run("BART, 2 beams", {}, spelled={"num_beams": 2}, why=OWN_BEAMS)
    yield run("BART, 12 new", {}, spelled={"max_new_tokens": 12}, why=OWN_LENGTH)


def translation(folder: Path) -> Iterator[Run]:
    def run(name: str, languages: tuple[str, ...], params: dict[str, Any], **more: Any) -> Run:
        records = texts(FEW if "why" in more else TEXTS)
        given = dict(zip(("src_lang", "tgt_lang"), languages, strict=False))
        options = params if name.startswith("T5") else given | params
        named = "translation_{}_to_{}".format(*languages) if name == "T5" and languages else "translation"
        spelled = more.pop("said", {})
        return Run("translation", named, name, models[name], given | params, options | spelled, records, **more)

    made: dict[str, tuple[str, dict[str, Any] | None, dict[str, Any]]] = {
        "T5": ("t5", None, {}),
        "T5, no entries": ("t5", None, {"task_specific_params": None}),
        "mBART": ("mbart", None, {}),
        "Marian": ("marian", None, {}),
    }
    models = {
        name: readable(make_seq2seq(folder / f"translate-{index}", kind, generation, **config))
        for index, (name, (kind, generation, config)) in enumerate(made.items())
    }
    models["Marian as OPUS"] = str(make_opus(folder / "opus"))
    for languages in (("en", "fr"), ("en", "de"), ("de", "en"), ()):
        entry = TASKS["translation_{}_to_{}".format(*(languages or ("de", "en")))]
        yield run("T5", languages, {}, said={"max_new_tokens": entry["max_length"] - 1})
    yield run("T5", ("en", "fr"), {"max_new_tokens": 12, "num_beams": 1})
    yield run("T5", ("en", "fr"), {}, spelled={"max_new_tokens": 8}, why=OWN_LENGTH)
    yield run("T5, no entries", (), {"max_new_tokens": 9})
    yield run("mBART", ("de_DE", "ro_RO"), {"max_new_tokens": 8, "num_beams": 1})
    yield run("mBART", ("en_XX", "fr_XX"), {"max_new_tokens": 16})
    yield run("mBART", ("fr_XX", "en_XX"), {"max_new_tokens": 10, "num_beams": 2, "min_length": 6})
    yield run("Marian", (), {"max_new_tokens": 8, "num_beams": 1})
    yield run("Marian", (), {"max_new_tokens": 16})
    yield run("Marian as OPUS", (), {})
    yield run("Marian as OPUS", (), {"max_length": 10, "num_beams": 2})
