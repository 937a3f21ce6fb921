"""How are the API's bearer tokens kept? In a file of hashes, which never holds a token itself.

A token is `nst_<id>_<secret>`. The id is no secret: it names the entry, which is compared by the hash of the whole.
SHA-256 without a salt is enough, since a secret is 32 random bytes, which no list of guesses holds.
"""

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from threading import Lock

from filelock import FileLock
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from jobs.storage.base import normalized
from schemas.errors import NotFound, ServiceUnavailable, SpecError

#: More than any token is long: what is longer isn't even hashed.
LONGEST = 200

_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NOBODY = hashlib.sha256(b"nobody").hexdigest()


class Scope(StrEnum):
    """`submit` makes, pauses and ends jobs; `read` looks at them; `admin` does both for every tenant's."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"


class Token(BaseModel):
    """What a token allows. `inputs` and `outputs` are prefixes; `*` among them means all that the settings allow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    hash: str
    tenant: str
    scopes: tuple[Scope, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    max_running_jobs: int | None = None
    requests_per_s: float | None = None
    max_priority: int | None = None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None

    def works(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[Token, ...] = ()


class Tokens:
    """The tokens of one file, read again whenever it has changed. Threads may share one, processes the file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = Lock()
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def new(
        self,
        tenant: str,
        scopes: Iterable[Scope],
        inputs: Iterable[str] = (),
        outputs: Iterable[str] = (),
        max_running_jobs: int | None = None,
        requests_per_s: float | None = None,
        expires: timedelta | None = None,
        max_priority: int | None = None,
    ) -> tuple[str, str]:
        """Make a token. Return its id and the token, which is kept nowhere. Raise SpecError if it makes no sense."""
        now = datetime.now(UTC)
        id = secrets.token_hex(6)
        secret = f"nst_{id}_{secrets.token_urlsafe(32)}"
        token = Token(
            id=id,
            hash=_hash(secret),
            tenant=_tenant(tenant),
            scopes=tuple(sorted(set(scopes))),
            inputs=tuple(_prefix(uri, "inputs") for uri in inputs),
            outputs=tuple(_prefix(uri, "outputs") for uri in outputs),
            max_running_jobs=max_running_jobs,
            requests_per_s=requests_per_s,
            max_priority=max_priority,
            created_at=now,
            expires_at=None if expires is None else now + expires,
        )
        _check(token)
        with self._changing() as tokens:
            self._write([*tokens, token])
        return id, secret

    def list(self) -> list[Token]:
        """Return all tokens, oldest first. Raise ServiceUnavailable if the file can't be read."""
        return list(self._current().values())

    def revoke(self, id: str) -> Token:
        """End a token, at once in every process that reads the file. Raise NotFound if there is no such token."""
        with self._changing() as tokens:
            found: Token | None = next((token for token in tokens if token.id == id), None)
            if found is None:
                raise NotFound(f"there is no token {id!r} in {self.file}; see `nightshift token list`")
            if found.revoked_at is None:
                ended = found.model_copy(update={"revoked_at": datetime.now(UTC)})
                self._write([ended if token is found else token for token in tokens])
                found = ended
        return found

    def find(self, secret: str) -> Token | None:
        """Return the token of this secret if it works now. A wrong secret takes as long as a wrong id."""
        if len(secret) > LONGEST:
            return None
        kind, _, rest = secret.partition("_")
        token = self._current().get(rest.partition("_")[0]) if kind == "nst" else None
        same = hmac.compare_digest(_hash(secret), token.hash if token is not None else _NOBODY)
        return token if same and token is not None and token.works(datetime.now(UTC)) else None

    def any_works(self) -> bool:
        now = datetime.now(UTC)
        return any(token.works(now) for token in self._current().values())

    def _current(self) -> dict[str, Token]:
        with self._lock:
            try:
                there = self.file.stat()
            except FileNotFoundError:
                self._seen, self._tokens = None, {}
                return self._tokens
            except OSError as error:
                raise ServiceUnavailable(
                    f"the tokens file {str(self.file)!r} can't be read: {error.strerror}"
                ) from None
            seen = (there.st_ino, there.st_mtime_ns, there.st_size)
            if seen != self._seen:
                self._tokens = {token.id: token for token in self._read()}
                self._seen = seen
            return self._tokens

    def _read(self) -> tuple[Token, ...]:
        try:
            return _File.model_validate_json(self.file.read_bytes()).tokens
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ServiceUnavailable(f"the tokens file {str(self.file)!r} can't be read: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ServiceUnavailable(
                f"the tokens file {str(self.file)!r} is damaged: {where}: {first['msg']}"
            ) from None

    @contextmanager
    def _changing(self) -> Iterator[tuple[Token, ...]]:
        """Yield the tokens, while no other process may change them."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.file}.lock", mode=0o600):
                yield self._read()
        except OSError as error:
            raise ServiceUnavailable(f"the tokens file {str(self.file)!r} can't be written: {error.strerror}") from None

    def _write(self, tokens: Sequence[Token]) -> None:
        """Replace the file whole: who reads it meanwhile sees the old one or the new one."""
        body = _File(tokens=tuple(tokens)).model_dump_json(indent=2, exclude_none=True)
        # Made readable for its owner alone, and in the same folder, so that the rename is within one file system.
        descriptor, name = tempfile.mkstemp(dir=self.file.parent, prefix=f".{self.file.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w") as out:
                out.write(body + "\n")
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(self.file)
        finally:
            temporary.unlink(missing_ok=True)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def _tenant(name: str) -> str:
    if not _TENANT.fullmatch(name):
        raise SpecError.of(
            "tenant", f"{name!r} is no name: up to 63 of a–z, 0–9, '-', '_' and '.', a letter or digit first"
        )
    return name


def _prefix(uri: str, field: str) -> str:
    """Return the prefix with a slash at its end: `s3://raw/search` would allow `s3://raw/search-private/` too."""
    if uri == "*":
        return uri
    if set(uri) & set("*?["):
        raise SpecError.of(field, f"{uri!r} is a pattern; write a prefix that ends in '/', or '*' for all")
    full = normalized(uri, field)
    if not full.endswith("/"):
        raise SpecError.of(
            field, f"{uri!r} doesn't end in '/', and would allow all that begins alike; write {uri + '/'!r}"
        )
    return full


def _check(token: Token) -> None:
    if not token.scopes:
        raise SpecError.of("scopes", f"a token without any allows nothing; scopes: {', '.join(Scope)}")
    if {Scope.SUBMIT, Scope.ADMIN} & set(token.scopes) and not (token.inputs and token.outputs):
        raise SpecError.of(
            "inputs", "who may submit needs inputs and outputs: prefixes, or '*' for all that is allowed"
        )
    for name, value in {
        "max_running_jobs": token.max_running_jobs,
        "requests_per_s": token.requests_per_s,
        "expires": None if token.expires_at is None else (token.expires_at - token.created_at).total_seconds(),
    }.items():
        if value is not None and value <= 0:
            raise SpecError.of(name, f"{value:g} is not above zero")
