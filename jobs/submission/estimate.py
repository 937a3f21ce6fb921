"""How long would a job take? A process beside this one runs a worker's own code over the input's first records."""

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass

from jobs.planning.planner import Limits, planned
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.submission.accept import new_job
from jobs.submission.validate import Validated
from schemas.errors import Permanent

SAMPLE_ROWS = 64
SAMPLE_BYTES = 4 << 20


@dataclass(frozen=True)
class Estimate:
    """Records a second over a sample of `rows`, without the `load_s` seconds that loading the model took."""

    rows: int
    rows_per_s: float
    load_s: float


def estimate(validated: Validated, storage: Storage, settings: Settings) -> Estimate | None:
    """Run the sample. Return None if the input has no rows.

    Raise Permanent if the model doesn't load or torch isn't installed here.
    """
    limits = Limits(SAMPLE_ROWS, SAMPLE_BYTES)
    plan = planned(validated.spec, validated.columns, storage, settings, limits)
    shard = next((shard for shard in plan.shards if shard.rows), None)
    if shard is None:
        return None
    order = {
        "job": new_job(validated.spec, validated.model).model_dump(mode="json"),
        "shard": shard.model_dump(),
        "columns": base64.b64encode(validated.columns.serialize().to_pybytes()).decode(),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "workers.execution.throughput_sample"],
        input=json.dumps(order),
        capture_output=True,
        check=False,
        text=True,
        env=settings.environment(os.environ),
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise Permanent(f"the sample for the estimate failed: {last[0]}\n--no-sample plans without one")
    return Estimate(**json.loads(done.stdout.splitlines()[-1]))
