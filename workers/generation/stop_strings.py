"""Where does a generated text have a stop string? Finds it however the tokens divide it."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any


class Stops:
    """Finds stop strings in generated tokens, however the tokens divide them."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        # A token adds one byte or more to a text, if any. A few more tokens, since the first may be half a character.
        self._window = max((len(stop.encode()) for stop in stops), default=0) + 4

    def __bool__(self) -> bool:
        return bool(self._stops)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the tokens as text, without special tokens."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def start(self, text: str) -> int | None:
        """Return where the first stop string in a text begins, or None if the text has none."""
        return min((place for stop in self._stops if (place := text.find(stop)) >= 0), default=None)

    def inside(self, tokens: Sequence[int]) -> bool:
        """Return whether the text of these tokens has a stop string."""
        return bool(self._stops) and self.start(self.text(tokens)) is not None

    def reached(self, tokens: Sequence[int]) -> bool:
        """Return whether the last token completed a stop string. All tokens are read only if their end has one."""
        return self.inside(tokens[-self._window :]) and self.inside(tokens)

    def count(self, tokens: Sequence[int]) -> int:
        """Return the number of tokens up to and including the one that completes the first stop string."""
        return bisect_left(range(1, len(tokens)), True, key=lambda count: self.inside(tokens[:count])) + 1
