"""How fast would a job go here? Measured on a small shard of its input.

Run as `python -m workers.execution.throughput_sample`.

Reads {"job", "shard", "columns"} as JSON from standard input; `columns` is an Arrow schema in base64. Writes
{"rows", "rows_per_s", "load_s"} as JSON to standard output.
"""

import base64
import json
import sys
import time

import pyarrow as pa

from jobs import logs
from jobs.settings import Settings
from jobs.storage import Storage
from schemas.errors import NightshiftError
from schemas.job import AcceptedJob
from schemas.output import kept_columns, output_schema, task_columns
from schemas.plan import Shard
from workers.engine.runner import ShardRun
from workers.io.media_reader import reader_for
from workers.io.part_writer import PartWriter
from workers.io.witnesses import Witnesses
from workers.models.cache import ModelCache
from workers.tasks import handler_of


def sample(job: AcceptedJob, shard: Shard, columns: pa.Schema, settings: Settings) -> dict[str, float]:
    """Run the shard, discard its part, and return the shard's rows, its rows per second and the model's load time."""
    storage = Storage()
    spec = job.spec
    handler = handler_of(spec.task_schema)
    held = ModelCache(settings, storage).get(job, handler)
    kept = pa.schema([columns.field(name) for name in kept_columns(spec, columns)])
    reader = reader_for(job, columns, storage, settings, Witnesses())
    start = time.monotonic()
    with PartWriter(output_schema(spec, kept)) as writer:
        run = ShardRun(handler(held.loaded, spec.task_params, spec), held.budget, lambda rows: None)
        run.run(shard, reader, task_columns(spec, columns), writer)
    return {"rows": shard.rows, "rows_per_s": shard.rows / (time.monotonic() - start), "load_s": held.load_s}


def main() -> None:
    settings = Settings.read()
    logs.configure("warning", settings.log_format)
    order = json.load(sys.stdin)
    columns = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(order["columns"])))
    job, shard = AcceptedJob.model_validate(order["job"]), Shard.model_validate(order["shard"])
    try:
        result = sample(job, shard, columns, settings)
    except NightshiftError as error:
        sys.exit(error.message)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
