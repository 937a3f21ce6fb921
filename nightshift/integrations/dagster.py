"""Nightshift in Dagster: a component that makes an asset of a job's results.

type: nightshift.integrations.dagster.NightshiftJob
attributes:
  asset: annotated/reviews
  url: https://nightshift.internal
  token_variable: NIGHTSHIFT_TOKEN
  daily_from: "2026-11-01"
  spec:
    task: text-classification
    model: distilbert/distilbert-base-uncased-finetuned-sst-2-english
    input: {uri: "s3://raw/reviews/{partition}/"}
    output: {uri: "s3://annotated/reviews/{partition}/"}
"""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from nightshift import Client
from nightshift.integrations._job import started, summary


class NightshiftJob(dg.Component, dg.Model, dg.Resolvable):
    """An asset that a job makes. Materialise it again, and what the job has no answer to is run again.

    `token_variable` names the environment variable that has the token. With `daily_from` there is a partition for each
    day, and `{partition}` in the spec stands for its date.
    """

    asset: str
    spec: dict[str, Any]
    url: str = "http://127.0.0.1:8000"
    token_variable: str | None = None
    daily_from: str | None = None
    group: str | None = None
    poll_s: float = 5.0

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        partitions = None if self.daily_from is None else dg.DailyPartitionsDefinition(start_date=self.daily_from)

        @dg.asset(
            key=dg.AssetKey(self.asset.split("/")),
            partitions_def=partitions,
            group_name=self.group,
            kinds={"nightshift", "parquet"},
            description=f"{self.spec.get('task')} by {self.spec.get('model')}",
        )
        def annotated(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            return self.materialised(context)

        return dg.Definitions(assets=[annotated])

    def materialised(self, context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Run the job of a partition, or the job. Raise Failure if it doesn't succeed."""
        partition = context.partition_key if context.has_partition_key else ""
        spec = filled(self.spec, partition)
        token = None if self.token_variable is None else os.environ[self.token_variable]
        with Client(self.url, token) as client:
            job = started(client, spec, f"dagster:{context.run.root_run_id or context.run_id}:{self.asset}:{partition}")
            context.log.info(f"job {job.id} at {job.output}: {job.status}")
            ended = summary(client.wait(job.id, check=False, every_s=self.poll_s))
        shown = {name: value for name, value in ended.items() if value is not None}
        if ended["status"] != "succeeded":
            raise dg.Failure(f"job {ended['job']} {ended['status']}: {ended['error']}", metadata=shown)
        return dg.MaterializeResult(metadata=shown | {"dagster/row_count": ended["records"]})


def filled(spec: Mapping[str, Any], partition: str) -> dict[str, Any]:
    """Return the spec with the partition's key for each `{partition}` in its texts."""

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{partition}", partition)
        if isinstance(value, Mapping):
            return {name: fill(one) for name, one in value.items()}
        return [fill(one) for one in value] if isinstance(value, list) else value

    return {name: fill(value) for name, value in spec.items()}
