"""summarization: a beam search of a sequence-to-sequence model over the text, which follows the model's own prefix."""

from schemas.job import JobSpec
from schemas.tasks.summarization import TASK, Params
from workers.generation.seq2seq import SequenceToSequence
from workers.handler import Loaded


class Summarization(SequenceToSequence[Params]):
    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        entries = getattr(loaded.model.config, "task_specific_params", None) or {}
        entry = dict(entries.get("summarization", {}))
        super().__init__(loaded, params, spec, entry.pop("prefix", None), entry)
