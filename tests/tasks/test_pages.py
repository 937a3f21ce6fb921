"""The pages under docs/tasks are those of the schemas, and the specs under docs/examples run."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner
from transformers import BertConfig, BertForQuestionAnswering

from docs import task_pages as pages
from jobs.settings import Settings
from jobs.submission.resolve_model import model_kind
from jobs.submission.validate import with_full_uris
from schemas.job import JobSpec, parse_spec
from schemas.manifest import JobStatus
from schemas.task import Column, Group, Task, TaskParams, field
from tests.checkpoints import SMALL, make_classifier, wordpiece
from tests.checkpoints_audio import make_spectrum_classifier
from tests.checkpoints_causal import make_causal
from tests.checkpoints_detection import make_detector, make_segmenter, make_semantic
from tests.checkpoints_embeddings import make_encoder, make_nli
from tests.checkpoints_seq2seq import make_seq2seq
from tests.checkpoints_speech import make_ctc, make_whisper
from tests.checkpoints_tokens import make_masked_lm, make_tagger
from tests.checkpoints_vision import make_depth_estimator, make_image_classifier, make_image_encoder
from tests.integration.harness import House, read_output

EXAMPLES = pages.DOCS / "examples"


def make_long_reader(folder: Path) -> Path:
    """A BERT that answers questions and reads 512 tokens: the small vocabulary spells most words out."""
    torch.manual_seed(7)
    tokenizer = wordpiece()
    tokenizer.model_max_length = 512
    BertForQuestionAnswering(BertConfig(vocab_size=len(tokenizer), **SMALL)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


#: What stands for a hub model in these tests: a tiny checkpoint of its architecture.
TINY: dict[str, Callable[[Path], Path]] = {
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": partial(make_classifier, architecture="distilbert"),
    "google-bert/bert-base-cased-finetuned-mrpc": make_classifier,
    "dbmdz/bert-large-cased-finetuned-conll03-english": make_tagger,
    "google-bert/bert-large-uncased-whole-word-masking-finetuned-squad": make_long_reader,
    "distilbert/distilroberta-base": partial(make_masked_lm, architecture="roberta"),
    "facebook/bart-large-mnli": partial(make_nli, architecture="bart"),
    "facebook/bart-large-cnn": partial(make_seq2seq, architecture="bart"),
    "google-t5/t5-base": partial(make_seq2seq, architecture="t5"),
    "openai-community/gpt2": partial(make_causal, architecture="gpt2"),
    "xlnet/xlnet-base-cased": partial(make_causal, architecture="xlnet"),
    "HuggingFaceTB/SmolLM2-135M-Instruct": partial(make_causal, architecture="llama", length=256),
    "MIT/ast-finetuned-audioset-10-10-0.4593": make_spectrum_classifier,
    "facebook/detr-resnet-50": make_detector,
    "facebook/mask2former-swin-small-coco-panoptic": make_segmenter,
    "nvidia/segformer-b0-finetuned-ade-512-512": make_semantic,
    "facebook/wav2vec2-base-960h": make_ctc,
    "openai/whisper-small": partial(make_whisper, window_s=30),
    "google/vit-base-patch16-224": make_image_classifier,
    "google/vit-base-patch16-224-in21k": make_image_encoder,
    "vinvino02/glpn-nyu": make_depth_estimator,
    "sentence-transformers/all-MiniLM-L6-v2": partial(make_encoder, pooling_mode_mean_tokens=True),
}

every_example = pytest.mark.parametrize(
    "file", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}"
)


def spec_of(file: Path, **changes: str) -> JobSpec:
    return parse_spec(yaml.safe_load(file.read_text(encoding="utf-8")) | changes)


def test_the_pages_are_those_of_the_schemas() -> None:
    assert not pages.stale(pages.pages()), "run `make docs`"


def test_check_names_a_stale_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(EXAMPLES, docs / "examples")
    monkeypatch.setattr(pages, "DOCS", docs)
    runner = CliRunner()
    assert runner.invoke(pages.main, []).exit_code == 0
    assert runner.invoke(pages.main, ["--check"]).exit_code == 0
    gone = docs / "tasks" / "gone.md"
    gone.write_text((docs / "tasks" / "fill-mask.md").read_text(encoding="utf-8"), encoding="utf-8")
    (docs / "tasks" / "fill-mask.md").write_text("old", encoding="utf-8")
    (docs / "tasks" / "by-hand.md").write_text("kept", encoding="utf-8")
    done = runner.invoke(pages.main, ["--check"])
    assert done.exit_code == 1
    assert done.output.strip().endswith("stale: docs/tasks/fill-mask.md, docs/tasks/gone.md")
    assert runner.invoke(pages.main, []).exit_code == 0
    assert not pages.stale(pages.pages())
    assert not gone.exists()
    assert (docs / "tasks" / "by-hand.md").exists()


def test_a_task_without_parameters_or_example_has_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(
        id="fill-mask",  # whose notes it has
        group=Group.TEXT,
        summary="Where a < b, or `a<b>`.",
        columns=(Column("text", "One | two."),),
        params=TaskParams,
        prediction=pa.struct(
            [field("spans", pa.list_(pa.list_(pa.struct([field("at", pa.int32(), "There.")]))), "All.")]
        ),
        version=2,
        heads=("ForMaskedLM",),
    )
    page = pages.page(task, [])
    assert "Where a &lt; b, or `a<b>`." in page
    assert "One \\| two." in page
    assert "## Parameters\n\nNone.\n" in page
    assert "| `spans` | `list<list<struct>>` |  |  | All. |\n| `spans[][].at` | `int32` |  |  | There. |\n" in page
    assert "## Example" not in page


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 9}, "integer (at least 1, at most 9)"),
        ({"anyOf": [{"enum": ["a", "b"], "type": "string"}, {"type": "null"}]}, '`"a"`, `"b"` or null'),
        ({"type": "array", "minItems": 1, "items": {"type": "string"}}, "list (length 1 or more) of string"),
        ({"$ref": "#/$defs/Way"}, "`2`"),
    ],
)
def test_what_a_schema_allows_in_words(schema: dict[str, object], words: str) -> None:
    assert pages.kind(schema, {"Way": {"const": 2}}) == words


@every_example
def test_an_example_is_a_job_on_a_hub_model(file: Path) -> None:
    spec = spec_of(file)
    assert model_kind(spec.model) == "hub"
    assert "/" in spec.model
    assert spec.output.uri == f"output/{file.stem}"
    assert isinstance(spec.input.uri, str)
    columns = pq.read_schema(file.parent / spec.input.uri)
    for column in spec.task_schema.columns:
        if column.required or column.name in spec.input.columns:
            assert column.fits(columns.field(spec.column(column.name)).type)


@every_example
def test_an_example_runs(file: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a copy of its folder, as a user runs it, with a tiny checkpoint in the place of its model."""
    hub_id = spec_of(file).model
    assert hub_id in TINY, "say in TINY which tiny checkpoint stands for the model"
    folder = tmp_path / "examples"
    shutil.copytree(file.parent, folder, ignore=shutil.ignore_patterns("output"))
    monkeypatch.chdir(folder)
    spec = with_full_uris(spec_of(folder / file.name, model=str(TINY[hub_id](tmp_path / "model"))))
    assert House(settings).run(spec).status is JobStatus.SUCCEEDED
    records = pq.read_table(f"{file.parent}/{spec_of(file).input.uri}").to_pylist()
    rows = read_output(str(folder / spec_of(file).output.uri))
    assert [row["error"] for row in rows] == [None] * len(records)
    media = spec.task_schema.media
    for record, row in zip(records, rows, strict=True):
        kept = {name: value for name, value in record.items() if media is None or name != spec.column(media.name)}
        assert {name: row[name] for name in kept} == kept
    assert all(row["prediction"] for row in rows)
