"""Count the steps of a regular expression as a backtracking matcher takes them: a measure that no busy machine changes.

`re` doesn't tell how much it tried. This matcher goes through the same parse tree in the same order, in Python.
"""

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

#: Private, and there in every Python that is supported. A node of a kind that isn't named below is an error here.
_parser: Any = import_module("re._parser")
#: Nodes that stand for one character.
_CHARACTERS = ("LITERAL", "NOT_LITERAL", "IN")
_CATEGORIES = {"CATEGORY_SPACE": r"\s", "CATEGORY_DIGIT": r"\d", "CATEGORY_WORD": r"\w"}

#: Matches what follows in the pattern, from a place on: the end of the match, or None.
_Rest = Callable[[int], int | None]


class Steps:
    """Counts while it matches. A step is an item of the pattern that is compared with the text at one place."""

    def __init__(self, pattern: "re.Pattern[str]") -> None:
        self._tree = list(_parser.parse(pattern.pattern, pattern.flags))
        self._any_case = bool(pattern.flags & re.IGNORECASE)
        self._text = ""
        self._known: dict[tuple[int, str], bool] = {}
        self.count = 0

    def matches(self, text: str) -> int:
        """Return how many matches `sub` would replace, each step on the way counted."""
        self._text = text
        at = found = 0
        while at <= len(text):
            end = self._match(self._tree, at, lambda end: end)
            found += end is not None
            at = max(at + 1, end or 0)
        return found

    def _match(self, items: Sequence[Any], at: int, rest: _Rest) -> int | None:
        """Match these items from this place on, then the rest."""
        if not items:
            return rest(at)
        (kind, value), following = items[0], items[1:]
        name = str(kind)
        if name == "MAX_REPEAT":
            least, most, repeated = value
            return self._repeat(least, most, repeated, at, lambda end: self._match(following, end, rest))
        self.count += 1
        if name == "SUBPATTERN":
            return self._match([*value[3], *following], at, rest)
        if name == "BRANCH":
            ends = (self._match([*branch, *following], at, rest) for branch in value[1])
            return next((end for end in ends if end is not None), None)
        if name in ("ASSERT", "ASSERT_NOT"):
            assert value[0] == 1, "this matcher only looks ahead"
            there = self._match(list(value[1]), at, lambda end: end) is not None
            return self._match(following, at, rest) if there == (name == "ASSERT") else None
        if name == "AT":
            return self._match(following, at, rest) if self._is_boundary(str(value), at) else None
        return self._match(following, at + 1, rest) if self._fits_at(items[0], at) else None

    def _repeat(self, least: int, most: int, items: Sequence[Any], at: int, rest: _Rest) -> int | None:
        """Take as many as there are, then give back one after the other until the rest matches."""
        if most == 1:
            self.count += 1
            end = self._match(list(items), at, rest)
            return rest(at) if end is None and least == 0 else end
        # What can match in several ways would multiply the steps each time it is repeated.
        inside = [item for item in items if str(item[0]) not in ("ASSERT", "ASSERT_NOT")]
        assert [str(kind) in _CHARACTERS for kind, _ in inside] == [True], "this matcher repeats single characters"
        ends = [at]
        while len(ends) <= most:
            self.count += len(items)
            looks = all(self._match([item], ends[-1], lambda end: end) is not None for item in items[:-1])
            if not looks or not self._fits_at(items[-1], ends[-1]):
                break
            ends.append(ends[-1] + 1)
        while len(ends) > least:
            end = rest(ends.pop())
            if end is not None:
                return end
        return None

    def _fits_at(self, item: Any, at: int) -> bool:
        """Whether an item that stands for one character fits the one at this place."""
        if at == len(self._text):
            return False
        asked = (id(item), self._text[at])
        if asked not in self._known:
            self._known[asked] = self._fits(str(item[0]), item[1], self._text[at])
        return self._known[asked]

    def _fits(self, name: str, value: Any, char: str) -> bool:
        codes = {ord(one) for one in ((char, *char.lower(), *char.upper()) if self._any_case else char)}
        if name == "LITERAL":
            return value in codes
        if name == "NOT_LITERAL":
            return value not in codes
        if name == "RANGE":
            return any(value[0] <= code <= value[1] for code in codes)
        if name == "CATEGORY":
            return re.fullmatch(_CATEGORIES[str(value)], char) is not None
        assert name == "IN", f"this matcher knows no {name}"
        members = [(str(kind), of) for kind, of in value]
        return any(self._fits(*member, char) for member in members if member[0] != "NEGATE") != (
            ("NEGATE", None) in members
        )

    def _is_boundary(self, name: str, at: int) -> bool:
        assert name == "AT_BOUNDARY", f"this matcher knows no {name}"
        before, after = (self._text[place : place + 1] if place >= 0 else "" for place in (at - 1, at))
        return bool(re.fullmatch(r"\w", before)) != bool(re.fullmatch(r"\w", after))
