"""What do the reports of a job's parts add up to? What the manifest says of them, and `verify` works out again."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from jobs.storage.base import ObjectInfo
from schemas.manifest import Part
from schemas.report import ShardReport


@dataclass
class PartsTally:
    """The parts of a job, by shard, and what their reports add up to."""

    found: dict[int, Part] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    versions: dict[str, set[str]] = field(default_factory=dict)
    reused: int = 0

    def add(self, info: ObjectInfo, report: ShardReport) -> None:
        self.found[report.shard] = Part(
            name=info.uri.rsplit("/", 1)[-1],
            shard=report.shard,
            rows=report.rows,
            bytes=info.size,
            etag=info.etag,
            error_rows=report.error_rows,
            checksum=report.checksum,
        )
        self.errors.update(report.errors)
        self.reused += report.reused
        self.seconds.update(report.seconds)
        for name, version in report.versions.items():
            self.versions.setdefault(name, set()).add(version)

    def totals(self) -> dict[str, Any]:
        """Return the fields of the manifest that follow from the parts."""
        return {
            "rows": sum(part.rows for part in self.found.values()),
            "error_rows": sum(self.errors.values()),
            "errors": dict(self.errors),
            "parts": [self.found[shard] for shard in sorted(self.found)],
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "versions": {name: sorted(found) for name, found in self.versions.items()},
            "reused": self.reused,
        }
