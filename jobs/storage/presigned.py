"""GETs that boto3 signs and a plain session of botocore's sends: many small objects and long listings at a third, or a
fifteenth, of the CPU that a call of boto3's takes (docs/decisions/0008).

Endpoint, addressing, credentials and their renewal stay the client's. An answer that isn't plain success isn't
looked into here: the caller asks again through boto3, which retries, follows a bucket to its region and names the
error.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import AWSRequest
from botocore.compat import unquote_str
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Seconds that a signature is good for; each is used at once.
_EXPIRES_S = 300


@dataclass(frozen=True)
class Page:
    """A page of a listing: (key, bytes, etag) of each object, and the token of the next page, if there is one."""

    objects: list[tuple[str, int, str]]
    token: str | None


class SignedGets:
    """Threads may share one."""

    def __init__(self, client: "S3Client", ca_bundle: str | None, connections: int) -> None:
        self._client = client
        kept: Any = {"verify": ca_bundle or True, "timeout": (10, 60), "max_pool_connections": connections}
        self._http = URLLib3Session(proxies=get_environ_proxies(client.meta.endpoint_url), **kept)

    def read(self, bucket: str, key: str, etag: str, offset: int, length: int) -> bytes | None:
        """Return these bytes of the object with this etag; None if the request didn't succeed."""
        headers = {"If-Match": etag, "Range": f"bytes={offset}-{offset + length - 1}"}
        data = self._get("get_object", {"Bucket": bucket, "Key": key}, headers)
        return data if data is not None and len(data) == length else None

    def page(self, bucket: str, prefix: str, token: str | None) -> Page | None:
        """Return the next page of a listing, the first one without a token; None if the request didn't succeed."""
        params = {"Bucket": bucket, "Prefix": prefix, "EncodingType": "url"}
        data = self._get("list_objects_v2", params | ({"ContinuationToken": token} if token else {}), {})
        if data is None:
            return None
        try:
            return _parsed(data)
        except (ET.ParseError, ValueError):
            return None

    def _get(self, operation: str, params: dict[str, Any], headers: dict[str, str]) -> bytes | None:
        try:
            url = self._client.generate_presigned_url(operation, Params=params, ExpiresIn=_EXPIRES_S)
            answer = self._http.send(AWSRequest("GET", url, headers).prepare())
            data: bytes = answer.content  # read in any case, so that the connection can be used again
            return data if answer.status_code in (200, 206) else None
        except BotoCoreError:
            return None


def _parsed(data: bytes) -> Page:
    root = ET.fromstring(data)
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    if root.tag != f"{space}ListBucketResult" or root.findtext(f"{space}EncodingType") != "url":
        raise ValueError(f"not the listing asked for but {root.tag}")
    truncated = root.findtext(f"{space}IsTruncated") == "true"
    token = root.findtext(f"{space}NextContinuationToken") if truncated else None
    if truncated and not token:
        raise ValueError("a part of a listing without a token for the rest")
    return Page(list(_objects(root, space)), token)


def _objects(root: ET.Element, space: str) -> Iterator[tuple[str, int, str]]:
    names = (f"{space}Key", f"{space}Size", f"{space}ETag")
    for item in root.iterfind(f"{space}Contents"):
        key, size, etag = (item.findtext(name) for name in names)
        if key is None or size is None or etag is None:
            raise ValueError("an object without key, size or etag")
        yield unquote_str(key), int(size), etag
