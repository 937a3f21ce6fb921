"""Whether two answers to one record are the same, and if not, which known difference explains it."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.parity.cases import Run

#: How far apart two scores may be.
TOLERANCE = 1e-4
#: What is no answer on either side: our code, and the class and the beginning of the message of the pipeline's error.
REFUSED = {
    ("empty_question", "ValueError", "`question` cannot be empty"),
    ("empty_context", "ValueError", "`context` cannot be empty"),
    ("question_too_long", "Exception", "Truncation error: Sequence to truncate too short"),
    ("question_too_long", "PanicException", ""),
}
BOTH = "neither answers: the pipeline raises an error (or its tokenizer panics), ours is an error row"
BLANK = "the pipeline answers a question or a context of white space, ours is an error row"
CLS = "with the pipeline a CLS token that is written out in the question may be part of an answer"
ABOVE_ONE = "the pipeline's score of an answer of several windows is over 1, ours stays at 1"
FILLED = "the pipeline fills up `top_k` with spans of score 0"


@dataclass
class Tally:
    """What a run's comparison came to; `answers` are the distinct ones of ours."""

    records: int = 0
    answers: set[str] = field(default_factory=set)
    equal: int = 0
    furthest: float = 0.0
    explained: dict[str, int] = field(default_factory=dict)
    different: list[tuple[dict[str, str], Any, Any]] = field(default_factory=list)

    def add(self, record: dict[str, str], ours: Any, theirs: Any, verdict: str | None) -> None:
        """Count one record; a verdict is None for different, empty for equal, else the explanation."""
        self.records += 1
        self.answers.add(str(ours))
        if verdict is None:
            self.different.append((record, ours, theirs))
        elif verdict:
            self.explained[verdict] = self.explained.get(verdict, 0) + 1
        else:
            self.equal += 1


def compared(run: Run, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> Tally:
    tally = Tally()
    for record, mine, answer in zip(run.records, ours, theirs, strict=True):
        if run.task == "question-answering":
            verdict = _answers(record, mine, answer["called"], tally)
        else:
            verdict = "" if _same_text(mine, answer["called"]) else None
            if verdict is None and run.spelled is not None and _same_text(mine, answer["spelled"]):
                verdict = run.why
        tally.add(record, mine, answer, verdict)
    return tally


def _same_text(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """The same text, and the same tokens behind the one that the decoder starts from."""
    return "error" not in theirs and (ours["text"], ours["tokens"]) == (theirs["text"], theirs["tokens"][1:])


def _answers(record: dict[str, str], ours: dict[str, Any], theirs: Any, tally: Tally) -> str | None:
    """The verdict on one question, whose record may be refused on either side."""
    if isinstance(theirs, dict) and "error" in theirs:
        refused = any(
            (ours.get("error"), theirs["error"]) == (code, kind) and theirs["message"].startswith(message)
            for code, kind, message in REFUSED
        )
        return BOTH if refused else None
    if "error" in ours:
        name = ours["error"].removeprefix("empty_")
        return BLANK if record.get(name, "-").isspace() else None
    verdict = _same_answers(ours, theirs, tally)
    return CLS if verdict is None and "[CLS]" in record["question"] else verdict


def _same_answers(ours: dict[str, Any], theirs: Any, tally: Tally) -> str | None:
    """The verdict on answers of text and place, in order, with scores within the tolerance."""
    found = [theirs] if isinstance(theirs, dict) else theirs
    own = ours["top"]
    if len(found) < len(own) or any(one["score"] for one in found[len(own) :]):
        return None
    for one, other in zip(own, found, strict=False):
        apart = abs(one["score"] - min(other["score"], 1.0))
        if any(one[key] != other[key] for key in ("answer", "start", "end")) or apart > TOLERANCE:
            return None
        tally.furthest = max(tally.furthest, apart)
    if len(found) > len(own):
        return FILLED
    return ABOVE_ONE if any(one["score"] > 1 + TOLERANCE for one in found) else ""
