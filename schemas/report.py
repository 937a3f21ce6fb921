"""A shard's report: what its attempt did, kept in the Parquet footer of its part."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

REPORT_KEY = b"nightshift.report"


class ShardReport(BaseModel):
    """The report of one attempt at one shard.

    `seconds` are by stage: `wall` is the whole attempt, `load` the model's load (0 if it was loaded already),
    `infer` the time in the model. `errors` counts error rows by code, `reused` the rows whose answers were copied.
    `fingerprint` is of spec and slices. `checksum` is of the part's rows, however they are stored; None if an earlier
    version wrote the part.
    """

    model_config = ConfigDict(frozen=True)

    job: str
    shard: int
    attempt: str
    worker: str
    fingerprint: str
    rows: int
    errors: dict[str, int]
    batches: int
    tokens: int
    padded_tokens: int
    seconds: dict[str, float]
    device: str
    dtype: str
    versions: dict[str, str]
    checksum: str | None = None
    reused: int = 0

    @property
    def error_rows(self) -> int:
        return sum(self.errors.values())

    def to_metadata(self) -> dict[bytes, bytes]:
        return {REPORT_KEY: self.model_dump_json().encode()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes]) -> "ShardReport":
        return cls.model_validate_json(metadata[REPORT_KEY])
