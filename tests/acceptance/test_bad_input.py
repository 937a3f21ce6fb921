"""Bad input, by the command line: a clear error, the right exit code, nothing written or lost."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.acceptance.cli import Done, nightshift, options
from tests.checkpoints import make_classifier, make_masked
from tests.integration.harness import read_output, write_reviews
from tests.texts import ODD, sentences


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_reviews(tmp_path / "in" / "a.parquet", sentences(20))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def refused(done: Done, *says: str) -> None:
    assert done.code == 2, done
    for words in says:
        assert words in done.err, done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_spec_file_with_unknown_keys(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    spec: dict[str, Any] = {"task": "text-clasification", "model": "m", "input": {"uri": "x"}, "output": {"uri": "y"}}
    file.write_text(yaml.safe_dump(spec))
    refused(nightshift("run", file), "error: task: unknown task 'text-clasification'", "'text-classification'")
    file.write_text(yaml.safe_dump(spec | {"task": "text-classification", "modle": "m", "priority": 12}))
    refused(nightshift("run", file), "modle: unknown key; did you mean 'model'?", "priority: ")
    file.write_text("task: [")
    refused(nightshift("run", file), "is neither YAML nor JSON")
    refused(nightshift("run", tmp_path / "none.yaml"), "none.yaml' can't be read")


def test_a_json_spec_and_the_options_over_it(tmp_path: Path, classifier: Path, texts: Path, output: Path) -> None:
    spec = {"task": "sentiment-analysis", "model": str(classifier), "input": {"uri": str(texts)},
            "output": {"uri": str(output)}, "labels": {"team": "search"}}  # fmt: skip
    file = tmp_path / "job.json"
    file.write_text(json.dumps(spec))
    done = nightshift("plan", file, "--column", "text=review", "--set", "shard.rows=7", "--no-sample", "--json")
    assert (done.code, done.json["shards"], done.json["records"]) == (0, 3, 20)
    assert not output.exists()


def test_columns(classifier: Path, texts: Path, output: Path) -> None:
    at = [*options(classifier, texts, output)[:-2]]
    refused(nightshift("run", *at), "input.columns.text: the input has no column 'text'; it has 'id', 'review', 'raw'")
    refused(nightshift("run", *at, "--column", "text=id"), "column 'id' is int64, not text")
    refused(nightshift("run", *at, "--column", "txt=review"), "has no column 'txt'; it has text, text_pair")
    refused(nightshift("run", *at, "--column", "review"), "not of the form NAME=VALUE")
    assert not output.exists()


def test_no_input(classifier: Path, tmp_path: Path, output: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("nothing.parquet", "empty/", "*.parquet"):
        refused(nightshift("run", *options(classifier, tmp_path / source, output)), "input.uri: no parquet file match")


def test_a_file_that_is_no_parquet(classifier: Path, tmp_path: Path, output: Path) -> None:
    file = tmp_path / "notes.parquet"
    file.write_text("not a table")
    refused(nightshift("run", *options(classifier, file, output)), "notes.parquet is not a (whole) Parquet file")


def test_the_output_of_another_job(classifier: Path, texts: Path, output: Path) -> None:
    assert nightshift("run", *options(classifier, texts, output)).code == 0
    before = sorted((p.name, p.stat().st_mtime_ns) for p in output.rglob("*"))
    done = nightshift("run", *options(classifier, texts, output, "--param", "top_k=2"))
    refused(done, "output.uri", "belongs to job", "params.top_k: 1 there, 2 here", "name another location")
    assert sorted((p.name, p.stat().st_mtime_ns) for p in output.rglob("*")) == before


def test_an_output_with_other_files_or_inside_the_input(classifier: Path, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    refused(nightshift("run", *options(classifier, texts, tmp_path / "out")), "is not empty", "mine.txt")
    done = nightshift("run", *options(classifier, f"{texts.parent}/", texts.parent / "out"))
    refused(done, "lies inside the input")


def test_models(texts: Path, output: Path, tmp_path: Path) -> None:
    def run(model: object) -> Done:
        return nightshift("run", *options(model, texts, output))

    refused(run(tmp_path / "missing"), "model: there is no model at")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").touch()
    refused(run(tmp_path / "empty"), "it has no config.json")
    refused(run(make_masked(tmp_path / "masked")), "is a BertForMaskedLM", "ending in ForSequenceClassification")
    pickled = make_classifier(tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    refused(run(pickled), "has only pytorch_model.bin", "safetensors only")
    refused(run("org/model"), "there is no folder 'org/model'", "hub can't be asked")
    assert not output.exists()


def test_models_that_only_loading_finds_out(texts: Path, tmp_path: Path) -> None:
    headless = make_classifier(tmp_path / "headless")
    weights = {n: t for n, t in load_file(headless / "model.safetensors").items() if not n.startswith("classifier")}
    save_file(weights, headless / "model.safetensors", metadata={"format": "pt"})
    done = nightshift("run", *options(headless, texts, tmp_path / "out1"))
    assert done.code == 1
    assert "lacks classifier.bias, classifier.weight" in done.err
    broken = make_classifier(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\x00" * 100)
    done = nightshift("run", *options(broken, texts, tmp_path / "out2"))
    assert done.code == 1
    assert "the model doesn't load" in done.err
    assert json.loads((tmp_path / "out2" / "_manifest.json").read_text())["error"]["code"] == "model"


def test_odd_texts_are_answered_and_nulls_are_error_rows(classifier: Path, tmp_path: Path, output: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", [*ODD, None, "good film"])
    done = nightshift("run", *options(classifier, file, output))
    assert done.code == 3
    assert "1 error row: null_input" in done.err
    rows = read_output(str(output))
    assert [row["review"] for row in rows] == [*ODD, None, "good film"]
    assert [row["error"] is not None for row in rows] == [row["review"] is None for row in rows]


def test_s3_that_cannot_be_read(s3: str, classifier: Path, output: Path) -> None:
    at = options(classifier, "s3://no-such-bucket-here/in/", output)
    refused(nightshift("run", *at), "input.uri: s3://no-such-bucket-here does not exist")
    at = options(classifier, f"{s3}/in/", output)
    refused(nightshift("run", *at, AWS_ACCESS_KEY_ID="stranger"), "may not be accessed with these credentials")
    done = nightshift("run", *options(classifier, f"{s3}/in/", output), AWS_ENDPOINT_URL_S3="http://127.0.0.1:1")
    assert (done.code, "while talking to S3" in done.err) == (1, True)


def test_redis_away(classifier: Path, texts: Path, output: Path) -> None:
    url = "redis://:secret-word@127.0.0.1:1/0"
    for command in (["run"], ["submit"]):
        done = nightshift(*command, *options(classifier, texts, output), NIGHTSHIFT_REDIS_URL=url)
        assert done.code == 1
        assert "Redis at 127.0.0.1:1 can't be reached" in done.err
        assert "secret-word" not in done.err
    assert not output.exists()
    for arguments in (["worker"], ["status"]):
        assert nightshift(*arguments, NIGHTSHIFT_REDIS_URL=url).code == 1
    done = nightshift("submit", *options(classifier, texts, output))
    assert (done.code, "set NIGHTSHIFT_REDIS_URL" in done.err) == (1, True)


def test_commands_and_settings_that_are_not_there(tmp_path: Path) -> None:
    refused(nightshift("runn"), "there is no command 'runn'; did you mean 'run'?")
    assert nightshift("results", tmp_path / "none").code == 1
    assert "the catalog at" in nightshift("results", "20261120-031500-k3v9x2").err
    refused(nightshift("tasks", "text-clasification"), "did you mean 'text-classification'?")
    refused(nightshift("status", "x", NIGHTSHIFT_LEASE_S="soon"), "NIGHTSHIFT_LEASE_S")


def test_a_table_without_rows(classifier: Path, tmp_path: Path, output: Path) -> None:
    pq.write_table(pa.table({"review": pa.array([], pa.string())}), tmp_path / "in.parquet")
    done = nightshift("run", *options(classifier, tmp_path / "in.parquet", output), "--json")
    assert (done.code, done.json["status"], done.json["rows"]) == (0, "succeeded", 0)
