"""How are rows shown as a table on a terminal? A line a row, each value cut to its column."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.output import OwnColumns
from schemas.task import Task

#: Rows by which the widths are chosen, and that are printed at once; characters of a column, and of a line in a file.
_ROWS, _WIDEST, _LINE = 200, 60, 160
_GAP = 2
#: The heading over errors, which a kept column can't have.
_ERROR = "→ error"
_NUMBER = re.compile(r"-?[\d,]+(\.\d+)?%?")
Row = dict[str, Any]


def print_rows(rows: Iterable[Row], task: Task, own: OwnColumns, console: Console | None = None) -> int:
    """Print the rows, and return how many there were. What fits is chosen by the first of them."""
    source = iter(rows)
    console = console or Console(width=None if Console().is_terminal else _LINE, highlight=False)
    widths: dict[str, int] | None = None
    count = 0
    while chunk := [cells(row, task, own) for row in islice(source, _ROWS)]:
        is_first = widths is None
        widths = widths or _widths(chunk, console.width)
        table = Table(box=None, show_header=is_first, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
        for name, width in widths.items():
            table.add_column(Text(one_line(name)), width=width, no_wrap=True, overflow="ellipsis")
        for line in chunk:
            table.add_row(*(Text(line.get(name, "")) for name in widths))
        console.print(table)
        count += len(chunk)
    return count


def cells(row: Row, task: Task, own: OwnColumns) -> dict[str, str]:
    """Return what is shown of a row, by column: kept columns, the prediction's fields, an error.

    Media are shown by the names of their files. What has no column of its own is shown by file and row.
    """
    found: dict[str, str] = {}
    kept = {name: value for name, value in row.items() if name not in own.names}
    number, file = row[own.source_row], str(row[own.source_uri]).rstrip("/").rpartition("/")[2]
    if not kept:
        name = task.media.name if task.media is not None else "source"
        found[name] = file if task.media is not None and not number else f"{file} {number}"
    found |= {name: _named(value, name, task) for name, value in kept.items()}
    if row[own.prediction] is not None:
        # The first entry of `top` is what the other fields say.
        found |= {name: one_line(value) for name, value in row[own.prediction].items() if name != "top"}
    error = row[own.error]
    if error is not None:
        found[_ERROR] = one_line(f"{error['code']}: {error['message']}")
    return found


def _named(value: Any, name: str, task: Task) -> str:
    """Return a value, or the last part of the URI of a picture or sound."""
    is_media = task.media is not None and isinstance(value, str) and name == task.media.name
    return value.rstrip("/").rpartition("/")[2] if is_media else one_line(value)


def one_line(value: Any) -> str:
    """Return a value as text for one line, without control characters."""
    text = f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
    return "".join(c if c.isprintable() else " " for c in text[: 10 * _WIDEST])


def _widths(lines: list[dict[str, str]], width: int) -> dict[str, int]:
    """Return the columns in order, with their widths: the widest are cut until a line fits."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    if _ERROR in names:
        names = [name for name in names if name != _ERROR] + [_ERROR]
    widths = {n: min(_WIDEST, max(len(n), *(Text(line.get(n, "")).cell_len for line in lines))) for n in names}
    while sum(widths.values()) + _GAP * len(widths) > width and max(widths.values()) > 4:
        widest = max(widths, key=lambda name: widths[name])
        widths[widest] -= 1
    return widths


def print_table(header: Iterable[str], lines: Iterable[Iterable[str]], console: Console | None = None) -> None:
    """Print lines of text under a header, numbers to the right."""
    console = console or Console(width=None if Console().is_terminal else _LINE, highlight=False)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    found = [list(line) for line in lines]
    for place, name in enumerate(header):
        is_number = bool(found) and all(_NUMBER.fullmatch(line[place]) for line in found)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for line in found:
        table.add_row(*(Text(one_line(value)) for value in line))
    console.print(table)


def schema_lines(fields: Iterable[Any], depth: int = 0) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and description of each field of a schema, nested ones indented."""
    for field in fields:
        inner = getattr(field.type, "value_type", field.type) if "indices" in str(field.type) else field.type
        is_list = hasattr(inner, "value_field") and not hasattr(inner, "index_type")
        item = inner.value_type if is_list else inner
        nested = [item.field(i) for i in range(item.num_fields)] if str(item).startswith("struct") else []
        said = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        words = [said.get("description", ""), said.get("unit", ""), said.get("range", "")]
        kind = ("list<struct>" if is_list else "struct") if nested else str(inner)
        yield "  " * depth + field.name, kind, "  ".join(word for word in words if word)
        yield from schema_lines(nested, depth + 1)
