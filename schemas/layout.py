"""Names of the objects under a job's output location. Data begins with `part-`, all else with `_`."""

JOB = "_job.json"
#: Parquet, under a name that a glob over `*.parquet` doesn't take for data.
PLAN = "_plan.pq"
MANIFEST = "_manifest.json"


def part_name(shard: int, shards: int) -> str:
    """`part-00042.parquet`; in a plan of more than 100,000 shards wider, so that names sort in input order."""
    width = max(5, len(str(shards - 1)))
    return f"part-{shard:0{width}d}.parquet"


def shard_of(name: str) -> int | None:
    """The shard that a part belongs to, or None where `name` isn't a part's."""
    digits = name.removeprefix("part-").removesuffix(".parquet")
    return int(digits) if name == f"part-{digits}.parquet" and digits.isdecimal() else None


def child(location: str, name: str) -> str:
    """The URI of `name` under an output location, which may or may not end in a slash."""
    return f"{location.rstrip('/')}/{name}"
