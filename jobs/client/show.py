"""How does a job look in a notebook? As a table of HTML, in which everything that others wrote is escaped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol

import pyarrow as pa

#: Characters of a value that a preview shows.
_LONGEST = 200


class Shown(Protocol):
    """A job as the client has it; `data` is what the API told of it."""

    @property
    def data(self) -> Mapping[str, Any]: ...
    @property
    def records(self) -> int: ...
    @property
    def error_rows(self) -> int: ...


def job_html(job: Shown) -> str:
    """Return a job as HTML."""
    data, records, error_rows = job.data, job.records, job.error_rows
    of = _records_of(data)
    lines = {
        "status": data["status"],
        "task": data["task"],
        "model": data["model"]["source"],
        "records": f"{records:,}" + (f" of {of:,}" if of and not data["end"] else ""),
        "error rows": f"{error_rows:,}" if error_rows else "",
        "table version": (data["end"] or {}).get("table_version") or "",
        "output": data["output"],
        "error": data["error"]["message"] if data["error"] else "",
    }
    rows = "".join(f"<tr><th>{name}</th><td>{escape(str(value))}</td></tr>" for name, value in lines.items() if value)
    bar = f'<progress value="{records}" max="{of}"></progress>' if of and not data["end"] else ""
    return f"<table><caption>job {escape(data['id'])} {bar}</caption>{rows}</table>"


def _records_of(data: Mapping[str, Any]) -> int:
    progress = data["progress"]
    return int(progress["records"]) if progress else 0


@dataclass(frozen=True)
class Preview:
    """The first rows of a job's results, shown as a table; `table` has them as pyarrow does."""

    table: pa.Table

    def _repr_html_(self) -> str:
        head = _row("th", self.table.column_names)
        return f"<table><thead>{head}</thead><tbody>{''.join(_row('td', row) for row in self._rows())}</tbody></table>"

    def __str__(self) -> str:
        rows = [self.table.column_names, *([_short(value) for value in row] for row in self._rows())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    __repr__ = __str__

    def _rows(self) -> Iterable[list[Any]]:
        return (list(row.values()) for row in self.table.to_pylist())


def _row(tag: str, values: Iterable[Any]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(_short(value))}</{tag}>" for value in values) + "</tr>"


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
