"""The order for one shard: what a worker takes from Redis. With it and storage it needs nothing else."""

from pydantic import BaseModel, ConfigDict


class ShardOrder(BaseModel):
    """Run shard `shard` (of `shards`) of a job of this task, whose files lie under `output`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    task: str
    output: str
    shard: int
    shards: int
