"""Whisper's prompt: the tokens before the transcript, which say its language, its task and whether it has times.

Rules: `_retrieve_init_tokens` and `detect_language` of Transformers' models/whisper/generation_whisper.py.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from schemas.tasks.automatic_speech_recognition import Params
from workers.audio.recognizer import refuse
from workers.handler import Loaded


@dataclass(frozen=True)
class Prompt:
    """The tokens before and after the language's. `choices` are the languages of a multilingual model: token → id.

    `language` is the language's id if the job or the model's configuration sets it.
    """

    model: Any
    before: tuple[int, ...]
    after: tuple[int, ...]
    choices: dict[str, int]
    language: int | None

    @classmethod
    def of(cls, loaded: Loaded, params: Params) -> "Prompt":
        """Return a job's prompt. Raise Permanent (`bad_params`) if the model doesn't have the language or the task."""
        own = loaded.model.generation_config
        untimed = getattr(own, "no_timestamps_token_id", None)
        end = (untimed,) if params.timestamps == "none" and untimed is not None else ()
        choices = (getattr(own, "lang_to_id", None) or {}) if getattr(own, "is_multilingual", True) else {}
        tasks = getattr(own, "task_to_id", None) or {}
        start = own.decoder_start_token_id
        if choices and tasks:
            if params.task not in tasks:
                refuse("task", f"the model has no task {params.task!r}; it has {', '.join(tasks)}")
            wanted = params.language or getattr(own, "language", None)
            language = _language_id(choices, wanted) if wanted else None
            return cls(loaded.model, (start,), (tasks[params.task], *end), choices, language)
        for name, given in (("language", params.language is not None), ("task", params.task != "transcribe")):
            if given:
                refuse(name, "the model has one language, which it transcribes; leave it out")
        forced = getattr(own, "forced_decoder_ids", None) or getattr(loaded.model.config, "forced_decoder_ids", None)
        fixed = [token for _, token in forced or [] if token is not None and token != untimed]
        return cls(loaded.model, (start, *fixed), end, {}, None)

    def languages(self, hidden: torch.Tensor) -> list[int | None]:
        """Return the language of each window from the encoder's outputs; None for models of one language."""
        if not self.choices or self.language is not None:
            return [self.language] * len(hidden)
        found: list[int | None] = self.model.detect_language(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden), generation_config=self.model.generation_config
        ).tolist()
        return found

    def tokens(self, language: int | None) -> list[int]:
        return [*self.before, *([] if language is None else [language]), *self.after]

    def name(self, language: int) -> str:
        """Return a language's token, such as `<|de|>`."""
        return next(token for token, id in self.choices.items() if id == language)

    def code(self, language: int) -> str | None:
        """Return a language's code, such as `de`, from its id. A model known to have only English gives `en`."""
        if language in self.choices.values():
            return self.name(language).strip("<|>")
        return "en" if getattr(self.model.generation_config, "is_multilingual", True) is False else None


def _language_id(choices: dict[str, int], wanted: str) -> int:
    """Return the id of a language given as `de`, `german` or `<|de|>`. Raise Permanent (`bad_params`) for any other."""
    code = wanted.lower()
    for token in (code, f"<|{code}|>", f"<|{TO_LANGUAGE_CODE.get(code)}|>"):
        if token in choices:
            return choices[token]
    known = ", ".join(sorted(token.strip("<|>") for token in choices))
    refuse("language", f"the model doesn't know {wanted[:80]!r}; its languages are {known}")
