"""Each parser of foreign bytes, with bytes that were broken at random: an error of ours, or an answer; nothing else.

`FUZZ` says how many inputs each parser gets (`make attack`: 10,000). They are made of right ones, by a seed.
"""

import io
import json
import os
import random
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.api import request_body
from jobs.planning.parquet_footers import read_footer
from jobs.results.read import Place
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.job_folder import JobFolder, open_part, read_report
from jobs.storage.plan_file import row_groups
from schemas.errors import NightshiftError
from schemas.job import AcceptedJob, JobSpec, parse_spec
from schemas.layout import MANIFEST, PLAN
from schemas.plan import Shard, Slice, plan_schema, to_batch
from schemas.report import REPORT_KEY
from tests import media, pictures
from tests.integration.harness import House, read_output, spec_for, write_reviews
from tests.texts import sentences
from workers.audio.clip import Clip
from workers.io.parquet_reader import ParquetReader
from workers.models.trust import check_folder, read_config
from workers.vision.picture import Picture

COUNT = int(os.environ.get("FUZZ", "150"))
#: Bytes that this process may have more at the end of a target.
MORE = 1 << 30
Target = Callable[[bytes], object]


def broken(right: bytes, chance: random.Random) -> bytes:
    """The bytes with something cut, doubled, flipped, put in or made a large number."""
    data = bytearray(right)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(6)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + chance.randrange(1, 50)]
        elif kind == 2 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 3:
            data[at:at] = data[at : at + chance.randrange(1, 200)]
        elif kind == 4:
            data[at:at] = chance.choice(
                (
                    b"\xff" * 4,
                    b"\x00" * 8,
                    b'"',
                    b"{",
                    b"[",
                    b"9" * 30,
                    b"-1",
                    b"null",
                    b"\xed\xa0\x80",
                    b"1e999",
                    b"../",
                )
            )
        else:
            data[at : at + 4] = chance.randbytes(4)
    return bytes(data)


def fuzz(right: bytes, target: Target) -> None:
    chance = random.Random(7)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    target(right)
    refused = 0
    for _ in range(COUNT):
        data = broken(right, chance)
        try:
            target(data)
        except NightshiftError:
            refused += 1
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__}: {error!r} for {data[:2000]!r}") from error
    assert refused > COUNT / 100, "hardly an input was broken"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MORE


def test_a_spec_in_a_request() -> None:
    spec = {
        "task": "text-classification", "model": "org/model", "input": {"uri": ["s3://b/a/", "s3://b/*.parquet"]},
        "output": {"uri": "s3://b/out/"}, "params": {"top_k": 3}, "labels": {"team": "search"}, "max_errors": 0.1,
        "notify": "https://example.com/hook", "shard": {"rows": 100}, "batch_size": 8,
    }  # fmt: skip
    fuzz(json.dumps(spec).encode(), lambda data: parse_spec(request_body.parse(data)))


def test_a_cursor() -> None:
    fuzz(b"12.34567", lambda data: Place.parse(data.decode(errors="surrogateescape")))


@pytest.fixture
def house(settings: Settings) -> House:
    return House(settings)


def written(file: Path, use: Callable[[], object], data: bytes) -> object:
    file.write_bytes(data)
    return use()


def test_a_manifest_and_a_part(house: House, classifier: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "in.parquet", sentences(20))
    house.run(spec_for(classifier, str(source), f"{tmp_path}/out"))
    folder = JobFolder(f"{tmp_path}/out/", Storage())
    manifest = tmp_path / "out" / MANIFEST
    fuzz(manifest.read_bytes(), partial(written, manifest, folder.read_manifest))
    assert read_output(f"{tmp_path}/out")
    part = next((tmp_path / "out").glob("data/part-*"))
    assert REPORT_KEY in pq.read_metadata(part).metadata
    storage = Storage()

    def read() -> object:
        info = storage.stat(str(part))
        with open_part(info, storage) as file:
            rows = list(file.iter_batches(batch_size=8))
        return read_report(info, storage), rows

    fuzz(part.read_bytes(), partial(written, part, read))


def test_a_plan(tmp_path: Path) -> None:
    schema = plan_schema(pa.schema([("text", pa.string())]))
    part = Slice(uri="s3://b/a", etag="e", size=10, row_group=0, start=0, rows=5, source_row=0)
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for shards in row_groups(Shard(shard=n, slices=(part,), rows=5, bytes=10) for n in range(50)):
            writer.write_batch(to_batch(shards, schema))
    folder = JobFolder(f"{tmp_path}/", Storage())

    def read() -> object:
        plan = folder.plan()
        return plan.columns(), plan.skipped(), plan.size(), list(plan.shards(3)), plan.row_group_of(7)

    fuzz(sink.getvalue(), partial(written, tmp_path / PLAN, read))


def test_a_table(tmp_path: Path) -> None:
    """Its footer as planning reads it, its rows as a worker does."""
    file = write_reviews(tmp_path / "in.parquet", list(sentences(300)), row_group=100)
    storage, columns = Storage(), pa.schema([("id", pa.int64()), ("review", pa.string())])

    def read() -> object:
        footer = read_footer(storage, storage.stat(str(file)), 1 << 20)
        reader = ParquetReader(storage, columns, 1 << 20, {})
        try:
            for group in footer.row_groups({"review"})[:3]:
                part = Slice(
                    uri=str(file), etag=footer.info.etag, size=footer.info.size, row_group=group.index, start=0,
                    rows=min(group.rows, 1000), source_row=0,
                )  # fmt: skip
                shard = Shard(shard=0, slices=(part,), rows=part.rows, bytes=1)
                list(reader.blocks(shard, {"text": "review"}))
        finally:
            reader.close()
        return footer

    fuzz(file.read_bytes(), partial(written, file, read))


def test_a_model_s_configuration(classifier: Path, tmp_path: Path) -> None:
    for path in classifier.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = tmp_path / "config.json"
    assert read_config(config)
    fuzz(config.read_bytes(), partial(written, config, lambda: check_folder(tmp_path)))


def test_a_job_file(house: House, classifier: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "in.parquet", sentences(5))
    job = house.accept(spec_for(classifier, str(source), f"{tmp_path}/out"))
    assert isinstance(job, AcceptedJob)
    assert isinstance(job.spec, JobSpec)
    file = tmp_path / "out" / "_job.json"
    folder = JobFolder(f"{tmp_path}/out/", Storage())
    fuzz(file.read_bytes(), partial(written, file, folder.read_job))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"])
def test_pictures(kind: str) -> None:
    limit = Settings().max_pixels
    fuzz(pictures.encoded(pictures.picture(), kind), lambda data: Picture(data, limit).rgb())


@pytest.mark.parametrize("form", ["wav 16", "flac", "mp3", "ogg opus", "m4a"])
def test_sounds(form: str) -> None:
    limit = Settings().max_seconds
    fuzz(media.encoded(media.tone(440, 0.3, 16_000), 16_000, form), lambda data: Clip(data, limit).samples(16_000))
