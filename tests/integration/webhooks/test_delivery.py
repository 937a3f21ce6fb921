"""Webhooks to a real receiver on loopback: signed, sent again until taken, and lost with no process and no Redis."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from jobs.settings import Settings
from jobs.state import State
from jobs.supervisor.recovery import Standing, rebuild
from jobs.supervisor.sweep import sweep
from jobs.webhooks import policy, signing
from jobs.webhooks.delivery import Notifier
from jobs.webhooks.ssrf_safe_post import post
from schemas.errors import Permanent, ServiceUnavailable, SpecError, Transient
from schemas.job import AcceptedJob
from schemas.manifest import JobStatus
from tests.acceptance.cli import nightshift, options, worker
from tests.integration.harness import House, spec_for, write_reviews
from tests.servers import wait_for

SECRET = "signs-them-all"


class Receiver:
    """What a user would run: takes POSTs on loopback, and answers with these statuses, the last one from then on."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses) or [204]
        self.taken: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.taken.append((self.path, dict(self.headers), body))
                status = receiver._statuses.pop(0) if len(receiver._statuses) > 1 else receiver._statuses[0]
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"{receiver.url}elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks?for=jobs&"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def house(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> House:
    given = {"NOTIFY_SECRET": SECRET, "NOTIFY_NETWORKS": '["127.0.0.0/8"]', "NOTIFY_BACKOFF_S": "0.05"}
    for name, value in (given | {"NOTIFY_TRIES": "4", "NOTIFY_TIMEOUT_S": "120"}).items():
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    return House(Settings.read())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_reviews(tmp_path / "in" / "a.parquet", ["fine", "bad"])


def cancelled(house: House, classifier: Path, source: Path, url: str, output: str = "out") -> AcceptedJob:
    """A job that wants a webhook and waits for nothing but its end."""
    spec = spec_for(
        classifier, str(source), f"{source.parent.parent}/{output}/", notify=url, labels={"tenant": "search"}
    )
    job = house.submit(spec)
    assert house.state.jobs.cancel(job.id)
    return job


def settled(house: House, job: AcceptedJob) -> Callable[[], bool]:
    return lambda: house.catalog.is_marked(job.id) and not house.state.webhooks.waiting()


def swept(house: House, job: AcceptedJob) -> Callable[[], bool]:
    """What the sweep does, and the control process on its message, until the webhook is settled."""

    def once() -> bool:
        for due, output in house.state.webhooks.take_due(60):
            house.control.notify_job(due, output)
        return settled(house, job)()

    return once


def checked(taken: tuple[str, dict[str, str], bytes]) -> Any:
    """The message, once its signature is checked as a receiver would."""
    path, headers, body = taken
    assert path == "/hooks?for=jobs&"
    return Webhook(signing.signing_key(SECRET, "search")).verify(body, headers)


def test_a_job_that_ends_is_told_of(house: House, classifier: Path, source: Path) -> None:
    with Receiver(204) as receiver:
        spec = spec_for(classifier, str(source), f"{source.parent.parent}/out/", notify=receiver.url)
        spec = spec.model_copy(update={"labels": {"tenant": "search"}})
        manifest = house.run(spec)
        wait_for("the webhook is settled", lambda: house.catalog.is_marked(manifest.job))
    assert len(receiver.taken) == 1
    said = checked(receiver.taken[0])
    assert (said["event"], said["job"], said["status"], said["rows"]) == ("job.ended", manifest.job, "succeeded", 2)
    assert (said["output"], said["parts"], said["labels"]) == (spec.output.uri, 1, {"tenant": "search"})
    assert receiver.taken[0][1]["webhook-id"] == manifest.job
    assert SECRET not in str(receiver.taken)


def test_it_is_sent_again_until_it_is_taken(
    house: House, classifier: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Receiver(500, 302, 200) as receiver:
        job = cancelled(house, classifier, source, receiver.url)
        manifest = house.finish(job)
        assert manifest.status is JobStatus.CANCELLED
        wait_for("the webhook is settled", swept(house, job))
    assert [checked(taken)["status"] for taken in receiver.taken] == ["cancelled"] * 3
    assert [taken[1]["webhook-id"] for taken in receiver.taken] == [job.id] * 3
    assert "/hooks" not in caplog.text, "a URL's path may be a secret"


def test_it_is_given_up_at_last_and_that_is_logged(
    house: House, classifier: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Receiver(500) as receiver:
        job = cancelled(house, classifier, source, receiver.url)
        house.finish(job)
        wait_for("the webhook is settled", swept(house, job))
    assert len(receiver.taken) == 4
    assert [record.levelname for record in caplog.records if record.getMessage() == "webhook_given_up"] == ["ERROR"]


def test_tries_that_end_their_process_come_to_an_end(house: House, classifier: Path, source: Path) -> None:
    with Receiver() as receiver:
        job = cancelled(house, classifier, source, receiver.url)
        house.state.webhooks.add(job.id, job.output)
        house.state._redis.hset(f"nightshift:notice:{job.id}", "tries", 4)
        house.finish(job)
        wait_for("it is given up", settled(house, job))
    assert receiver.taken == []


def test_messages_that_come_twice_use_up_no_tries(
    house: House, classifier: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of them back to back are one try: the next one is due later."""
    patient = House(house.settings.model_copy(update={"notify_backoff_s": 3600}))
    notifier = Notifier(patient.settings, patient.state, patient.catalog)
    with Receiver(500) as receiver:
        job = cancelled(patient, classifier, source, receiver.url)
        with monkeypatch.context() as broken:
            broken.setattr(Notifier, "submit", lambda *_: None)
            patient.finish(job)
        for _ in range(8):
            notifier.deliver(job.id, job.output)
        assert len(receiver.taken) == 1
        assert patient.state.webhooks.waiting() == 1
        assert patient.state.webhooks.take_due(60) == []
        patient.state.webhooks.again(job.id, 0)
        assert patient.state.webhooks.take_due(60) == [(job.id, job.output)]
        notifier.deliver(job.id, job.output)
    assert len(receiver.taken) == 2


def test_a_crash_before_it_is_sent_loses_nothing(
    house: House, classifier: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control process dies with the manifest written: at once, or with the end noted and nothing sent."""

    def died(*_: object) -> None:
        raise SystemExit

    with Receiver() as receiver:
        job = cancelled(house, classifier, source, receiver.url)
        for method in ("add", "begin"):
            with monkeypatch.context() as broken:
                broken.setattr(f"jobs.state.webhook_queue.WebhookQueue.{method}", died)
                broken.setattr(Notifier, "submit", Notifier.deliver)
                with pytest.raises(SystemExit):
                    house.finish(job)
        house.state._redis.zadd("nightshift:notices", {job.id: 0})  # its lease ran out
        asked: list[str] = []
        monkeypatch.setattr(house.broker, "notify_job", lambda job, output: asked.append(job))
        sweep(house.state, house.broker, house.settings, "a")
        assert asked == [job.id]
        house.control.notify_job(job.id, job.output)
        wait_for("the webhook is settled", settled(house, job))
    assert len(receiver.taken) == 1


def test_redis_lost_with_a_webhook_due(
    house: House, classifier: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as receiver:
        job = cancelled(house, classifier, source, receiver.url)
        with monkeypatch.context() as broken:
            broken.setattr(Notifier, "submit", lambda *_: None)
            house.finish(job)
        house.state._redis.flushall()
        for _ in range(2):
            found = list(rebuild(house.state, house.broker, house.catalog))
            assert [seen.standing for seen in found] == [Standing.UNTOLD]
        assert house.state.webhooks.take_due(60) == [(job.id, job.output)]
        house.control.notify_job(job.id, job.output)
        wait_for("the webhook is settled", settled(house, job))
        assert list(rebuild(house.state, house.broker, house.catalog)) == []
        house.control.notify_job(job.id, job.output)
        house.state.webhooks.add(job.id, job.output)  # by a rebuilding that began before
        notifier = Notifier(house.settings, house.state, house.catalog)

        def settles_it() -> bool:
            notifier.deliver(job.id, job.output)  # does nothing while the thread of `notify_job` has the job in hand
            return not house.state.webhooks.waiting()

        wait_for("it is settled", settles_it)
    assert len(receiver.taken) == 1


def test_redis_away_puts_it_off(house: House, classifier: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = cancelled(house, classifier, source, "http://127.0.0.1:1/")
    with monkeypatch.context() as broken:
        broken.setattr(Notifier, "submit", lambda *_: None)
        house.finish(job)

    def away(*_: object) -> int:
        raise ServiceUnavailable("Redis is away")

    monkeypatch.setattr("jobs.state.webhook_queue.WebhookQueue.begin", away)
    with pytest.raises(ServiceUnavailable):
        Notifier(house.settings, house.state, house.catalog).deliver(job.id, job.output)
    assert house.state.webhooks.waiting() == 1


def test_no_private_address_is_asked(house: House, classifier: Path, source: Path) -> None:
    """Neither by its number, nor by a name; nor once the job is in, where the settings have changed."""
    with Receiver() as receiver:
        closed = Settings.read(notify_networks=[])
        port = receiver.url.split(":")[2].split("/")[0]
        with pytest.raises(SpecError, match="no public address"):
            policy.check_notify(receiver.url, closed)
        for url in (receiver.url, f"http://localhost:{port}/"):
            with pytest.raises(Permanent, match="no public address"):
                post(url, b"{}", {}, 2, closed.notify_networks)
        job = cancelled(house, classifier, source, receiver.url)
        House(closed).finish(job)
        wait_for("it is given up", settled(house, job))
        hosts = Settings.read(notify_hosts=["hooks.example.com"])
        job = cancelled(house, classifier, source, receiver.url, "out2")
        House(hosts).finish(job)
        wait_for("it is given up", settled(house, job))
    assert receiver.taken == []


@contextmanager
def slow_server(first: bytes, again: bytes) -> Iterator[str]:
    """A server that answers with `first`, then with `again` each 0.1 s for as long as the client stays."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):  # the client has left
            connection.sendall(first)
            while not over.wait(0.1):
                connection.sendall(again)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        over.set()
        thread.join()
        listener.close()


@pytest.mark.parametrize("answer", [(b"", b""), (b"", b"H"), (b"nonsense\r\n", b"")])
def test_a_receiver_that_does_not_answer_is_left(answer: tuple[bytes, bytes]) -> None:
    """The server goes on for ever: whoever isn't cut off hangs here."""
    with slow_server(*answer) as url, pytest.raises(Transient, match="doesn't answer"):
        post(url, b"{}", {}, 1, ["127.0.0.0/8"])


def test_headers_without_end_hold_nobody_up() -> None:
    # Transient if the cut connection's reset comes before the end of what was read.
    with slow_server(b"HTTP/1.1 200 OK\r\nX: ", b"y") as url, suppress(Transient):
        assert post(url, b"{}", {}, 1, ["127.0.0.0/8"]) == 200


def test_tls_is_checked(house: House) -> None:
    with Receiver() as receiver, pytest.raises(Transient, match="SSL"):
        post(receiver.url.replace("http:", "https:"), b"{}", {}, 120, ["127.0.0.0/8"])


def test_a_deployment_sends_it_from_the_control_process(
    house: House, classifier: Path, source: Path, state: State, tmp_path: Path
) -> None:
    """By the command line and a real worker; the receiver is down at first."""
    with Receiver(503, 204) as receiver:
        chosen = options(classifier, source, tmp_path / "out", "--set", f"notify={receiver.url}")
        submitted = nightshift("submit", *chosen, "--set", "labels.tenant=search")
        assert submitted.code == 0, submitted.err
        id = submitted.out.strip()
        assert state.jobs.cancel(id)
        with worker(tmp_path / "worker.log", "--groups", "control"):
            wait_for("the webhook was taken", lambda: len(receiver.taken) == 2)
            wait_for("it is settled", lambda: house.catalog.is_marked(id))
    assert [checked(taken)["job"] for taken in receiver.taken] == [id, id]
    log = (tmp_path / "worker.log").read_text()
    assert "webhook_failed" in log
    assert "webhook_delivered" in log
    assert SECRET not in log


def test_a_command_that_runs_the_job_itself_sends_none(
    classifier: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_NOTIFY_SECRET", SECRET)
    done = nightshift("run", *options(classifier, source, tmp_path / "out", "--set", "notify=https://example.com/"))
    assert done.code == 2
    assert "notify: webhooks are sent by a deployment" in done.err
    assert not (tmp_path / "out").exists()
