"""Which error is an answer of S3? What may pass is tried again."""

import pytest
from botocore.exceptions import ClientError

from jobs.storage.s3 import _translated
from schemas.errors import AccessDenied, AlreadyExists, NightshiftError, NotFound, Permanent, Transient


@pytest.mark.parametrize(
    ("code", "status", "operation", "kind"),
    [
        ("ExpiredToken", 400, "GetObject", Transient),
        ("400", 400, "HeadObject", Transient),
        ("RequestTimeout", 400, "PutObject", Transient),
        ("RequestTimeTooSkewed", 403, "GetObject", Transient),
        ("TooManyRequests", 429, "GetObject", Transient),
        ("429", 429, "HeadObject", Transient),
        ("SlowDown", 503, "GetObject", Transient),
        ("InternalError", 500, "GetObject", Transient),
        ("InvalidArgument", 400, "GetObject", Permanent),
        ("AccessDenied", 403, "GetObject", AccessDenied),
        ("NoSuchKey", 404, "GetObject", NotFound),
        ("PreconditionFailed", 412, "PutObject", AlreadyExists),
    ],
)
def test_an_answer_is_one_of_our_errors(code: str, status: int, operation: str, kind: type[NightshiftError]) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(kind) as error, _translated("s3://b/k"):
        raise ClientError(answer, operation)  # type: ignore[arg-type]
    assert type(error.value) is kind
