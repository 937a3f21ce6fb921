"""S3 as a store, through boto3: listing, reads pinned by `If-Match`, creation by `If-None-Match`.

docs/decisions/0002 says why reads don't go through pyarrow's S3 filesystem.
"""

import io
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError
from botocore.session import get_session
from urllib3.exceptions import HTTPError

from jobs.storage.base import ObjectInfo, PinnedReader
from jobs.storage.presigned import Page, SignedGets
from schemas.errors import (
    AccessDenied,
    AlreadyExists,
    InputChanged,
    NightshiftError,
    NotFound,
    Permanent,
    SpecError,
    Transient,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Larger bodies go up in pieces of this size. S3 wants at least 5 MiB a piece and takes 10,000 of them.
PIECE = 32 << 20
#: Connections that are kept, so many of boto3's and so many of those that read.
CONNECTIONS = 64
#: S3's user metadata that tells one creator's object from another's.
OWNER = "nightshift-owner"

#: Seconds between tries to write an object that others write too.
_UPDATE_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2, 3.2)

_BY_CODE: dict[str, type[NightshiftError]] = {
    "404": NotFound,
    "NoSuchKey": NotFound,
    "NoSuchBucket": NotFound,
    "NotFound": NotFound,
    "403": AccessDenied,
    "AccessDenied": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "InvalidBucketName": NotFound,
    "412": AlreadyExists,
    "PreconditionFailed": AlreadyExists,
    "ConditionalRequestConflict": Transient,
    "409": Transient,
    # Credentials are renewed, clocks set right, a store that is asked too much recovers.
    "ExpiredToken": Transient,
    "TokenRefreshRequired": Transient,
    "RequestExpired": Transient,
    "RequestTimeTooSkewed": Transient,
    "RequestTimeout": Transient,
    "408": Transient,
    "429": Transient,
    # The answer to a HEAD has no body, and so no reason: an expired token looks like this.
    "400": Transient,
}


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Raise botocore's errors as ours: by error code, then by HTTP status, then by class."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind = _BY_CODE.get(code)
        if kind is None and str(status) != "400":
            kind = _BY_CODE.get(str(status))
        kind = kind or (Transient if status >= 500 else Permanent)
        if kind in (NotFound, AccessDenied):
            what = "does not exist" if kind is NotFound else "may not be accessed with these credentials"
            if code == "NoSuchBucket":
                uri = "/".join(uri.split("/")[:3])
            raise kind(f"{uri} {what} (S3 answered {code})") from None
        raise kind(f"{uri}: S3 answered {code or status} to {error.operation_name}") from None
    except NoCredentialsError:
        raise AccessDenied(f"{uri}: no AWS credentials were found; set AWS_ACCESS_KEY_ID or a profile") from None
    except ParamValidationError as error:
        raise NotFound(f"{uri} is no valid S3 location: {error}") from None
    except (BotoCoreError, HTTPError, ConnectionError, TimeoutError) as error:
        raise Transient(f"{uri}: {type(error).__name__} while talking to S3") from error


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class _S3Reader(PinnedReader):
    """Each read is a ranged GET that names the etag; pyarrow asks for megabytes at a time, so nothing is buffered."""

    def __init__(self, client: "S3Client", signed: SignedGets, info: ObjectInfo) -> None:
        super().__init__(info)
        self._client = client
        self._signed = signed

    def _read_at(self, offset: int, length: int) -> bytes:
        data = self._signed.read(*_split(self.info.uri), self.info.etag, offset, length)
        if data is not None:
            return data
        for last_try in (False, False, True):
            try:
                return self._get(offset, length)
            except Transient:
                if last_try:
                    raise
        raise AssertionError("unreachable")

    def _get(self, offset: int, length: int) -> bytes:
        bucket, key = _split(self.info.uri)
        try:
            with _translated(self.info.uri):
                answer = self._client.get_object(
                    Bucket=bucket,
                    Key=key,
                    IfMatch=self.info.etag,
                    Range=f"bytes={offset}-{offset + length - 1}",
                )
                with answer["Body"] as body:
                    data = body.read()
        except (AlreadyExists, NotFound) as error:
            what = "is gone" if isinstance(error, NotFound) else "was changed"
            raise InputChanged(f"{self.info.uri} {what} after the job was planned; submit a new job for it") from None
        if len(data) != length:
            raise Transient(f"{self.info.uri}: S3 sent {len(data)} bytes of the {length} asked for")
        return data


class S3Store:
    def __init__(self) -> None:
        import boto3
        from botocore.config import Config

        config = Config(
            signature_version="s3v4",
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=10,
            read_timeout=60,
            tcp_keepalive=True,
            max_pool_connections=CONNECTIONS,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            with _making_client:
                session = get_session()
                self._client: S3Client = boto3.Session(botocore_session=session).client("s3", config=config)
        except (BotoCoreError, ValueError) as error:  # what AWS_PROFILE, AWS_ENDPOINT_URL_S3 and their kin name
            raise SpecError.of("AWS settings", str(error)) from None
        #: Buckets whose store is known to refuse to overwrite an object by an upload in pieces.
        self._refuse_pieces: set[str] = set()
        self._signed = SignedGets(self._client, session.get_config_variable("ca_bundle"), CONNECTIONS)

    def stat(self, uri: str) -> ObjectInfo:
        bucket, key = _split(uri)
        if not key:
            raise NotFound(f"{uri} names a bucket, not an object")
        with _translated(uri):
            head = self._client.head_object(Bucket=bucket, Key=key)
        return ObjectInfo(uri, head["ContentLength"], head["ETag"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        bucket, key = _split(prefix)
        token: str | None = None
        while True:
            page = self._signed.page(bucket, key, token) or self._page(bucket, key, token)
            for name, size, etag in page.objects:
                yield ObjectInfo(f"s3://{bucket}/{name}", size, etag)
            token = page.token
            if token is None:
                return

    def _page(self, bucket: str, prefix: str, token: str | None) -> Page:
        """Return a page of a listing, asked for through boto3."""
        more: Any = {"ContinuationToken": token} if token else {}
        with _translated(f"s3://{bucket}/{prefix}"):
            page = self._client.list_objects_v2(Bucket=bucket, Prefix=prefix, **more)
        objects = [(item["Key"], item["Size"], item["ETag"]) for item in page.get("Contents", ())]
        token = page.get("NextContinuationToken") if page["IsTruncated"] else None
        if page["IsTruncated"] and not token:
            raise Transient(f"s3://{bucket}/{prefix}: S3 sent a part of a listing, and no token for the rest")
        return Page(objects, token)

    def open(self, info: ObjectInfo) -> PinnedReader:
        return _S3Reader(self._client, self._signed, info)

    def read(self, uri: str) -> bytes:
        bucket, key = _split(uri)
        with _translated(uri):
            return self._client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def create(self, uri: str, body: bytes | BinaryIO, owner: str) -> ObjectInfo:
        file = io.BytesIO(body) if isinstance(body, bytes) else body
        size = file.seek(0, io.SEEK_END)
        put = self._put_whole if size <= PIECE else self._put_pieces
        for wait_s in (0.2, 1.0, None):
            try:
                with _translated(uri):
                    return ObjectInfo(uri, size, put(uri, file, owner))
            except AlreadyExists:
                return self._if_own(uri, owner)
            except Transient:  # a 409, say: another writer's create is under way
                if wait_s is None:
                    raise
                time.sleep(wait_s)
        raise AssertionError("unreachable")

    def _if_own(self, uri: str, owner: str) -> ObjectInfo:
        """Return the existing object if this owner made it, in a request whose answer was lost.

        Raise AlreadyExists if another owner made it.
        """
        bucket, key = _split(uri)
        with _translated(uri):
            head = self._client.head_object(Bucket=bucket, Key=key)
        if head["Metadata"].get(OWNER) != owner:
            raise AlreadyExists(f"{uri} exists already")
        return ObjectInfo(uri, head["ContentLength"], head["ETag"])

    def _put_whole(self, uri: str, file: BinaryIO, owner: str) -> str:
        bucket, key = _split(uri)
        file.seek(0)
        answer = self._client.put_object(
            Bucket=bucket, Key=key, Body=file.read(), IfNoneMatch="*", Metadata={OWNER: owner}
        )
        return answer["ETag"]

    def _put_pieces(self, uri: str, file: BinaryIO, owner: str) -> str:
        bucket, key = _split(uri)
        file.seek(0)
        upload = self._client.create_multipart_upload(Bucket=bucket, Key=key, Metadata={OWNER: owner})["UploadId"]
        done: list[Any] = []
        try:
            while piece := file.read(PIECE):
                number = len(done) + 1
                answer = self._client.upload_part(
                    Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=piece
                )
                done.append({"ETag": answer["ETag"], "PartNumber": number})
            completed = self._client.complete_multipart_upload(
                Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": done}, IfNoneMatch="*"
            )
        except BaseException:
            # Fails where the upload was completed after all, its answer lost: nothing is left to abort then.
            with suppress(ClientError):
                self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
            raise
        return completed["ETag"]

    def update(self, uri: str, change: Callable[[bytes | None], bytes | None], owner: str) -> None:
        bucket, key = _split(uri)
        for wait_s in _UPDATE_WAITS:
            condition: Any
            try:
                with _translated(uri):
                    there = self._client.get_object(Bucket=bucket, Key=key)
                    data, condition = there["Body"].read(), {"IfMatch": there["ETag"]}
            except NotFound:
                data, condition = None, {"IfNoneMatch": "*"}
            body = change(data)
            if body is None:
                return
            try:
                with _translated(uri):
                    self._client.put_object(Bucket=bucket, Key=key, Body=body, Metadata={OWNER: owner}, **condition)
                return
            except (AlreadyExists, NotFound, Transient):  # another writer was first, or is at it
                time.sleep(wait_s * random.uniform(0.5, 1))
        raise Transient(f"{uri} is written by others all the time")

    def delete(self, uri: str) -> None:
        bucket, key = _split(uri)
        with suppress(NotFound), _translated(uri):
            self._client.delete_object(Bucket=bucket, Key=key)

    def content(self, info: ObjectInfo) -> str:
        return info.etag

    def refuses_overwrite(self, uri: str) -> bool:
        """Tries to create the existing object once more, as it is; a store that ignores conditions lets it.

        Both ways to create are tried, since a store may honour the condition in one alone. A bucket that refuses an
        upload in pieces isn't asked again.
        """
        owner = secrets.token_hex(8)
        body = io.BytesIO(self.read(uri))
        if not self._refuses(self._put_whole, uri, body, owner):
            return False
        bucket, _ = _split(uri)
        if bucket not in self._refuse_pieces and self._refuses(self._put_pieces, uri, body, owner):
            self._refuse_pieces.add(bucket)
        return bucket in self._refuse_pieces

    @staticmethod
    def _refuses(put: Callable[[str, BinaryIO, str], str], uri: str, body: BinaryIO, owner: str) -> bool:
        try:
            with _translated(uri):
                put(uri, body, owner)
        except AlreadyExists:
            return True
        return False


#: boto3's default session and its loader aren't safe to build clients from in several threads at once.
_making_client = threading.Lock()
