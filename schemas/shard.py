"""The order for one shard: all that a message carries. With it and storage a worker needs nothing else."""

from pydantic import BaseModel, ConfigDict


class ShardOrder(BaseModel):
    """Run shard `shard` (of `shards`) of a job of this task, whose files lie under `output`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    task: str
    output: str
    shard: int
    shards: int
