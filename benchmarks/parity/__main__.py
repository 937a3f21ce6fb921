"""`python -m benchmarks.parity PYTHON`: PYTHON is that of an environment with Transformers 4.

Ends with 1 where an answer differs and no known difference explains it.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.inputs import quiet
from benchmarks.parity import ours
from benchmarks.parity.cases import Run, runs
from benchmarks.parity.compare import Tally, compared

#: Of what differs without an explanation, so many records a run are printed.
SHOWN = 3
SCRIPT = Path(__file__).with_name("pipelines.py")
LINE = "{:<20}{:<17}{:<80}{:>7}{:>10}{:>7}{:>11}{:>11}"


def both(python: str, folder: Path) -> tuple[list[Run], list[list[dict[str, Any]]], dict[str, Any]]:
    """What is compared, our answers to it, and those of the pipelines, which run meanwhile."""
    cases = runs(folder)
    (folder / "cases.json").write_text(json.dumps([asdict(run) for run in cases]))
    command = [python, str(SCRIPT), str(folder / "cases.json"), str(folder / "answers.json")]
    with (folder / "log").open("w+") as log:  # where the tokenizers library's panics are told at length
        pipelines = subprocess.Popen(command, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        try:
            own = [ours.answers(run) for run in cases]
            if pipelines.wait():
                log.seek(0)
                raise SystemExit(f"{log.read()}\nthe pipelines of Transformers 4 did not run to their end")
        finally:
            pipelines.kill()
    return cases, own, json.loads((folder / "answers.json").read_text())


def table(cases: list[Run], tallies: list[Tally]) -> None:
    print(LINE.format("task", "model", "params", "records", "distinct", "equal", "explained", "different"))
    for run, tally in zip(cases, tallies, strict=True):
        params = json.dumps(run.params)[1:-1].replace('"', "") or "none"
        counts = [tally.records, len(tally.answers), tally.equal, sum(tally.explained.values()), len(tally.different)]
        print(LINE.format(run.task, run.name, params, *counts))
        for record, mine, theirs in tally.different[:SHOWN]:
            print(f"  {record}\n    ours   {mine}\n    theirs {theirs}")
    print()


def conclusion(cases: list[Run], tallies: list[Tally]) -> None:
    """Print what all runs of each task came to, and each explanation with its count."""
    for task in dict.fromkeys(run.task for run in cases):
        mine = [tally for run, tally in zip(cases, tallies, strict=True) if run.task == task]
        records, equal = sum(tally.records for tally in mine), sum(tally.equal for tally in mine)
        unexplained = sum(len(tally.different) for tally in mine)
        print(f"{task}: {records:,} records, {equal:,} equal, {unexplained} different without an explanation")
    for why, count in sum((Counter(tally.explained) for tally in tallies), Counter[str]()).items():
        print(f"  {count:,} explained: {why}")
    print(f"  scores at most {max(tally.furthest for tally in tallies):.1e} apart")


def main() -> int:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m benchmarks.parity PYTHON (of an environment with Transformers 4)")
    torch.set_num_threads(1)
    quiet()
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    warnings.simplefilter("ignore", UserWarning)  # Marian's tokenizer recommends sacremoses, which neither side has
    with tempfile.TemporaryDirectory(prefix="nightshift-parity-") as folder:
        cases, own, answers = both(sys.argv[1], Path(folder))
    print(
        f"Transformers {transformers.__version__} (Nightshift) and {answers['version']} (its pipelines), float32, CPU\n"
    )
    tallies = [compared(run, mine, theirs) for run, mine, theirs in zip(cases, own, answers["runs"], strict=True)]
    table(cases, tallies)
    conclusion(cases, tallies)
    return 1 if any(tally.different for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
