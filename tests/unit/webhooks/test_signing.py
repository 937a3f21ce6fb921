"""Webhooks without a network: which addresses may be asked, how a request is signed, when it is sent again."""

import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from jobs.settings import Settings
from jobs.webhooks import policy, signing
from jobs.webhooks.ssrf_safe_post import check_literal, resolved
from schemas.errors import Permanent, SpecError, Transient

PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(Permanent, match="no public address"):
        check_literal(address, [])


@pytest.mark.parametrize("address", ["9.9.9.9", "2620:fe::fe", "[2620:fe::fe]", "::ffff:9.9.9.9", "64:ff9b::909:909"])
def test_a_public_address_is_not(address: str) -> None:
    check_literal(address, [])
    check_literal("hooks.example.com", [])


def test_networks_are_allowed_one_by_one() -> None:
    check_literal("10.1.2.3", ["10.1.0.0/16"])
    check_literal("::ffff:10.1.2.3", ["10.1.0.0/16"])
    check_literal("::1", ["10.1.0.0/16", "::1/128"])
    for address in ("10.2.0.1", "127.0.0.1", "::1"):
        with pytest.raises(Permanent):
            check_literal(address, ["10.1.0.0/16"])


def test_a_name_is_judged_by_its_addresses() -> None:
    with pytest.raises(Permanent, match="'localhost' is at"):
        resolved("localhost", 80, [])
    assert resolved("localhost", 80, ["127.0.0.0/8", "::1/128"])
    for spelling in ("127.1", "2130706433", "0x7f000001", "0177.0.0.1"):
        with pytest.raises(Permanent, match=r"127\.0\.0\.1"):
            resolved(spelling, 80, [])
    with pytest.raises(Transient, match="resolved"):
        resolved("nobody.invalid", 80, [])
    with pytest.raises(Permanent, match="no host name"):
        resolved("a" * 64 + ".example.com", 80, [])


def test_a_setting_that_is_no_network_is_refused() -> None:
    for bad in ("10.0.0.1/8", "localhost", "10.0.0.0/40"):
        with pytest.raises(SpecError, match="NOTIFY_NETWORKS"):
            Settings.read(notify_networks=[bad])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://user:pass-word@hooks.example.com/", "password"),
        ("https://other.example.org/", "allowed: hooks.example.com, 10.*, 9.9.9.9"),
        ("https://hooks.example.com.evil.org/", "may get no webhooks"),
        ("http://10.0.0.1/", "no public address"),
    ],
)
def test_a_job_may_not_ask_for_every_url(url: str, said: str) -> None:
    settings = Settings.read(notify_secret="s", notify_hosts=["hooks.example.com", "10.*", "9.9.9.9"])
    with pytest.raises(SpecError, match=said) as refused:
        policy.check_notify(url, settings)
    assert "pass-word" not in refused.value.message
    policy.check_notify("https://Hooks.Example.com:8443/a?b", settings)
    policy.check_notify("http://9.9.9.9/", settings)


def test_without_a_key_nothing_is_promised() -> None:
    with pytest.raises(SpecError, match="NOTIFY_SECRET"):
        policy.check_notify("https://hooks.example.com/", Settings.read())


def test_a_signature_is_that_of_standard_webhooks() -> None:
    key = signing.signing_key("secret", "search")
    # printf 'webhooks of search' | openssl dgst -sha256 -hmac secret -binary | base64
    assert key == "whsec_OkDyQ3DP/JAZ5pGrdm4Ko1NQAo48WXjP+MZGTSiB16Y="
    sent = signing.headers("job-1", b"{}", key, 1_700_000_000.9)
    # printf 'job-1.1700000000.{}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:… -binary | base64
    assert {name: value for name, value in sent.items() if name.startswith("webhook-")} == {
        "webhook-id": "job-1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1,y0U7nO4fj6I7XO7nYzp3tAM5GuoUMGtNjBqx3w60+cs=",
    }


def test_a_signature_holds_for_its_id_time_body_and_key_alone() -> None:
    key, now = signing.signing_key("secret", "search"), time.time()
    sent = signing.headers("job-1", b'{"job": "job-1"}', key, now)
    receiver = Webhook(key)
    assert receiver.verify(b'{"job": "job-1"}', sent) == {"job": "job-1"}
    forged = [
        (receiver, b"{}", sent),
        (receiver, b'{"job": "job-1"}', sent | {"webhook-id": "job-2"}),
        (receiver, b'{"job": "job-1"}', sent | {"webhook-timestamp": str(int(now) + 1)}),
        (receiver, b"{}", signing.headers("job-1", b"{}", key, now - 400)),
        (Webhook(signing.signing_key("secret", "ads")), b'{"job": "job-1"}', sent),
        (Webhook(signing.signing_key("another", "search")), b'{"job": "job-1"}', sent),
    ]
    for by, content, bearing in forged:
        with pytest.raises(WebhookVerificationError):
            by.verify(content, bearing)


def test_waits_grow_and_end() -> None:
    settings = Settings.read()
    waits = [policy.next_try_s(tries, settings, jitter=1) for tries in range(1, 9)]
    assert waits == [10, 30, 90, 270, 810, 2430, 3600, None]
    assert all(8 <= (policy.next_try_s(1, settings) or 0) <= 12 for _ in range(100))
