"""Every task over text by the command line, from Parquet to Parquet, on each architecture that it names."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.settings import Settings
from schemas.tasks import all_tasks
from tests.acceptance.cli import nightshift, worker
from tests.checkpoints import make_classifier
from tests.checkpoints_causal import make_causal
from tests.checkpoints_embeddings import make_encoder, make_nli
from tests.checkpoints_qa import make_reader
from tests.checkpoints_seq2seq import make_seq2seq
from tests.checkpoints_tokens import make_masked_lm, make_tagger
from tests.integration.harness import read_output

TEXTS = ["A good film.", "the bad, long and dull one was not good", "Not very bright: a short film!", "night shift"]


@dataclass(frozen=True)
class Kit:
    """A task with a checkpoint, its parameters, and what its table has beside `text`."""

    task: str
    make: Callable[[Path], Path]
    params: tuple[str, ...] = ()
    columns: dict[str, list[Any]] = field(default_factory=dict)


def of(task: str, make: Any, architecture: str, *params: str, **columns: list[Any]) -> Kit:
    return Kit(task, partial(make, architecture=architecture), params, columns)


PAIRS = {"text_pair": ["A bad film.", "", "the night", "x"]}
QUESTIONS = {"question": ["Which film?"] * 4, "context": [f"It was {text} to me." for text in TEXTS]}
CHATS = {"messages": [[{"role": "user", "content": text}] for text in TEXTS]}
FEW = "max_new_tokens=4"

KITS = {
    "sentiment by BERT": of("text-classification", make_classifier, "bert"),
    "pairs by BERT": of("text-classification", make_classifier, "bert", **PAIRS),
    "sentiment by DistilBERT": of("text-classification", make_classifier, "distilbert"),
    "sentiment by RoBERTa": of("text-classification", make_classifier, "roberta"),
    "entities by BERT": of("ner", make_tagger, "bert"),
    "answers by BERT": of("question-answering", make_reader, "bert", **QUESTIONS),
    "answers by DistilBERT": of("question-answering", make_reader, "distilbert", **QUESTIONS),
    "masks by BERT": of("fill-mask", make_masked_lm, "bert", text=[f"{text} [MASK]" for text in TEXTS]),
    "masks by RoBERTa": of("fill-mask", make_masked_lm, "roberta", text=[f"{text} <mask>" for text in TEXTS]),
    "next token by GPT-2": of("next-token", make_causal, "gpt2"),
    "next token by XLNet": of("next-token", make_causal, "xlnet"),
    "text by GPT-2": of("text-generation", make_causal, "gpt2", FEW),
    "text by XLNet": of("text-generation", make_causal, "xlnet", FEW, "prefix=a film was"),
    "chat by Llama": of("text-generation", make_causal, "llama", FEW, text=[], **CHATS),
    "summaries by BART": of("summarization", make_seq2seq, "bart", FEW),
    "summaries by T5": of("summarization", make_seq2seq, "t5", FEW),
    "translation by T5": of("translation", make_seq2seq, "t5", FEW, "src_lang=en", "tgt_lang=fr"),
    "translation by mBART": of("translation", make_seq2seq, "mbart", FEW, "src_lang=de_DE", "tgt_lang=ro_RO"),
    "translation by Marian": of("translation", make_seq2seq, "marian", FEW),
    "labels by BART": of("zero-shot-classification", make_nli, "bart", 'labels=["film", "night"]'),
    "embeddings by BERT": of("embeddings", make_encoder, "bert"),
}


def test_every_task_over_text_is_here() -> None:
    tasks = {name: task.id for task in all_tasks().values() for name in (task.id, *task.aliases)}
    assert {tasks[kit.task] for kit in KITS.values()} == {task.id for task in all_tasks().values() if not task.media}


@pytest.mark.timeout(600)
def test_every_text_task_from_parquet_to_parquet(settings: Settings, tmp_path: Path) -> None:
    def run(name: str) -> list[dict[str, Any]]:
        kit, folder = KITS[name], tmp_path / name
        folder.mkdir()
        columns = {column: values for column, values in ({"text": TEXTS} | kit.columns).items() if values}
        pq.write_table(pa.table({"id": range(len(TEXTS)), **columns}), folder / "in.parquet")
        options = ["--task", kit.task, "--model", kit.make(folder / "model"), "--input", folder / "in.parquet"]
        params = [option for param in kit.params for option in ("--param", param)]
        done = nightshift("run", *options, "--output", folder / "out", *params)
        assert done.code == 0, (name, done)
        return read_output(str(folder / "out"))

    with worker(tmp_path / "worker.log", "--processes", "2"), ThreadPoolExecutor(2) as pool:
        runs = {name: pool.submit(run, name) for name in KITS}
        for name, future in runs.items():
            rows = future.result()
            assert [row["id"] for row in rows] == list(range(len(TEXTS))), name
            assert all(row["error"] is None and row["prediction"] is not None for row in rows), name
            assert [row["source_row"] for row in rows] == list(range(len(TEXTS)))
