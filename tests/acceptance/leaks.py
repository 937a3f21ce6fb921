"""A search for secrets in all that a deployment leaves behind: as they are, as URLs have them, in base64 and in hex; in
text, in compressed files, in Parquet's columns and footers, in Arrow streams."""

import base64
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq

#: What no place has at all, whatever the secret is: a signature of S3 that isn't masked.
SIGNATURES = re.compile(rb"(?i)signature(?:=|%3D)(?!\*\*\*|%2A%2A%2A)[^\s&'\"]|AWS4-HMAC-SHA256 +Credential=")


@dataclass(frozen=True)
class Leak:
    secret: str
    place: str


def forms(secret: str) -> set[bytes]:
    """How a secret may be written: in base64 wherever it begins in what is encoded."""
    data = secret.encode()
    found = {data, data.hex().encode(), data.hex().upper().encode(), json.dumps(secret)[1:-1].encode()}
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    found |= {text.encode() for text in quoted}
    found |= {re.sub("%..", lambda code: code[0].lower(), text).encode() for text in quoted}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data)
        # The letters that are made of the secret's own bits alone.
        core = encoded[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        found |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def opened(content: bytes) -> Iterator[bytes]:
    """The content as it lies there, and what is packed inside."""
    yield content
    if content[:2] == b"\x1f\x8b":
        yield from opened(gzip.decompress(content))
    elif content[:4] == content[-4:] == b"PAR1":
        file = pq.ParquetFile(io.BytesIO(content))
        yield from _columns(file.read())
        yield from (part for pair in (file.metadata.metadata or {}).items() for part in pair)
    elif content[:4] == b"\xff\xff\xff\xff":
        with pa.ipc.open_stream(content) as stream:
            yield from _columns(stream.read_all())


def _columns(table: pa.Table) -> Iterator[bytes]:
    """The values; metadata of the schema too."""
    yield json.dumps(table.to_pylist(), default=_text, ensure_ascii=False).encode()
    yield from (part for pair in (table.schema.metadata or {}).items() for part in pair)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


class Search:
    """Finds these secrets, by their names, in the places that are added."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._forms = {name: forms(secret) for name, secret in secrets.items()}
        self.leaks: set[Leak] = set()
        self.bytes_in: dict[str, int] = {}

    def add(self, place: str, content: bytes | str, allowed: frozenset[str] = frozenset()) -> None:
        """Search a place; `allowed` are names of secrets that belong there."""
        content = content.encode(errors="surrogateescape") if isinstance(content, str) else content
        kind = place.split(":")[0]
        self.bytes_in[kind] = self.bytes_in.get(kind, 0) + len(content)
        for inside in opened(content):
            found = {name for name, ways in self._forms.items() if any(way in inside for way in ways)}
            found |= {"a signature"} if SIGNATURES.search(inside) else set()
            self.leaks |= {Leak(name, place) for name in found - allowed}
