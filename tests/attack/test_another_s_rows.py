"""Who can read another's rows? By forged files in their own output, by links, and by what errors say."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.storage import Storage
from jobs.storage.plan_file import row_groups
from schemas.plan import Shard, Slice, input_schema, plan_schema, to_batch
from tests.attack.conftest import SECRET, Scene


def forged(scene: Scene, job: str, output: str, **changes: Any) -> str:
    """A job file that reads the honest tenant's table, made of a real one's."""
    real = json.loads(scene.hostile.read(f"{job}/_job.json"))
    honest: dict[str, Any] = {"uri": scene.honest.uri("in.parquet"), "format": None, "columns": {}, "keep": None}
    spec = real["spec"] | {"input": honest, "output": {"uri": scene.hostile.uri(f"{output}/")}}
    return json.dumps(real | {"spec": spec, "allowed_inputs": None} | changes)


def refused(answer: Any, *said: str) -> None:
    assert answer.status_code == 422, answer.text
    for text in said:
        assert text in answer.text
    assert SECRET not in answer.text


def test_a_retry_onto_a_forged_job_file(scene: Scene) -> None:
    """Row 1: its parent is an ended job of the attacker's, its input another's table."""
    scene.hostile.put_table("bad.parquet", [None, "a text"])
    parent_id = scene.hostile.run("parent/", "bad.parquet")["id"]
    place = {"job": parent_id, "output": scene.hostile.uri("parent/")}
    scene.hostile.put(
        "planted/_job.json", forged(scene, "parent", "planted", id="20260101-000000-abc123", parent=place)
    )
    answer = scene.hostile.http.post(f"/v1/jobs/{parent_id}:retry", json={"output": scene.hostile.uri("planted/")})
    refused(answer, "is not empty")
    assert scene.hostile.objects("planted/") == ["planted/_job.json"]


def test_a_job_file_that_lies_there_first(scene: Scene) -> None:
    """Row 2: it has the honest spec's fingerprint, and another input."""
    scene.hostile.run("template/")
    wanted = scene.hostile.run("wanted/")
    fingerprint = json.loads(scene.hostile.read("wanted/_job.json"))["fingerprint"]
    for number, id in enumerate(("20260101-000000-abc123", wanted["id"])):
        output = f"first-{number}"
        body = forged(scene, "template", output, id=id, fingerprint=fingerprint)
        scene.hostile.put(f"{output}/_job.json", body)
        refused(scene.hostile.submit(f"{output}/"), "is not empty")
        assert scene.hostile.objects(f"{output}/") == [f"{output}/_job.json"]


def test_a_job_file_overwritten_after_acceptance(scene: Scene) -> None:
    """Row 2: what runs, is retried and is shown is what was accepted."""
    submitted = scene.hostile.submit("later/", shard={"rows": 1}).json()
    scene.hostile.put("later/_job.json", forged(scene, "later", "later", id=submitted["id"]))
    ended = scene.hostile.ends(submitted["id"])
    assert ended["spec"]["input"]["uri"] == scene.hostile.uri("in.parquet")
    assert SECRET not in json.dumps(scene.hostile.rows(submitted["id"]))
    again = scene.hostile.http.post(f"/v1/jobs/{submitted['id']}:retry")
    assert again.status_code in (202, 409)
    if again.status_code == 202:
        scene.hostile.ends(again.json()["id"])


def test_a_plan_that_lies_there_first(scene: Scene, storage: Storage) -> None:
    """Written between acceptance and planning: its slices name another's table."""
    there = storage.stat(scene.honest.uri("in.parquet"))  # which the attacker may know from elsewhere
    part = Slice(uri=there.uri, etag=there.etag, size=there.size, row_group=0, start=0, rows=1, source_row=0)
    schema = plan_schema(pa.schema([("id", pa.int64()), ("text", pa.string())]))
    assert input_schema(schema).names == ["id", "text"]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema) as writer:
        for shards in row_groups([Shard(shard=0, slices=(part,), rows=1, bytes=1)]):
            writer.write_batch(to_batch(shards, schema))
    for tried in range(20):  # one of them comes before planning
        submitted = scene.hostile.submit(f"plan-{tried}/").json()
        scene.hostile.put(f"plan-{tried}/_plan.pq", sink.getvalue().to_pybytes())
        ended = scene.hostile.ends(submitted["id"])
        if ended["status"] == "failed":
            assert ended["end"]["error"]["code"] in ("plan_broken", "input_changed"), ended["end"]
            return
    pytest.fail("no plan came first")


def test_a_manifest_that_names_another_s_part(scene: Scene) -> None:
    """Row 7."""
    job = scene.hostile.run("manifest/")
    manifest = json.loads(scene.hostile.read("manifest/_manifest.json"))
    honest = next(name for name in scene.honest.objects("warm/") if "part-" in name)
    manifest["parts"][0]["name"] = f"../../honest/{honest}"
    scene.hostile.put("manifest/_manifest.json", json.dumps(manifest))
    for path in ("results", "results?with_retries=true", "errors", "manifest", "shards"):
        answer = scene.hostile.http.get(f"/v1/jobs/{job['id']}/{path}")
        assert answer.status_code in (200, 502), (path, answer.text)
        assert SECRET not in answer.text


def test_what_errors_say_of_another_s_location(scene: Scene) -> None:
    """Row 12."""
    secret = scene.honest.submit("private/", labels={"team": "oncology"}).json()
    job = scene.hostile.run("mine/", "in.parquet")
    outside = scene.hostile.http.post(f"/v1/jobs/{job['id']}:retry", json={"output": scene.honest.uri("private/")})
    shared = scene.hostile.http.post("/v1/jobs", json=scene.hostile.spec("x/") | {"output": {"uri": secret["output"]}})
    for answer in (outside, shared):
        assert answer.status_code in (409, 422), answer.text
        for word in ("oncology", secret["id"], "_job.json"):
            assert word not in answer.text
    scene.honest.ends(secret["id"])
