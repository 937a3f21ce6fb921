"""What does a folder of results say to its readers? A dataset card: where the data are, their columns, what made them.

It is a card of the Hugging Face hub under a name of ours, `_README.md`: many readers of a folder take a `README.md` in
it for data. It has no counts, which are the manifest's.
"""

import logging
from contextlib import suppress
from typing import Any

import pyarrow as pa
import yaml

from jobs.control.patience import message_of
from jobs.logs import event
from jobs.storage.job_folder import JobFolder
from schemas import __version__
from schemas.job import AcceptedJob
from schemas.layout import JOB, MANIFEST
from schemas.output import OwnColumns, kept_columns, output_schema

_log = logging.getLogger(__name__)
#: What `datasets` calls a type, if that isn't its name in Arrow.
_DTYPES = {
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
    "date32[day]": "date32",
    "date64[ms]": "date64",
}


def write_card(job: AcceptedJob, folder: JobFolder, owner: str) -> None:
    """Write the job's card, unless there is one. A job ends without it too: what went wrong is logged."""
    try:
        columns = folder.plan().columns()
        kept = pa.schema([columns.field(name) for name in kept_columns(job.spec, columns)])
        folder.write_card(card(job, output_schema(job.spec, kept)), owner)
    except Exception as error:  # noqa: BLE001 (results are complete without a card)
        event(_log, "card_not_written", logging.WARNING, error=message_of(error))


def card(job: AcceptedJob, schema: pa.Schema) -> str:
    """Return the card of a job whose parts have this schema, in Markdown with a header in YAML."""
    spec, own = job.spec, OwnColumns.of(job.spec)
    path = job.layout.parts_in("") + "part-*.parquet"
    header: dict[str, Any] = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": path.removeprefix("/")}]}],
        "tags": ["nightshift", spec.task],
    }
    with suppress(ValueError):  # for a kept column of a type that cards have no name for; readers go by the files
        header["dataset_info"] = {"features": features(schema)}
    meaning = {
        own.prediction: "the task's answer; null if there is an error",
        own.error: "why there is no answer; null if there is one",
        own.source_uri: "the file of the input",
        own.source_row: "the row in that file, from 0",
    }
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# Results of {spec.task}",
        "",
        f"Written by Nightshift {__version__}, job {job.id}. `{MANIFEST}` exists once the results are final, "
        f"and counts them; `{JOB}` has the whole job.",
        "",
        f"The model: `{job.model.source}` at `{job.model.revision}`.",
        "",
        "Our columns follow those of the input:",
        "",
        *(f"- `{name}`: {what}" for name, what in meaning.items()),
        "",
        "To publish the folder on the Hugging Face hub, name this file `README.md` there.",
        "",
    ]
    return "\n".join(lines)


def features(schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the columns as a card's `dataset_info` has them. Raise ValueError for a type that it has no name for."""
    return [{"name": field.name} | _feature(field.type) for field in schema]


def _feature(arrow: pa.DataType) -> dict[str, Any]:
    if pa.types.is_dictionary(arrow):
        return _feature(arrow.value_type)
    if pa.types.is_struct(arrow):
        return {"struct": features(pa.schema(list(arrow)))}
    if pa.types.is_list(arrow) or pa.types.is_fixed_size_list(arrow):
        length = {"length": arrow.list_size} if pa.types.is_fixed_size_list(arrow) else {}
        return {"list": _values(arrow.value_type)} | length
    if pa.types.is_large_list(arrow):
        return {"large_list": _values(arrow.value_type)}
    if arrow.num_fields or isinstance(arrow, pa.BaseExtensionType):
        raise ValueError(f"a card has no name for {arrow}")
    return {"dtype": _DTYPES.get(str(arrow), str(arrow))}


def _values(arrow: pa.DataType) -> Any:
    """Return what a list holds. A card leaves out the key if there is only one."""
    inner = _feature(arrow)
    return next(iter(inner.values())) if inner.keys() <= {"dtype", "struct"} else inner
