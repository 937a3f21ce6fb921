"""Which files does an input's URI stand for? A file, everything below a prefix, or what a glob matches."""

import re
from collections.abc import Iterable
from fnmatch import translate

_GLOB = re.compile(r"[*?\[]")
#: URIs of an input, globs among them, and wildcards of a glob.
MAX_URIS, MAX_GLOBS, MAX_WILDCARDS = 10_000, 100, 20


def is_glob(uri: str) -> bool:
    """Return whether the URI has a wildcard in it. A file may have one in its name, too."""
    return _GLOB.search(uri) is not None


def fixed_prefix(uri: str) -> str:
    """Return what every URI that the glob matches begins with."""
    return _GLOB.split(uri, maxsplit=1)[0]


def wildcards(uri: str) -> int:
    return len(_GLOB.findall(uri.replace("**", "*")))


def glob_pattern(uri: str) -> re.Pattern[str]:
    """Compile a glob. `*` and `?` stay within a folder, `**` crosses folders.

    A match takes time in proportion to the length of the text and the number of wildcards, times the text's length once
    more for a `**`. What stands between two `**` is looked for once, at the first place where it fits: a later place
    can't do better, since `**` goes on from anywhere behind it. The same holds for `*` and what follows it.
    """
    *inner, last = [_chunk(chunk) for chunk in re.split(r"(?:\*\*/?)+", uri)]
    if not inner:
        return re.compile(_joined(last), re.DOTALL)
    first, *middle = inner
    found = "".join(f"(?>.*?{_earliest(chunk)})" for chunk in middle)
    return re.compile(f"{_earliest(first)}{found}.*?{_joined(last)}", re.DOTALL)


def _chunk(glob: str) -> list[str]:
    """Return the parts of a glob without `**` that its `*` divide, as regular expressions."""
    return ["".join(_part(piece) for piece in re.split(r"(\?)", part)) for part in glob.split("*")]


def _part(piece: str) -> str:
    return "[^/]" if piece == "?" else translate(piece).removeprefix("(?s:").removesuffix(")\\Z")


def _earliest(parts: list[str]) -> str:
    """Return a pattern that ends as early as it can."""
    return parts[0] + "".join(f"(?>[^/]*?{part})" for part in parts[1:])


def _joined(parts: list[str]) -> str:
    """Return a pattern that ends where the text does."""
    return _earliest(parts[:-1]) + f"[^/]*{parts[-1]}\\Z" if len(parts) > 1 else f"{parts[0]}\\Z"


class InputUris:
    """The URIs of an input, to ask whether a file is one of theirs."""

    def __init__(self, uris: Iterable[str]) -> None:
        uris = list(uris)
        self._named = {uri for uri in uris if not uri.endswith("/")}
        self._folders = {uri.rstrip("/") for uri in uris}
        self._globs = [glob_pattern(uri) for uri in uris if is_glob(uri)]

    def cover(self, uri: str) -> bool:
        """Return whether the file is named by one of the URIs, lies below one, or is matched by one."""
        if uri in self._named:
            return True
        folder = uri
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            if folder in self._folders:
                return True
        return any(glob.fullmatch(uri) for glob in self._globs)
