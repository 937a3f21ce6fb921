"""`verify` finds each kind of damage to results, and only that; `--replay` computes shards again."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from jobs.cli.verify import verify
from jobs.results.replay import drawn
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.storage.job_folder import JobFolder
from schemas.job import AcceptedJob
from schemas.layout import MANIFEST, PLAN
from schemas.manifest import Manifest
from schemas.report import REPORT_KEY
from tests.integration.harness import House, spec_for


@pytest.fixture
def done(house: House, classifier: Path, texts: Path, tmp_path: Path) -> AcceptedJob:
    """A job of five parts with 20 rows each."""
    spec = spec_for(classifier, str(texts), f"{tmp_path}/out/", shard={"rows": 20})
    manifest = house.run(spec)
    job = house.catalog.job(manifest.job)
    assert job is not None
    return job


def run(job: AcceptedJob, *more: str) -> Result:
    return CliRunner().invoke(verify, [job.id, *more])


def part(job: AcceptedJob, shard: int) -> Path:
    (file,) = Path(job.output).rglob(f"part-{shard:05d}.parquet")
    return file


def rewritten(job: AcceptedJob, shard: int, change: Callable[[pa.Table], pa.Table], **report: Any) -> None:
    """Write a part again with other rows, and with a report that says so."""
    file = part(job, shard)
    table = change(pq.read_table(file))
    metadata = dict(pq.read_metadata(file).metadata)
    said = json.loads(metadata[REPORT_KEY]) | report
    writer = pq.ParquetWriter(file, table.schema, compression="zstd")
    writer.write_table(table)
    writer.add_key_value_metadata({REPORT_KEY: json.dumps(said).encode()})
    writer.close()


def edited(job: AcceptedJob, **changes: Any) -> None:
    file = Path(job.output, MANIFEST)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def other_labels(table: pa.Table) -> pa.Table:
    rows = table.to_pylist()
    rows[3]["prediction"]["label"] = "EDITED"
    return pa.Table.from_pylist(rows, table.schema)


def truncated(job: AcceptedJob) -> None:
    file = part(job, 1)
    file.write_bytes(file.read_bytes()[:-100])


def swapped(job: AcceptedJob) -> None:
    one, other = part(job, 1), part(job, 2)
    aside = one.with_suffix(".aside")
    one.rename(aside), other.rename(one), aside.rename(other)


def missing(job: AcceptedJob) -> None:
    part(job, 1).unlink()


def edited_part(job: AcceptedJob) -> None:
    rewritten(job, 1, other_labels)


def edited_input_column(job: AcceptedJob) -> None:
    rewritten(job, 1, lambda table: table.set_column(0, "id", pa.array([7] * 20)))


def copied(job: AcceptedJob) -> None:
    shutil.copy(part(job, 1), part(job, 1).with_name("part-00077.parquet"))


def edited_manifest(job: AcceptedJob) -> None:
    edited(job, seconds={"wall": 1.0})


def edited_name_of_model(job: AcceptedJob) -> None:
    there = json.loads(Path(job.output, MANIFEST).read_text())
    edited(job, model=there["model"] | {"revision": "another"})


def edited_plan(job: AcceptedJob) -> None:
    file = Path(job.output, PLAN)
    table = pq.read_table(file)
    pq.write_table(table.slice(0, 4), file)


DAMAGES: list[tuple[Callable[[AcceptedJob], None], str]] = [
    (truncated, r"part-00001\.parquet: was written again .*not a \(whole\) Parquet file"),
    (swapped, r"part-00001\.parquet: .*is the part of shard 2.*\n.*part-00002\.parquet: .*is the part of shard 1"),
    (missing, r"part-00001\.parquet: is missing"),
    (edited_part, r"part-00001\.parquet: .*its rows have another checksum than the manifest says"),
    (edited_input_column, r"part-00001\.parquet: .*its column 'id' isn't the input's"),
    (copied, r"part-00077\.parquet: isn't in the manifest"),
    (edited_manifest, r"_manifest\.json: was edited or replaced"),
    (edited_name_of_model, r"_manifest\.json: says model .*another"),
    (edited_plan, r"_manifest\.json: says 5 shards; the plan has 4"),
]


def test_damage_is_found(done: AcceptedJob, tmp_path: Path) -> None:
    """A line for each object that is damaged, and none for the others."""
    out = Path(done.output)
    shutil.copytree(out, tmp_path / "whole")
    for damage, says in DAMAGES:
        damage(done)
        result = run(done)
        assert result.exit_code == 1, damage
        assert re.search(says, result.stdout, re.DOTALL), result.output
        others = {f"part-{shard:05d}.parquet" for shard in (0, 3)}
        assert not others & {line.split(":")[0] for line in result.stdout.splitlines()}, result.output
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "whole", out)
    assert run(done).exit_code == 0


def test_shards_are_computed_again_the_same_and_an_edit_that_all_else_fits_is_found(done: AcceptedJob) -> None:
    folder = JobFolder(done.output, Storage())
    manifest = folder.read_manifest()
    assert manifest is not None
    one, other = drawn(manifest, folder, 2, seed=5)
    rewritten(done, one.shard, other_labels)
    result = run(done, "--replay", "2", "--seed", "5")
    assert result.exit_code == 1
    assert f"{one.name}: computed again, 1 of 20 rows differ: 1 in the answer" in result.stdout, result.output
    assert f"{other.name}: computed again, the same" in result.stdout


def test_results_of_an_earlier_version_have_notes_and_no_faults(done: AcceptedJob) -> None:
    """Neither checksums nor a digest in the catalog: what can't be verified is said."""
    storage = Storage()
    file = Path(done.output, MANIFEST)
    for shard in range(5):
        rewritten(done, shard, lambda table: table, checksum=None)
    manifest = Manifest.model_validate_json(file.read_bytes())
    parts = []
    for one in manifest.parts:
        info = storage.stat(str(part(done, one.shard)))
        parts.append(one.model_copy(update={"bytes": info.size, "etag": info.etag, "checksum": None}))
    file.write_text(manifest.model_copy(update={"parts": parts}).model_dump_json())
    (mark,) = Path(Catalog(done.output, storage).uri).parent.glob("home/catalog/ended/*")
    mark.write_text("{}")
    result = run(done)
    assert (result.exit_code, result.stdout) == (0, "5 parts with 100 rows verified: no fault\n"), result.output
    assert len(result.stderr.splitlines()) == 6
    rewritten(done, 1, lambda table: table.slice(1), checksum=None)
    assert "has 19 rows" in run(done).stdout
