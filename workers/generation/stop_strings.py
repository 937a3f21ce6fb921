"""Stop strings: where a generated text has one, however its tokens divide it."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any


class Stops:
    """Finds stop strings, however tokens divide them."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        # A token that adds to a text adds a byte or more. A few more tokens, since the first may be half a character.
        self._window = max((len(stop.encode()) for stop in stops), default=0) + 4

    def __bool__(self) -> bool:
        return bool(self._stops)

    def text(self, tokens: Sequence[int]) -> str:
        """The tokens as text, without special ones."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def start(self, text: str) -> int | None:
        """Where the first stop string begins in a text, if any does."""
        return min((place for stop in self._stops if (place := text.find(stop)) >= 0), default=None)

    def inside(self, tokens: Sequence[int]) -> bool:
        """Whether the text of these tokens has a stop string."""
        return bool(self._stops) and self.start(self.text(tokens)) is not None

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last token has completed one; looks at the whole only where the end has one."""
        return self.inside(tokens[-self._window :]) and self.inside(tokens)

    def count(self, tokens: Sequence[int]) -> int:
        """How many of these tokens there are up to the one that completes the first stop string."""
        return bisect_left(range(1, len(tokens)), True, key=lambda count: self.inside(tokens[:count])) + 1
