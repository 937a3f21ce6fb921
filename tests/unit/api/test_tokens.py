"""Tokens: kept as hashes, found again in constant steps, ended by time or by hand; and who a request comes from."""

import json
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from jobs.api.auth import LOCAL, Authenticator, Principal, is_loopback
from jobs.api.tokens import Scope, Tokens
from jobs.cli.main import cli
from jobs.settings import Settings
from jobs.webhooks.signing import signing_key
from schemas.errors import Forbidden, NotFound, ServiceUnavailable, SpecError, TooManyRequests, Unauthenticated

BOTH = (Scope.SUBMIT, Scope.READ)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens.json")


def a_token(tokens: Tokens, tenant: str = "search", **more: object) -> tuple[str, str]:
    given: dict[str, object] = {"inputs": [f"s3://raw/{tenant}/"], "outputs": [f"s3://done/{tenant}/"]} | more
    return tokens.new(tenant, BOTH, **given)  # type: ignore[arg-type]


def deployed(tokens: Tokens, host: str = "0.0.0.0", **more: object) -> Authenticator:
    return Authenticator(Settings.read(redis_url="redis://localhost:1/0", **more), tokens, host)


def test_the_file_holds_no_token_and_is_its_owners_alone(tokens: Tokens) -> None:
    id, secret = a_token(tokens)
    text = tokens.file.read_text()
    assert id in text
    assert secret not in text
    assert secret.split("_", 2)[2] not in text
    assert stat.S_IMODE(tokens.file.stat().st_mode) == 0o600


def test_a_token_is_found_by_its_secret_alone(tokens: Tokens) -> None:
    id, secret = a_token(tokens)
    found = tokens.find(secret)
    assert found is not None
    assert (found.id, found.tenant, found.inputs) == (id, "search", ("s3://raw/search/",))
    other = a_token(tokens, "ads")[1]
    mixed = f"nst_{id}_{other.split('_', 2)[2]}"
    for wrong in (
        "",
        "nst",
        "nst_",
        f"nst_{id}_",
        secret[:-1],
        secret + "x",
        secret.upper(),
        mixed,
        found.hash,
        "é" * 9,
    ):
        assert tokens.find(wrong) is None, wrong
    assert tokens.find(secret + " " * 10_000) is None


def test_a_token_ends_by_time_and_by_hand(tokens: Tokens) -> None:
    id, secret = a_token(tokens)
    short = a_token(tokens, expires=timedelta(seconds=60))[1]
    found = tokens.find(short)
    assert found is not None
    assert found.works(datetime.now(UTC))
    assert not found.works(datetime.now(UTC) + timedelta(seconds=61))
    elsewhere = Tokens(tokens.file)
    assert elsewhere.find(secret) is not None
    first = tokens.revoke(id).revoked_at
    assert tokens.revoke(id).revoked_at == first, "once revoked, it stays as it is"
    assert elsewhere.find(secret) is None, "the file is read again when it has changed"
    with pytest.raises(NotFound, match="token list"):
        tokens.revoke("nobody")


@pytest.mark.parametrize("bad", ["s3://raw/search", "s3://raw/*/", "s3://raw/../x/", "http://raw/", "s3:///x/"])
def test_a_prefix_allows_what_is_below_it_and_no_more(tokens: Tokens, bad: str) -> None:
    with pytest.raises(SpecError):
        a_token(tokens, inputs=[bad])
    assert tokens.list() == []


def test_what_makes_no_sense_is_refused(tokens: Tokens) -> None:
    for tenant in ("", "Search", "a/b", "-x", "x" * 64, "a b"):
        with pytest.raises(SpecError, match="no name"):
            a_token(tokens, tenant)
    with pytest.raises(SpecError, match="allows nothing"):
        tokens.new("search", [])
    with pytest.raises(SpecError, match="needs inputs and outputs"):
        tokens.new("search", [Scope.SUBMIT])
    for limit in ({"max_running_jobs": 0}, {"requests_per_s": 0.0}):
        with pytest.raises(SpecError, match="not above zero"):
            tokens.new("search", [Scope.READ], **limit)
    tokens.new("search", [Scope.READ])


def test_many_make_tokens_at_once_and_none_is_lost(tokens: Tokens) -> None:
    threads = [threading.Thread(target=a_token, args=[Tokens(tokens.file), f"t{n}"]) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(token.tenant for token in tokens.list()) == sorted(f"t{n}" for n in range(20))


def test_a_damaged_file_lets_nobody_in_and_is_left_alone(tokens: Tokens) -> None:
    secret = a_token(tokens)[1]
    tokens.file.write_text("{" + tokens.file.read_text())
    for use in (lambda: tokens.find(secret), lambda: a_token(tokens), tokens.list):
        with pytest.raises(ServiceUnavailable, match="damaged"):
            use()
    tokens.file.unlink()
    assert tokens.find(secret) is None


def test_a_request_is_its_tenants(tokens: Tokens) -> None:
    id, secret = a_token(tokens, max_running_jobs=5)
    authenticator = deployed(tokens)
    for header in (f"Bearer {secret}", f"bearer  {secret} "):
        principal = authenticator.authenticate(header, "203.0.113.9")
        assert principal == Principal(
            "search", frozenset(BOTH), ("s3://raw/search/",), ("s3://done/search/",), 5, token_id=id
        )
    assert principal.may("read")
    assert not principal.may("admin")
    principal.require("submit")
    with pytest.raises(Forbidden, match="admin"):
        principal.require("admin")
    assert principal.sees("search")
    assert not principal.sees("ads")
    allowed = Settings(allowed_inputs=["s3://raw/", "s3://public/"]).narrowed(principal.inputs, principal.outputs)
    assert (allowed.allowed_inputs, allowed.allowed_outputs) == (["s3://raw/search/"], ["s3://done/search/"])
    allowed.check_allowed("s3://raw/search/2026/", allowed.allowed_inputs, "input.uri")
    for uri in ("s3://raw/search", "s3://raw/searching/", "s3://raw/", "/raw/search/", "s3://RAW/search/"):
        with pytest.raises(SpecError, match="outside"):
            allowed.check_allowed(uri, allowed.allowed_inputs, "input.uri")
    with pytest.raises(SpecError, match="outside"):
        allowed.check_allowed("s3://raw/search/x/", allowed.allowed_outputs, "output.uri")


def test_an_admin_sees_every_tenant(tokens: Tokens) -> None:
    secret = tokens.new("ops", [Scope.ADMIN], ["*"], ["*"])[1]
    principal = deployed(tokens).authenticate(f"Bearer {secret}", "203.0.113.9")
    assert principal.may("submit")
    assert principal.sees("search")
    assert Settings(allowed_inputs=["s3://raw/"]).narrowed(principal.inputs).allowed_inputs == ["s3://raw/"]


def test_no_token_no_entry(tokens: Tokens) -> None:
    id, secret = a_token(tokens)
    authenticator = deployed(tokens, "127.0.0.1")
    tokens.revoke(id)
    headers = [None, "", "Bearer", "Bearer ", secret, f"Basic {secret}", f"Bearer {secret}", "Bearer nst_x_y"]
    for header in headers:
        with pytest.raises(Unauthenticated) as refused:
            authenticator.authenticate(header, "127.0.0.1")
        assert secret not in refused.value.message


def test_only_an_embedded_server_on_loopback_needs_no_token(tokens: Tokens) -> None:
    embedded = Authenticator(Settings.read(), tokens, "127.0.0.1")
    embedded.check_start()
    assert embedded.authenticate(None, "127.0.0.1") is LOCAL
    with pytest.raises(Unauthenticated):
        embedded.authenticate(None, "192.0.2.7")  # behind a proxy that says whom it asks for
    with pytest.raises(Unauthenticated):
        embedded.authenticate("Bearer wrong", "127.0.0.1")
    for closed in (Authenticator(Settings.read(), tokens, "0.0.0.0"), deployed(tokens, "127.0.0.1")):
        with pytest.raises(SpecError, match="holds no token that works"):
            closed.check_start()
        with pytest.raises(Unauthenticated):
            closed.authenticate(None, "127.0.0.1")
    a_token(tokens)
    deployed(tokens).check_start()


def test_loopback_is_known_in_every_spelling() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "", "::ffff:10.0.0.1")))


def test_a_tenant_is_held_to_its_rate_and_others_are_not(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Mock(return_value=1000.0)
    monkeypatch.setattr("jobs.api.auth.time", Mock(monotonic=clock))
    one, also, other = a_token(tokens)[1], a_token(tokens)[1], a_token(tokens, "ads")[1]
    authenticator = deployed(tokens, requests_per_s=0.5)
    for secret in (one, also):
        authenticator.authenticate(f"Bearer {secret}", "")
    with pytest.raises(TooManyRequests, match="'search'") as refused:
        authenticator.authenticate(f"Bearer {one}", "")
    assert refused.value.retry_after_s == 1
    clock.return_value += refused.value.retry_after_s
    authenticator.authenticate(f"Bearer {also}", "")
    with pytest.raises(TooManyRequests):
        authenticator.authenticate(f"Bearer {also}", "")
    authenticator.authenticate(f"Bearer {other}", "")
    quick = a_token(tokens, "quick", requests_per_s=1000)[1]
    for _ in range(200):
        authenticator.authenticate(f"Bearer {quick}", "")


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["token", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_NOTIFY_SECRET", "of-the-deployment")
    made = ["new", "--tenant", "search", "--inputs", "s3://raw/search/", "--outputs", "s3://done/search/"]
    code, out, err = run(*made, "--max-running-jobs", "5", "--expires", "90d")
    assert code == 0
    secret = out.strip()
    assert secret not in err
    assert signing_key("of-the-deployment", "search") in err
    assert "of-the-deployment" not in err
    found = Tokens(Settings.read().tokens_path).find(secret)
    assert found is not None
    assert found.expires_at is not None
    assert found.expires_at - found.created_at == timedelta(days=90)
    code, out, err = run(*made, "--json")
    assert set(json.loads(out)) == {"id", "token", "tenant", "notify_key"}
    assert run("revoke", found.id)[0] == 0
    listed = [line.split()[:3] for line in run("list")[1].splitlines()]
    assert listed == [[found.id, "revoked", "search"], [json.loads(out)["id"], "works", "search"]]
    shown = run("list", "--json")[1]
    assert found.hash not in shown
    assert secret not in shown
    assert run(*made, "--expires", "soon")[0] == 2
    assert run(*made, "--scopes", "root")[0] == 2
