"""Text that anyone has: the docstrings of the installed Python packages, chosen the same way every time."""

import ast
import hashlib
import sysconfig
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

#: Shorter docstrings are left out.
MIN_CHARACTERS = 40
_OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(count: int) -> list[str]:
    """So many distinct docstrings of the standard library and of site-packages.

    Files are taken in the order of a hash of their path, so that a few hundred of them are a fair sample of all.
    """
    found = list(islice(_docstrings(), count))
    if len(found) < count:
        raise SystemExit(f"the installed packages have only {len(found):,} docstrings; {count:,} are needed")
    return found


def _docstrings() -> Iterator[str]:
    seen: set[str] = set()
    for file in _source_files():
        for text in _docstrings_of(file):
            if text not in seen:
                seen.add(text)
                yield text


def _source_files() -> list[Path]:
    found: dict[str, Path] = {}
    for name in ("stdlib", "purelib"):
        root = Path(sysconfig.get_path(name))
        for file in root.rglob("*.py"):
            inside = file.relative_to(root).as_posix()
            if name == "purelib" or "site-packages/" not in inside:
                found[f"{name}/{inside}"] = file
    return [found[key] for key in sorted(found, key=lambda key: hashlib.sha256(key.encode()).digest())]


def _docstrings_of(file: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):  # some packages ship templates and bad examples
        return
    for node in ast.walk(tree):
        text = ast.get_docstring(node) if isinstance(node, _OWNERS) else None
        if text is not None and len(text) >= MIN_CHARACTERS and _encodable(text):
            yield text


def _encodable(text: str) -> bool:
    """Whether the text is Unicode that UTF-8 can hold, as Parquet wants it: no lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
