"""What starting costs: one row of Parquet through `nightshift run`, against a script around `pipeline()`.

Both are whole commands, from the shell's start of them to their exit, in turns. The script is what people would write;
its answer and ours must agree.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from benchmarks.inputs import MINILM, make_model, tell

ROUNDS = 3
TARGET = 1.25
SCRIPT = """
import sys
import pyarrow as pa, pyarrow.parquet as pq
from transformers import pipeline

model, source, output = sys.argv[1:]
table = pq.read_table(source)
answers = pipeline("text-classification", model=model)(table["text"].to_pylist())
answered = {name: [answer[name] for answer in answers] for name in ("label", "score")}
pq.write_table(pa.table({"text": table["text"]} | answered), output)
"""


def main() -> bool:
    """Return whether the answers agree."""
    print("startup: one record through a whole command, seconds from its start to its exit")
    with tempfile.TemporaryDirectory(prefix="nightshift-startup-") as name:
        folder = Path(name)
        model = make_model(folder / "model", MINILM)
        pq.write_table(pa.table({"text": ["a film that knows what it is about"]}), folder / "in.parquet")
        (folder / "script.py").write_text(SCRIPT)
        script = [sys.executable, "script.py", str(model), "in.parquet", "answers.parquet"]
        ours = [str(Path(sys.executable).parent / "nightshift"), "run", "--task", "text-classification"]
        ours += ["--model", str(model), "--input", "in.parquet"]
        times: dict[str, list[float]] = {"script": [], "nightshift run": []}
        for turn in range(-1, ROUNDS):  # the first, which fills the system's cache of files, doesn't count
            took = {
                "script": _seconds(script, folder),
                "nightshift run": _seconds([*ours, "--output", f"out{turn}"], folder),
            }
            for contestant, seconds in took.items() if turn >= 0 else ():
                times[contestant].append(seconds)
        for contestant, seconds_each in times.items():
            told = f"{statistics.median(seconds_each):.1f} s"
            tell(f"{contestant} ({', '.join(f'{seconds:.1f}' for seconds in seconds_each)})", told)
        ratio = statistics.median(times["nightshift run"]) / statistics.median(times["script"])
        tell("nightshift run over the script", f"{ratio:.2f}", f"≤ {TARGET}", ratio <= TARGET)
        theirs = pq.read_table(folder / "answers.parquet").to_pylist()[0]
        (own,) = ds.dataset(folder / "out0", format="parquet").to_table(columns=["prediction"]).to_pylist()
        same = own["prediction"]["label"] == theirs["label"]
        return bool(same and abs(own["prediction"]["score"] - theirs["score"]) < 1e-4)


def _seconds(command: list[str], folder: Path) -> float:
    env = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    env["NIGHTSHIFT_HOME"] = str(folder / "home")
    began = time.monotonic()
    subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began
