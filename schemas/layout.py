"""What are the objects of a job called, and where below its output location do they lie?

Parts begin with `part-`, all else with `_`, which readers of a folder of Parquet files pass over.
"""

from enum import StrEnum

JOB = "_job.json"
#: A Parquet file, under a name that a glob over `*.parquet` doesn't match.
PLAN = "_plan.pq"
MANIFEST = "_manifest.json"
#: A dataset card. Under the name `README.md` it would be taken for data by readers of the whole folder.
CARD = "_README.md"


class Layout(StrEnum):
    """Where a job's parts lie. Everything else lies in the output location itself.

    `data`: in the folder `data`, which holds nothing else. `flat`: in the output location, as in the jobs of versions
    that knew no other place.
    """

    FLAT = "flat"
    DATA = "data"

    def parts_in(self, location: str) -> str:
        """Return the folder of the parts of a job with this output location. It ends in a slash."""
        return child(location, "data/" if self is Layout.DATA else "")


def part_name(shard: int, shards: int) -> str:
    """Return a part's name, `part-00042.parquet`.

    Names are wider in a plan of more than 100,000 shards, so that they sort in input order.
    """
    width = max(5, len(str(shards - 1)))
    return f"part-{shard:0{width}d}.parquet"


def shard_of(name: str) -> int | None:
    """Return the shard that a part belongs to, or None if `name` isn't the name of a part."""
    digits = name.removeprefix("part-").removesuffix(".parquet")
    return int(digits) if name == f"part-{digits}.parquet" and digits.isascii() and digits.isdecimal() else None


def child(location: str, name: str) -> str:
    """Return the URI of `name` under an output location, which may or may not end in a slash."""
    return f"{location.rstrip('/')}/{name}"
