"""Parts in storage, as far as both sides read them: the report in a part's footer."""

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.storage import ObjectInfo, Storage
from schemas.errors import Permanent
from schemas.report import REPORT_KEY, ShardReport


def read_report(info: ObjectInfo, storage: Storage) -> ShardReport:
    """The report in a part's footer. Raises Permanent where the file isn't a part that Nightshift wrote."""
    with storage.open(info) as source:
        try:
            metadata = pq.read_metadata(source).metadata or {}
        except (pa.ArrowException, OSError) as error:
            if source.failure is not None:
                raise source.failure from None
            raise Permanent(f"{info.uri} is no Parquet file: {error}", code="foreign_part") from error
    if REPORT_KEY not in metadata:
        raise Permanent(f"{info.uri} was not written by Nightshift; move it away", code="foreign_part")
    return ShardReport.from_metadata(metadata)
