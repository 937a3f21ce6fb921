"""Who can stop or slow another's work? Requests, plans, models and rows that cost much and are made of little."""

import json
import shutil
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobs.api.connection import LIMITS_S
from tests.attack.conftest import Scene
from tests.checkpoints import make_classifier
from tests.servers import wait_for


def test_globs_of_many_stars(scene: Scene) -> None:
    """Row 3: GETs of the other tenant waited 97 s."""
    scene.hostile.put(f"globs/{'a' * 200}.parquet", b"1")
    spec = scene.hostile.spec("x/") | {"input": {"uri": scene.hostile.uri("**a" * 15 + "**b")}}
    with scene.honest_at_work() as waits:
        answer = scene.hostile.http.post("/v1/jobs:plan", json=spec)
    assert answer.status_code == 422
    too_many = scene.hostile.spec("x/") | {"input": {"uri": scene.hostile.uri("*a" * 30)}}
    refused = scene.hostile.http.post("/v1/jobs:plan", json=too_many)
    assert "wildcards" in refused.text
    waits.check()


def test_dry_runs_of_one_file_many_times(scene: Scene) -> None:
    """Row 4: 16 of them filled the pool for nine minutes."""
    spec = scene.hostile.spec("x/")
    many = [scene.hostile.uri("in.parquet")] * 9_999
    threads = [
        threading.Thread(target=lambda: scene.hostile.http.post("/v1/jobs:plan", json=spec | {"input": {"uri": many}}))
        for _ in range(16)
    ]
    with scene.honest_at_work() as waits:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(2)
    waits.check()
    answer = scene.hostile.http.post("/v1/jobs:plan", json=spec | {"input": {"uri": [*many, "s3://b/1", "s3://b/2"]}})
    assert "10,000 are allowed" in answer.text


def test_a_plan_of_millions_of_shards(scene: Scene) -> None:
    """Row 5: everybody's next job waited 5 min 40 s."""
    scene.hostile.put_table("many.parquet", ["x"] * 2_000_000, compression="zstd")
    jobs = [scene.hostile.submit(f"many-{n}/", "many.parquet", shard={"rows": rows}) for n, rows in enumerate((1, 4))]
    assert [answer.status_code for answer in jobs] == [202, 202]
    assert scene.honest.run("beside/")["status"] == "succeeded"
    assert scene.hostile.job(jobs[1].json()["id"])["end"] is None, "nobody waited for it"
    first = scene.hostile.ends(jobs[0].json()["id"])
    assert (first["status"], first["end"]["error"]["code"]) == ("failed", "bad_input")
    assert "max_shards" in first["end"]["error"]["message"]
    second = jobs[1].json()["id"]
    scene.hostile.http.post(f"/v1/jobs/{second}:cancel")
    assert scene.hostile.ends(second)["status"] == "cancelled"


def changed_model(folder: Path, **config: Any) -> Path:
    make_classifier(folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 2_000_000},
        {"vocab_size": 25_000_000},
        {"num_labels": 300_000_000, "id2label": None, "label2id": None},
        {"max_position_embeddings": 9_000_000},
        {"_attn_implementation": "somebody/kernels"},
    ],
    ids=["layers", "vocabulary", "labels", "positions", "attention"],
)
def test_models_larger_than_their_weights(scene: Scene, tmp_path: Path, config: dict[str, Any]) -> None:
    """Row 9: the only worker was held for minutes, and 3 to 6 GB."""
    name = f"model-{next(iter(config))}"
    scene.hostile.put_folder(name, changed_model(tmp_path / "model", **config))
    submitted = scene.hostile.submit(f"{name}-out/", "in.parquet", f"{name}/")
    if submitted.status_code == 422:
        return
    ended = scene.hostile.ends(submitted.json()["id"])
    assert (ended["status"], ended["end"]["error"]["code"]) == ("failed", "model"), ended
    assert scene.honest.run(f"after-{name}/")["status"] == "succeeded"


def test_an_index_that_names_other_files(scene: Scene, tmp_path: Path) -> None:
    """Row 8: a pickle under another name, and the weights of another model."""
    for number, named in enumerate(("w.txt", "../model/model.safetensors")):
        folder = tmp_path / str(number)
        make_classifier(folder)
        shutil.move(folder / "model.safetensors", folder / "w.txt")
        (folder / "other.safetensors").write_bytes((folder / "w.txt").read_bytes())
        index = {"metadata": {}, "weight_map": {"classifier.bias": named}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        scene.hostile.put_folder(f"index-{number}", folder)
        ended = scene.hostile.run(f"index-out-{number}/", "in.parquet", f"index-{number}/")
        assert (ended["status"], ended["end"]["error"]["code"]) == ("failed", "model")
        assert "which is no safetensors file beside it" in ended["end"]["error"]["message"]


def test_configurations_that_cost_the_api(scene: Scene) -> None:
    """Row 11: the API at 2.7 GB and stalled; a 500."""
    for number, config in enumerate((b"{" + b'"a":1,' * 3_000_000 + b'"b":1}', b"[" * 200_000, b'{"a":' * 200_000)):
        scene.hostile.put(f"config-{number}/config.json", config)
        scene.hostile.put(f"config-{number}/model.safetensors", b"")
        with scene.honest_at_work() as waits:
            answer = scene.hostile.submit("x/", "in.parquet", f"config-{number}/")
            time.sleep(0.5)
        assert answer.status_code == 422, answer.text
        waits.check()


def test_one_text_stored_once_for_every_row(scene: Scene) -> None:
    """Row 10: 953 MB a block of a file of 691 bytes."""
    scene.hostile.put_table("bomb.parquet", ["word " * 200_000] * 300, compression="zstd")
    ended = scene.hostile.run("bomb/", "bomb.parquet", params={"max_length": 16})
    assert ended["status"] == "succeeded"


@pytest.mark.slow
def test_half_sent_requests_and_many_streams(scene: Scene) -> None:
    """Row 13: all still open after 96 s."""
    url = httpx2.URL(str(scene.honest.http.base_url))
    assert url.port is not None
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n"
    body = b"Content-Type: application/json\r\nContent-Length: 1000\r\nAuthorization: "
    body += scene.hostile.http.headers["Authorization"].encode() + b"\r\n\r\n{"
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection((url.host, url.port))) for _ in range(250)]
        with scene.honest_at_work() as waits:
            for number, half in enumerate(sockets):
                half.sendall(head + (body if number < 50 else b""))
                half.setblocking(False)

            def closed(some: socket.socket) -> bool:
                try:
                    while data := some.recv(4096):
                        del data
                    return True
                except BlockingIOError:
                    return False
                except OSError:
                    return True

            wait_for("headers time out", lambda: all(map(closed, sockets[50:])), 2 * LIMITS_S["headers"] + 10)
            wait_for("bodies time out", lambda: all(map(closed, sockets[:50])), 2 * LIMITS_S["body"] + 10)
        waits.check()


def test_event_streams_of_a_tenant(scene: Scene) -> None:
    """Row 13: the 101st is refused, and the others' go on."""
    scene.hostile.put_table("long.parquet", ["a text"] * 2000)
    job = scene.hostile.submit("long/", "long.parquet", shard={"rows": 10}, priority=0).json()["id"]
    assert scene.hostile.http.post(f"/v1/jobs/{job}:pause").status_code == 202
    limits = httpx2.Limits(max_connections=200)
    own = scene.hostile.http
    with (
        httpx2.Client(base_url=own.base_url, headers=own.headers, timeout=30, limits=limits) as http,
        ExitStack() as all_,
    ):
        streams = [all_.enter_context(http.stream("GET", f"/v1/jobs/{job}/events")) for _ in range(101)]
        assert [stream.status_code for stream in streams].count(429) == 1
        assert scene.honest.http.get("/v1/jobs").status_code == 200
    again = scene.hostile.http.post(f"/v1/jobs/{job}:cancel")
    assert again.status_code == 202
    scene.hostile.ends(job)


def test_priority_over_everybody(scene: Scene) -> None:
    """Row 14: all of a tenant's shards before another's first."""
    scene.hostile.put_table("urgent.parquet", ["a text"] * 600)
    urgent = scene.hostile.submit("urgent/", "urgent.parquet", shard={"rows": 1}, priority=9).json()["id"]
    wait_for("it runs", lambda: scene.hostile.job(urgent)["status"] == "running")
    assert scene.honest.run("meanwhile/", shard={"rows": 5})["status"] == "succeeded"
    assert scene.hostile.job(urgent)["end"] is None, "the honest tenant's job waited for all of the other's"
    scene.hostile.http.post(f"/v1/jobs/{urgent}:cancel")
    scene.hostile.ends(urgent)
