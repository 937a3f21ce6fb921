"""next-token: the scores for the token after a text, filtered, and a token drawn from them.

Rule: the causal language modelling example of https://huggingface.co/docs/transformers/v4.20.1/task_summary
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from schemas.job import JobSpec
from schemas.tasks.next_token import TASK, Params
from workers.generation.causal import Causal, Prompts, left_padded, load_causal
from workers.generation.decoder import pads
from workers.generation.end_tokens import not_finite
from workers.generation.sampling import filtered, noisy
from workers.handler import Handler, Loaded, Output, Piece, Prediction, Record


class NextToken(Handler[Params]):
    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        assert isinstance(loaded, Causal)
        self._prompts = Prompts(loaded)
        self._pads = pads(loaded.model)
        # One step of `generate`, which knows what each architecture needs. The token that it chooses is ignored.
        config: Any = GenerationConfig
        self._step = config(
            max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True, pad_token_id=0
        )
        self.deterministic = not params.do_sample

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Causal:
        return load_causal(folder, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        texts = [record["text"] for record in records]
        pieces = []
        for text, ids in zip(texts, self._prompts.encode(texts), strict=True):
            kept = self._prompts.cut(ids, self._prompts.positions)
            pieces.append([Piece({"input_ids": kept}, len(kept), (text, len(kept) < len(ids)))])
        return pieces

    def infer(self, pieces: Sequence[Piece]) -> list[Output]:
        """Return each piece's `token`, int64 of shape (), and the candidates' `tokens` (int64) and `scores` (float32).

        `tokens` and `scores` have shape (candidates,). The scores are NaN if the model's scores are not finite.
        """
        alike: defaultdict[int, list[int]] = defaultdict(list)
        for index, piece in enumerate(pieces):
            alike[0 if self._pads else piece.cost].append(index)
        found: dict[int, Output] = {}
        for group in alike.values():
            found |= zip(group, self._chosen([pieces[index] for index in group]), strict=True)
        return [found[index] for index in range(len(pieces))]

    def _chosen(self, pieces: Sequence[Piece]) -> list[Output]:
        params = self.params
        raw = self._scores(pieces)
        scores = filtered(raw / params.temperature, params.top_k, params.top_p)
        # All scores are sorted, since `topk` doesn't define the order of equal scores.
        probabilities, tokens = torch.sort(scores.softmax(-1), descending=True, stable=True)
        probabilities[~torch.isfinite(raw.amax(-1))] = torch.nan
        drawn = tokens[:, 0]
        if params.do_sample:
            seeds = torch.tensor([piece.seed for piece in pieces], device=scores.device)
            drawn = noisy(scores, seeds, 0).argmax(-1)
        top = slice(params.candidates)
        return [
            {"token": token, "tokens": ids[top], "scores": values[top]}
            for token, ids, values in zip(drawn.cpu(), tokens.cpu(), probabilities.cpu(), strict=True)
        ]

    def _scores(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Return the scores after the last token, float32 of shape (pieces, vocabulary)."""
        ids, mask = left_padded(self.loaded, [piece.inputs["input_ids"] for piece in pieces])
        output = self.loaded.model.generate(input_ids=ids, attention_mask=mask, generation_config=self._step)
        scores: torch.Tensor = output.logits[0].float()
        return scores

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        (output,) = outputs
        text, truncated = pieces[0].notes
        if output["scores"][0] != output["scores"][0]:
            raise not_finite()
        token = self._as_text(output["token"])
        candidates = zip(output["tokens"], output["scores"], strict=True)
        return {
            "token": int(output["token"]),
            "token_str": token,
            "text": text + token,
            "candidates": [
                {"token": int(one), "token_str": self._as_text(one), "score": float(score)}
                for one, score in candidates
                if score > 0
            ],
            "truncated": truncated,
        }

    def _as_text(self, token: Any) -> str:
        text: str = self.loaded.processor.decode([int(token)], clean_up_tokenization_spaces=False)
        return text
