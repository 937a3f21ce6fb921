"""No secret gets out: all that a deployment writes, sends and answers, while jobs go well and badly, is searched.

What is searched: logs at level debug, objects of outputs and catalog, Redis's keys and the commands sent to it, answers
of the API with their headers, webhooks, what the command line prints, arguments of processes, files under home.
"""

import hashlib
import io
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from jobs.api.tokens import Scope, Tokens
from jobs.webhooks.signing import signing_key
from tests.acceptance.api import secret_of, server
from tests.acceptance.cli import NIGHTSHIFT, environment, nightshift, worker
from tests.acceptance.leaks import Search
from tests.acceptance.secret_places import (
    Asked,
    OtherSide,
    all_of_redis,
    arguments_of_processes,
    commands_of_redis,
    other_side,
)
from tests.acceptance.test_api import put_reviews, spec, upload
from tests.checkpoints_vision import make_image_classifier
from tests.pictures import encoded, picture
from tests.servers import S3_ENV, free_ports, redis_at, running, s3_client, wait_for
from tests.texts import sentences

SECRETS = {
    "the S3 key": S3_ENV["AWS_SECRET_ACCESS_KEY"],
    "another S3 key": "wrong/S3+Key/" + secrets.token_hex(8),
    "the Redis password": "redis/Pass+word=" + secrets.token_hex(8),
    "another Redis password": "wrong/Pass+word=" + secrets.token_hex(8),
    "the webhook secret": "sign/with+this=" + secrets.token_hex(8),
    "the hub's token": "hf_" + secrets.token_hex(17),
    "a password in a URI": "Pa55-" + secrets.token_hex(8),
    "a signature": secrets.token_hex(32),
    "a key in a webhook's URL": "hook-" + secrets.token_hex(8),
    "a key where none belongs": "AKIA/" + secrets.token_hex(10),
}
SIGNED = f"X-Amz-Credential=AKIA%2Fs3%2Faws4_request&X-Amz-Signature={SECRETS['a signature']}"
PASSWORD = SECRETS["a password in a URI"]
STRAY = SECRETS["a key where none belongs"]
HOOK = SECRETS["a key in a webhook's URL"]


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Tokens by name; only their hashes are in the file."""
    made = Tokens(tmp_path / "home" / "tokens.json")
    own = {
        "search": made.new("search", [Scope.SUBMIT, Scope.READ], ["*"], ["*"]),
        "foreign": made.new("ads", [Scope.SUBMIT, Scope.READ], ["*"], ["*"]),
        "admin": made.new("ops", [Scope.ADMIN], ["*"], ["*"]),
        "expired": made.new("search", [Scope.READ], expires=timedelta(microseconds=1)),
        "revoked": made.new("search", [Scope.READ]),
    }
    made.revoke(own["revoked"][0])
    return {name: secret for name, (_, secret) in own.items()}


def refused_specs(good: dict[str, Any], bucket: str) -> list[dict[str, Any]]:
    """Specs that are wrong, with a secret in each."""
    table = good["input"]

    def reading(uri: str) -> dict[str, Any]:
        return good | {"input": table | {"uri": uri}}

    return [
        *(reading(uri) for uri in (
            f"{bucket}/in/reviews.parquet?{SIGNED}",
            f"{bucket}/in/{quote(f'reviews.parquet?{SIGNED}')}",
            f"https://bucket.s3.amazonaws.com/in.parquet?{SIGNED}",
            f"s3://user:{PASSWORD}@bucket/in/reviews.parquet",
            f"http://user:{PASSWORD}@host/in.parquet",
            f"{bucket}/in/missing.parquet",
        )),
        good | {"output": {"uri": f"s3://user:{PASSWORD}@bucket/out/"}},
        good | {"output": {"uri": f"{bucket}/out/x/?{SIGNED}"}},
        good | {"output": {"uri": {"aws_secret_access_key": STRAY}}},
        good | {"model": f"https://user:{PASSWORD}@hub.example/model"},
        good | {"model": f"{bucket}/model?{SIGNED}"},
        good | {"model": "org/private"},
        good | {"notify": f"https://user:{PASSWORD}@hooks.example/x"},
        good | {"notify": f"hooks.example/x?key={HOOK}"},
        good | {"notify": f"http://169.254.169.254/x?key={HOOK}"},
        good | {"aws_secret_access_key": STRAY},
        good | {"storage_options": {"secret": STRAY}},
        good | {"input": table | {"credentials": {"secret": STRAY}}},
        good | {"input": [{"secret": STRAY}]},
        good | {"params": {"api_key": STRAY}},
        good | {"params": {"top_k": {"secret": STRAY}}},
        good | {"labels": [STRAY]},
        good | {"input": table | {"columns": {"text": "nothing"}}},
    ]  # fmt: skip


class Scene:
    """A deployment on a Redis with a password and an S3 with keys, its tenants' data, and what is searched of it."""

    def __init__(self, s3: str, endpoint: str, folder: Path, tokens: dict[str, str]) -> None:
        self.s3, self.endpoint, self.folder, self.tokens = s3, endpoint, folder, tokens
        hashes = {f"the hash of {name}": hashlib.sha256(token.encode()).hexdigest() for name, token in tokens.items()}
        self.hashes = frozenset(hashes)
        own = {f"the token {name}": secret_of(token) for name, token in tokens.items()}
        key = signing_key(SECRETS["the webhook secret"], "search")
        keys = {"the key of webhooks": key.removeprefix("whsec_")}
        self.search = Search(SECRETS | own | keys | hashes)
        self.typed: set[str] = set()

    def put_inputs(self, classifier: Path) -> None:
        put_reviews(self.endpoint, f"{self.s3}/in/reviews.parquet", sentences(30))
        for name in ("model", "gone"):
            upload(self.endpoint, classifier, f"{self.s3}/{name}")
        (self.folder / "vit").mkdir()
        (self.folder / "vit" / "another.txt").write_text("of its own, so that no worker has the model already")
        upload(self.endpoint, self.folder / "vit", f"{self.s3}/gone")
        upload(self.endpoint, make_image_classifier(self.folder / "vit"), f"{self.s3}/vit")
        uris = [
            f"{self.s3}/in/a.png", f"{self.s3}/in/missing.png", f"{self.s3}/in/a.png?{SIGNED}", "file:///etc/passwd",
            f"https://bucket.s3.amazonaws.com/a.png?{SIGNED}", f"s3://user:{PASSWORD}@bucket/a.png",
        ]  # fmt: skip
        buffer = io.BytesIO()
        pq.write_table(pa.table({"id": range(len(uris)), "image": uris}), buffer)
        client, bucket = s3_client(self.endpoint), self.s3.removeprefix("s3://")
        client.put_object(Bucket=bucket, Key="in/pictures.parquet", Body=buffer.getvalue())
        client.put_object(Bucket=bucket, Key="in/a.png", Body=encoded(picture()))

    def spec(self, output: str, **more: Any) -> dict[str, Any]:
        return spec(f"{self.s3}/model", f"{self.s3}/in/reviews.parquet", f"{self.s3}/out/{output}/", **more)

    def forget_model(self) -> None:
        client, bucket = s3_client(self.endpoint), self.s3.removeprefix("s3://")
        for item in client.list_objects_v2(Bucket=bucket, Prefix="gone/")["Contents"]:
            client.delete_object(Bucket=bucket, Key=item["Key"])

    def run(self, *arguments: str, **env: str) -> None:
        """A command, whose output is searched; its arguments are what the user has typed."""
        self.typed.add(" ".join([*NIGHTSHIFT, *arguments]))
        done = nightshift(*arguments, timeout=240, **env)
        self.search.add(f"command: {arguments[:2]}", done.out + done.err)

    def search_objects(self) -> None:
        """Outputs and catalog. The catalog has the URL that a job names for its webhook."""
        client, bucket = s3_client(self.endpoint), self.s3.removeprefix("s3://")
        for prefix in ("out/", "catalog/"):
            for item in client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
                found = client.get_object(Bucket=bucket, Key=item["Key"])
                record = item["Key"].startswith("catalog/jobs/")
                allowed = frozenset({"a key in a webhook's URL"} if record else ())
                content = found["Body"].read()
                self.search.add(f"object: {item['Key']}", content, allowed)
                self.search.add(f"object: {item['Key']}", str(found["Metadata"]))

    def search_files(self) -> None:
        """Logs, and what lies under home and the temporary folder."""
        for path in self.folder.rglob("*"):
            inside = path.relative_to(self.folder)
            if path.is_file() and inside.parts[0] not in ("redis", "vit"):  # the test's own
                allowed = self.hashes if path.name == "tokens.json" else frozenset()
                kind = "log" if path.suffix == ".log" else "file"
                self.search.add(f"{kind}: {inside}", path.read_bytes(), allowed)


def test_no_secret_is_found(
    s3: str, s3_endpoint: str, classifier: Path, tokens: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(s3, s3_endpoint, tmp_path, tokens)
    scene.put_inputs(classifier)
    for name in ("redis", "tmp"):
        (tmp_path / name).mkdir()
    with (
        other_side(classifier) as side,
        redis_at(tmp_path / "redis", password=SECRETS["the Redis password"]) as url,
        commands_of_redis(url, tmp_path / "commands.txt"),
        arguments_of_processes() as arguments,
        ExitStack() as stack,
    ):
        ours = {
            "REDIS_URL": url, "CATALOG": f"{s3}/catalog", "LOG_LEVEL": "debug", "NOTIFY_TRIES": "2",
            "NOTIFY_SECRET": SECRETS["the webhook secret"], "NOTIFY_NETWORKS": '["127.0.0.0/8"]',
            "NOTIFY_BACKOFF_S": "0.2", "SWEEP_S": "0.3", "RENEW_S": "0.5",
        }  # fmt: skip
        for name, value in ours.items():
            monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
        hub = {"TOKEN": SECRETS["the hub's token"], "ENDPOINT": side.url, "HOME": str(tmp_path / "hub")}
        for name, value in hub.items():
            monkeypatch.setenv(f"HF_{name}", value)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
        api = stack.enter_context(server(tmp_path / "api.log", NIGHTSHIFT_LOG_FORMAT="json"))
        with Asked(api, tokens, scene.search) as asked:
            refused(asked, scene)
            jobs = submitted(asked, scene, side)
            scene.search.add("keys: before", all_of_redis(url))
            scene.forget_model()
            side.refuses = True
            with worker(tmp_path / "worker.log"), ThreadPoolExecutor(2) as pool:
                commands = [pool.submit(scene.run, *words, **env) for words, env in command_lines(scene, jobs, url)]
                statuses = {name: asked.ended(job)["status"] for name, job in jobs.items()}
                failed = {"denied", "hub", "model gone"}
                assert {name for name, status in statuses.items() if status == "failed"} == failed
                assert statuses["cancelled"] == "cancelled"
                looked_at(asked, jobs)
                assert asked.ended(asked("POST", f"/v1/jobs/{jobs['pictures']}:retry").json()["id"])["parent"]
                log = tmp_path / "worker.log"
                wait_for("webhooks", lambda: side.webhooks and "event=webhook_given_up" in log.read_text())
                for command in commands:
                    command.result()
                scene.search.add("keys: after", all_of_redis(url))
                with redis.Redis.from_url(url) as client:
                    client.config_set("requirepass", SECRETS["another Redis password"])
                    client.client_kill_filter(_type="normal", skipme=True)
                wait_for("Redis refuses", lambda: "refuses the password" in log.read_text())
                assert asked("GET", "/v1/workers").status_code == 503
    assert "Bearer " + SECRETS["the hub's token"] in side.authorizations
    for webhook in side.webhooks:
        scene.search.add("webhook", webhook)
    scene.search.add("arguments", "\n".join(arguments - scene.typed))
    scene.search_files()
    scene.search_objects()
    assert b"run_shard" in (tmp_path / "commands.txt").read_bytes()
    assert set(scene.search.bytes_in) == {"answer", "arguments", "command", "file", "keys", "log", "object", "webhook"}
    assert scene.search.leaks == set()


def refused(asked: Asked, scene: Scene) -> None:
    """Requests that are refused, with secrets where they don't belong."""
    good = scene.spec("refused")
    for body in refused_specs(good, scene.s3):
        assert asked("POST", "/v1/jobs", json=body).status_code == 422, body
    assert asked("POST", "/v1/jobs", content=f'{{"secret": "{STRAY}'.encode()).status_code in (400, 415)
    for name in ("expired", "revoked"):
        assert asked("GET", "/v1/jobs", token=name).status_code == 401
    own = scene.tokens["search"]
    for header in (f"Bearer {own}x", f"Token {own}", own):
        assert asked("GET", "/v1/jobs", token=None, headers={"Authorization": header}).status_code == 401
    assert asked("GET", "/v1/jobs", token=None, params={"token": own}).status_code == 401
    assert asked("GET", f"/v1/jobs/{own}").status_code == 404
    assert asked("POST", "/v1/jobs:plan", json=good | {"seed": {"secret": STRAY}}).status_code == 422


def submitted(asked: Asked, scene: Scene, side: OtherSide) -> dict[str, str]:
    """Jobs that will succeed, fail and be cancelled, by what will become of them."""
    jobs = {"denied": asked.job(scene.spec("denied"))}
    # A refusal that may pass is waited out, by default for a quarter of an hour: here it counts at once.
    denied = environment(AWS_SECRET_ACCESS_KEY=SECRETS["another S3 key"], NIGHTSHIFT_MAX_TRANSIENT="1")
    with running([*NIGHTSHIFT, "worker", "--groups", "control"], denied, scene.folder / "denied.log"):
        wait_for("a refusal", lambda: asked("GET", f"/v1/jobs/{jobs['denied']}").json()["status"] == "failing")
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    pictures = {
        "task": "image-classification", "model": f"{scene.s3}/vit", "output": {"uri": f"{scene.s3}/out/pictures/"},
        "input": {"uri": f"{scene.s3}/in/pictures.parquet", "keep": ["id"]},
    }  # fmt: skip
    jobs |= {
        "good": asked.job(scene.spec("good", notify=f"{side.url}/hook?key={HOOK}")),
        "unheard": asked.job(scene.spec("unheard", notify=f"{nobody}/hook?key={HOOK}")),
        "model gone": asked.job(scene.spec("model-gone") | {"model": f"{scene.s3}/gone"}),
        "hub": asked.job(scene.spec("hub") | {"model": "org/model"}),
        "pictures": asked.job(pictures),
        "cancelled": asked.job(scene.spec("cancelled")),
    }
    assert asked("POST", f"/v1/jobs/{jobs['cancelled']}:cancel").status_code == 202
    assert asked("GET", f"/v1/jobs/{jobs['good']}", token="foreign").status_code == 404
    return jobs


def looked_at(asked: Asked, jobs: dict[str, str]) -> None:
    """Everything that can be read of the jobs."""
    for job in jobs.values():
        for part in ("", "/errors", "/shards", "/manifest", "/results"):
            asked("GET", f"/v1/jobs/{job}{part}")
        asked("GET", f"/v1/jobs/{job}/results", headers={"Accept": "application/vnd.apache.arrow.stream"})
    rows = asked("GET", f"/v1/jobs/{jobs['pictures']}/results").json()["rows"]
    codes = [row["error"] and row["error"]["code"] for row in rows]
    assert codes == [None, "not_found", *["uri_not_allowed"] * 4]
    for path in ("/v1/jobs", "/v1/workers", "/v1/tasks", "/readyz", "/openapi.json"):
        assert asked("GET", path).status_code == 200
    assert asked("GET", "/metrics", token="admin").status_code == 200


def command_lines(scene: Scene, jobs: dict[str, str], url: str) -> list[tuple[list[str], dict[str, str]]]:
    """Commands, with what is different in their environment."""
    wrong = quote(SECRETS["another Redis password"], safe="")
    elsewhere = url.replace(quote(SECRETS["the Redis password"], safe=""), wrong)
    at = ["submit", "--task", "text-classification", "--model", "org/private", "--output", f"{scene.s3}/out/cli/"]
    return [
        (["watch", jobs["model gone"]], {}),
        (["results", f"{scene.s3}/out/denied/"], {"AWS_SECRET_ACCESS_KEY": SECRETS["another S3 key"]}),
        (["status"], {"NIGHTSHIFT_REDIS_URL": elsewhere}),
        ([*at, "--input", f"{scene.s3}/in/reviews.parquet?{SIGNED}"], {}),
        (["token", "revoke", scene.tokens["search"]], {}),
    ]
