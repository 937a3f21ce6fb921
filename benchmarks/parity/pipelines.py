"""The answers of Transformers 4's own pipelines: `python pipelines.py CASES ANSWERS`, in the environment that has it.

Reads and writes JSON, and uses nothing of the project, which needs Transformers 5.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import pipeline


def answer(pipe: Any, record: dict[str, str], options: dict[str, Any]) -> Any:
    """What the pipeline gives for one record alone; the error it raises, as its class and message."""
    try:
        if "question" in record:
            return pipe(**record, **options)
        (found,) = pipe(record["text"], truncation=True, return_tensors=True, **options)
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return {"error": type(error).__name__, "message": str(error)[:200]}
    (tokens,) = found.values()
    (text,) = pipe.postprocess({"output_ids": tokens[None, None]})[0].values()
    return {"text": text, "tokens": tokens.tolist()}


def answers(run: dict[str, Any]) -> list[Any]:
    """A run's answers as its options are given, and where it has some, as they are spelled out."""
    pipe = pipeline(run["pipeline"], model=run["model"], device="cpu")
    found = [answer(pipe, record, run["options"]) for record in run["records"]]
    if run["spelled"] is None:
        return [{"called": one} for one in found]
    options = run["options"] | run["spelled"]
    return [
        {"called": one, "spelled": answer(pipe, record, options)}
        for one, record in zip(found, run["records"], strict=True)
    ]


def main() -> None:
    cases, answered = map(Path, sys.argv[1:])
    assert transformers.__version__.startswith("4."), transformers.__version__
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    runs = json.loads(cases.read_text())
    found = [answers(run) for run in runs]
    answered.write_text(json.dumps({"version": transformers.__version__, "runs": found}))


if __name__ == "__main__":
    main()
