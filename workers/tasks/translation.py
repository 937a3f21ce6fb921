"""translation: a beam search of a sequence-to-sequence model; the languages are a prefix (T5) or tokens (mBART).

Rule: pipelines/text2text_generation.py of Transformers 4, TranslationPipeline.
"""

import re
from collections.abc import Sequence
from typing import Any

from schemas.errors import Permanent
from schemas.job import JobSpec
from schemas.tasks.translation import TASK, Params
from workers.generation.seq2seq import SequenceToSequence
from workers.handler import Loaded, Piece, Record

_PAIR = re.compile(r"translation_(.+)_to_(.+)")


class Translation(SequenceToSequence[Params]):
    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        self._codes = language_codes(loaded.processor)
        if self._codes:
            target = _known_codes(self._codes, params)
            super().__init__(loaded, params, spec, "", {}, forced_bos_token_id=target)
        else:
            entry = pair_entry(getattr(loaded.model.config, "task_specific_params", None) or {}, params)
            super().__init__(loaded, params, spec, entry.pop("prefix", None), entry)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        if self._codes:
            self.loaded.processor.src_lang = self.params.src_lang  # set each time, since jobs share the tokenizer
        return super().prepare(records)


def language_codes(tokenizer: Any) -> dict[str, int]:
    """Return the languages that a multilingual tokenizer has tokens for, with their ids; empty for other tokenizers."""
    if not hasattr(tokenizer, "_build_translation_inputs"):  # the test of Transformers' own pipeline
        return {}
    codes: dict[str, int] = getattr(tokenizer, "lang_code_to_id", None) or {
        code: tokenizer.convert_tokens_to_ids(code) for code in tokenizer.extra_special_tokens
    }
    return codes


def _known_codes(codes: dict[str, int], params: Params) -> int:
    """Return the target language's id. Raise Permanent (`bad_params`) unless both languages are given and known."""
    for name, code in (("src_lang", params.src_lang), ("tgt_lang", params.tgt_lang)):
        if code not in codes:
            problem = "this model needs it" if code is None else f"the model doesn't know {code[:80]!r}"
            raise Permanent(f"params.{name}: {problem}; its languages are {', '.join(codes)}", code="bad_params")
    return codes[params.tgt_lang or ""]


def pair_entry(entries: dict[str, dict[str, Any]], params: Params) -> dict[str, Any]:
    """Return the parameters in a configuration's `task_specific_params` for the languages, `prefix` among them.

    Without languages, these are the first pair's, or an empty dict if the model has no pair. Raise Permanent
    (`bad_params`) if the given languages are not a pair of the model, or if a single one is part of several pairs.
    """
    pairs = {found.groups(): entry for name, entry in entries.items() if (found := _PAIR.fullmatch(name))}
    wanted = (params.src_lang, params.tgt_lang)
    if wanted == (None, None):
        return dict(next(iter(pairs.values()), {}))
    fits = [pair for pair in pairs if all(one in (None, other) for one, other in zip(wanted, pair, strict=True))]
    if len(fits) == 1:
        return dict(pairs[fits[0]])
    source, target = wanted
    if fits:
        field, problem = "src_lang" if source is None else "tgt_lang", "the model has several such pairs: name both"
    else:
        field = "tgt_lang" if source is None or any(source == one for one, _ in pairs) else "src_lang"
        problem = f"the model has no pair {source or '(any)'} to {target or '(any)'}"
    have = ", ".join(" to ".join(pair) for pair in pairs)
    raise Permanent(
        f"params.{field}: {problem}; " + (f"its pairs are {have}" if have else "it takes no languages: leave them out"),
        code="bad_params",
    )
