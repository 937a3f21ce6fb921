"""Masking: what looks like a secret goes, what a text is about stays, and no text makes it slow."""

import re

import pytest

from schemas.errors import Problem, RecordError, SpecError
from schemas.job import parse_spec
from schemas.manifest import ErrorInfo
from schemas.redaction import _RULES, masked, shown
from tests.unit.regex_steps import Steps

SIGNED = "https://b.s3.amazonaws.com/k.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F2026&X-Amz-Signature=5e5e"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            f"'{SIGNED}': https:// is not supported",
            "'https://b.s3.amazonaws.com/k.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=***&X-Amz-Signature=***'"
            ": https:// is not supported",
        ),
        ("s3://b/k?Signature=a%2Fb%3D&AWSAccessKeyId=AK end", "s3://b/k?Signature=***&AWSAccessKeyId=*** end"),
        ("see?u=https%3A%2F%2Fh%2F%3Fsig%3Dabc%26se%3D1", "see?u=https%3A%2F%2Fh%2F%3Fsig%3D***%26se%3D1"),
        ("https://hooks.example/x?key=abc&token=d", "https://hooks.example/x?key=***&token=***"),
        ("redis://:pass@host:6379/0", "redis://***@host:6379/0"),
        ("s3://AKIA:se/cr+et@bucket/key", "s3://***@bucket/key"),
        ("https://token@host/x", "https://***@host/x"),
        ("Credential: AWS4-HMAC-SHA256 Credential=AKIA/2026, Signature=ab", "Credential: AWS4-HMAC-SHA256 ***"),
        ("Authorization: Bearer nst_0123456789ab_abcdefghijkl", "Authorization: Bearer ***"),
        ("there is no token 'nst_0123456789ab_abc-def_ghi'", "there is no token 'nst_0123456789ab_***'"),
        ("HF_TOKEN=hf_abcdefghijklmnopqrst", "HF_TOKEN=hf_***"),
    ],
)
def test_secrets_go(text: str, left: str) -> None:
    assert masked(text) == left
    assert masked(left) == left


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/path/me@example.com/part-0.parquet",
        "http://127.0.0.1:8080/path@2/x",
        "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/reviews/me@example.com",
        "redis://localhost:6379/0",
        "send the header 'Authorization: Bearer TOKEN'",
        "'tokens=5' is no parameter; s3://b/keys/a?versionId=3",
        "nightshift token revoke 3f9a1c0b2d4e",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text


def test_every_message_is_masked() -> None:
    assert "5e5e" not in str(RecordError("uri_not_allowed", SIGNED)) + RecordError("x", SIGNED).message
    assert "5e5e" not in Problem("uri", SIGNED).message + str(SpecError.of("uri", SIGNED))
    assert "5e5e" not in ErrorInfo(code="internal", message=SIGNED).message


def test_of_a_mapping_where_none_belongs_only_that_is_said() -> None:
    assert (shown({"secret": "x"}), shown(["x"]), shown(5), shown("x")) == ("a mapping", "a list", "5", "'x'")
    with pytest.raises(SpecError) as refused:
        parse_spec({"task": "ner", "model": {"secret": "5e5e"}, "input": ["5e5e"], "output": {"uri": {"a": "5e5e"}}})
    assert "5e5e" not in str(refused.value)


#: How a text begins, and what it goes on with again and again.
TEXTS = [
    ("", "a://b:"), ("", "://"), ("", "://@"), ("", "a" * 20 + "://"), ("a://", "b"), ("a://", "b:"), ("", "?key="),
    ("?key=", "%2"), ("", "?key=%2"), ("", "%3Fsig%3D"), ("", "AWS4-HMAC-SHA256 "), ("", "Bearer "), ("Bearer", " "),
    ("", "nst_0_"), ("nst_", "0"), ("hf_", "a"),
]  # fmt: skip


def growth(pattern: "re.Pattern[str]", first: str, piece: str, least: int = 1000) -> float:
    """Return how many times more steps a search takes over four times the text: 4, or 16 if they are its square."""
    counts = []
    for size in (least, 4 * least):
        text = first + piece * (size // len(piece))
        steps = Steps(pattern)
        assert steps.matches(text) == len(pattern.findall(text)), "the steps that are counted are of another pattern"
        counts.append(steps.count)
    return counts[1] / counts[0]


@pytest.mark.parametrize(("first", "piece"), TEXTS)
def test_no_text_is_slow(first: str, piece: str) -> None:
    assert all(growth(pattern, first, piece) < 6 for _, pattern, _ in _RULES)


def test_without_its_limits_a_rule_would_be_slow() -> None:
    pattern = _RULES[0][1]
    endless = re.compile(re.sub(r"\{0,\d+\}", "*", pattern.pattern), pattern.flags)
    assert growth(endless, "", "a://b:", 300) > 12
