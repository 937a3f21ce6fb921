"""The invariants of a job that ended, by one function that reads storage alone: `check`.

I1 ids in the output = ids in the input, each once, answered or with an error; what is missing is named in the manifest
I2 every part that the manifest names exists, with the rows and the etag it says
I3 the manifest never changed, and nothing else of the job came after it
I4 the job ended within its bound
I5 no shard ran more than its attempts
I6 other jobs went on meanwhile
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.storage import Storage
from schemas.layout import MANIFEST, child, shard_of
from schemas.manifest import JobStatus, Manifest

Place = tuple[str, int]


@dataclass(frozen=True)
class Ended:
    """A job's location when its manifest was first seen: the manifest's bytes, and each object's size and etag."""

    output: str
    manifest: bytes
    objects: Mapping[str, tuple[int, str]]

    @classmethod
    def seen(cls, output: str, storage: Storage) -> "Ended":
        return cls(output, storage.read(child(output, MANIFEST)), _objects(output, storage))


def check(
    ended: Ended,
    inputs: Sequence[str],
    bound_s: float,
    *,
    attempts: Mapping[int, int] | None = None,
    most_attempts: int = 1,
    meanwhile: Sequence["Ended"] = (),
    was: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest of a job over these Parquet files, each with a column `id`, all of whose invariants hold.

    Call it when nothing runs any more. `attempts` are the claims by shard; `meanwhile` are jobs that had to end as
    succeeded before this one did; `was` says of an input that was changed where a copy of the old one lies.
    """
    storage = Storage()
    manifest = Manifest.model_validate_json(ended.manifest)
    uris = {part.name: manifest.layout.parts_in(ended.output) + part.name for part in manifest.parts}
    rows = [row for part in manifest.parts for row in _rows(uris[part.name], storage)]

    old = was or {}
    ids = {uri: _table(old.get(uri, uri), storage)["id"].to_pylist() for uri in inputs}
    expected = {(uri, n): id for uri in inputs for n, id in enumerate(ids[uri])}
    lost = {
        (piece.uri, row)
        for shard in manifest.lost
        for piece in shard.slices
        for row in range(piece.first_row, piece.first_row + piece.rows)
    }
    places = [(row["source_uri"], row["source_row"]) for row in rows]
    twice = [place for place, times in Counter(places).items() if times > 1]
    assert not twice, f"I1: {len(twice)} rows more than once, such as {twice[0]}"
    assert places == sorted(places), "I1: not in the order of the input"
    if manifest.status is not JobStatus.CANCELLED and manifest.error is None:  # else it was stopped before its end
        missing = expected.keys() - set(places) - lost
        assert not missing, f"I1: {len(missing)} rows neither there nor named as lost, such as {min(missing)}"
    assert not lost & set(places), "I1: rows that are there are named as lost"
    for place, row in zip(places, rows, strict=True):
        assert expected[place] == row["id"], f"I1: {place} has another row's id, {row['id']}"
        assert (row["prediction"] is None) != (row["error"] is None), f"I1: {place} is neither answered nor an error"
    if manifest.status is JobStatus.SUCCEEDED:
        assert not manifest.lost, "I1: succeeded, and lost something"
        assert len(manifest.parts) == manifest.shards, "I1: succeeded without all of its shards"

    now = _objects(ended.output, storage)
    for part in manifest.parts:
        assert part.name in now, f"I2: {part.name} is gone"
        assert (part.bytes, part.etag) == now[part.name], f"I2: {part.name} is not the one in the manifest"
        found = _rows(uris[part.name], storage)
        assert len(found) == part.rows, f"I2: {part.name} has {len(found)} rows, not {part.rows}"
        runs = {row["prediction"]["run"] for row in found if row["prediction"] and "run" in row["prediction"]}
        assert len(runs) <= 1, f"I2: {part.name} mixes the answers of {len(runs)} runs"
    assert manifest.rows == len(rows), "I2: the manifest counts other rows than there are"
    named = {part.name for part in manifest.parts}
    unnamed = {name for name in now if shard_of(name) is not None} - named
    assert not unnamed, f"I2: parts that the manifest doesn't name: {sorted(unnamed)}"

    assert storage.read(child(ended.output, MANIFEST)) == ended.manifest, "I3: the manifest changed"
    changed = {name for name in now.keys() | ended.objects.keys() if now.get(name) != ended.objects.get(name)}
    assert not changed, f"I3: changed after the manifest: {sorted(changed)}"

    took = (manifest.ended_at - manifest.accepted_at).total_seconds()
    assert took <= bound_s, f"I4: ended after {took:.0f} s, not within {bound_s:.0f} s"

    for shard, times in (attempts or {}).items():
        assert times <= most_attempts, f"I5: shard {shard} ran {times} times, {most_attempts} at most"

    for one in meanwhile:
        other = Manifest.model_validate_json(one.manifest)
        assert other.status is JobStatus.SUCCEEDED, f"I6: job {other.job} {other.status}"
        assert other.ended_at < manifest.ended_at, f"I6: job {other.job} had to wait"
    return manifest


def _objects(output: str, storage: Storage) -> dict[str, tuple[int, str]]:
    """Size and etag of what lies at the location, but for what a killed process left of a file in the making."""
    found = ((info.uri.rsplit("/", 1)[-1], info) for info in storage.list(child(output, "")))
    return {name: (info.size, info.etag) for name, info in found if not name.startswith("_tmp-")}


def _table(uri: str, storage: Storage) -> pa.Table:
    return pq.read_table(io.BytesIO(storage.read(uri)))


def _rows(uri: str, storage: Storage) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _table(uri, storage).to_pylist()
    return rows
