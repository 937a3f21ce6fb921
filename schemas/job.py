"""The job spec, in one form for the file, the command line, the API, a schedule and `_job.json`."""

import hashlib
import json
from datetime import datetime
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from schemas.errors import Permanent, Problem, SpecError
from schemas.incremental import Incremental
from schemas.layout import Layout
from schemas.redaction import masked, shown
from schemas.table import TableSpec
from schemas.task import Task, TaskParams
from schemas.tasks import all_tasks, find_task

Uri = Annotated[str, Field(min_length=1)]
#: Strict, like all numbers here: "5" and true are refused, as the JSON Schema says.
Count = Annotated[StrictInt, Field(gt=0, lt=2**53)]
Label = Annotated[str, Field(max_length=256)]


#: The context in which stored files are read: another version, which knows more keys, may have written them.
STORED = {"stored": True}

#: A job's priority unless its spec says otherwise. No tenant's jobs wait for those of another below this one.
NORMAL_PRIORITY = 5
HIGHEST_PRIORITY = 9


class Strict(BaseModel):
    """Base class of every part of a job spec. It refuses unknown keys, and its values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def without_usual(data: dict[str, Any], **usual: Any) -> dict[str, Any]:
    """Return the keys without those that earlier versions don't know and that say nothing: they have these values."""
    return {name: value for name, value in data.items() if name not in usual or value != usual[name]}


class InputSpec(Strict):
    uri: Uri | Annotated[list[Uri], Field(min_length=1)] = Field(
        description="A file, a prefix ending in `/`, a glob, or a list of these; `s3://` or a local path."
    )
    format: Literal["parquet", "media"] | None = Field(None, description="Inferred where not given.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="What the task calls a column: what the table calls it. Same names need no entry.",
    )
    keep: list[str] | None = Field(
        None, description="Input columns to carry to the output; null keeps all that hold no binary data."
    )

    @property
    def uris(self) -> list[str]:
        return [self.uri] if isinstance(self.uri, str) else self.uri


class OutputSpec(Strict):
    uri: Uri = Field(description="A prefix of this job's own; `s3://` or a local folder.")
    latest: Uri | None = Field(
        None,
        description="A JSON object, outside of the prefix, that is to name this job's output once it has succeeded, "
        "unless it names that of a job which began later.",
    )
    prefix: str = Field(
        "",
        max_length=64,
        pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        description="What the names of our columns begin with, such as `ns_`, if the input has a column `error`.",
    )
    table: TableSpec | None = Field(None, description="A table that the parts are committed to once the job succeeded.")

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(serialize(self), prefix="", latest=None, table=None)


class ShardSpec(Strict):
    rows: Count | None = Field(None, description="Records a shard at most; null plans about a minute of work.")
    bytes: Count | None = Field(None, description="Uncompressed input bytes a shard at most.")


#: Keys of a spec that may be left empty, which YAML reads as null. An empty key has its default.
_MAY_BE_EMPTY = ("params", "shard", "labels")


def _or_null(schema: dict[str, Any]) -> None:
    """Declare in the spec's JSON Schema which keys may be null, and that `incremental` may be a truth value."""
    schema["properties"]["incremental"]["anyOf"].append({"type": "boolean"})
    for name in _MAY_BE_EMPTY:
        said = schema["properties"][name]
        beside = {key: said.pop(key) for key in ("title", "description", "default") if key in said}
        schema["properties"][name] = {"anyOf": [said, {"type": "null"}]} | beside


class JobSpec(Strict):
    """One task, one model at one revision, one input, one output location."""

    model_config = ConfigDict(json_schema_extra=_or_null)

    task: str = Field(description="An id of the task catalogue.")
    model: str = Field(min_length=1, description="Hub id, `s3://` prefix or local folder.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    input: InputSpec
    output: OutputSpec
    params: dict[str, Any] = Field(default_factory=dict, description="The task's own parameters.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_size: Literal["auto"] | Annotated[Count, Field(le=100_000)] = Field(
        "auto", description="`auto` batches by cost; a number caps the records of a batch."
    )
    seed: StrictInt = Field(0, ge=0)
    shard: ShardSpec = ShardSpec()
    max_errors: StrictInt | StrictFloat | None = Field(
        None,
        ge=0,
        description="Fail the job above this many error rows: 100, or 0.01 as a share; null never does.",
    )
    priority: StrictInt = Field(
        NORMAL_PRIORITY,
        ge=0,
        le=HIGHEST_PRIORITY,
        description="0 last … 9 first, among the tenant's own jobs; before those of others as far as the token allows.",
    )
    incremental: Incremental | None = Field(
        None, description="Take only what no earlier run of the series has annotated; `true` is for schedules."
    )
    missing_input: Literal["fail", "empty"] = Field(
        "fail", description="What an input without a single file is: a fault, or an empty one that succeeds."
    )
    reuse: StrictBool | Uri = Field(
        False,
        description="Copy the answers that equal records got before: in the tenant's own jobs, or in those that name "
        "the same folder.",
    )
    labels: dict[Label, Label] = Field(default_factory=dict, max_length=64)
    notify: HttpUrl | None = Field(None, description="A URL that gets a signed POST when the job ends.")

    @field_validator(*_MAY_BE_EMPTY, mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("incremental", mode="before")
    @classmethod
    def _is_incremental(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"write {{series: {value}}}")
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @field_validator("input", "output", mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"write {{uri: {value}}}")
        return value

    @model_validator(mode="after")
    def _settle(self, info: ValidationInfo) -> "JobSpec":
        """Replace an alias by the task's id, and add the defaults of the parameters that are not given."""
        task = find_task(self.task)
        try:
            params = task.params.model_validate(self.params, extra="allow" if info.context == STORED else None)
        except ValidationError as error:
            raise SpecError(spec_problems(error, task.params, prefix=("params",))) from None
        settled = params.model_dump(mode="json") | (params.model_extra or {})
        for name, value in {"task": task.id, "params": settled}.items():
            object.__setattr__(self, name, value)
        known = [column.name for column in task.columns]
        for name in self.input.columns:
            if name not in known:
                raise SpecError.of("input.columns", f"{task.id} has no column {name!r}; it has {', '.join(known)}")
        if isinstance(self.max_errors, float) and self.max_errors >= 1 and self.max_errors != int(self.max_errors):
            raise SpecError.of("max_errors", f"{self.max_errors} is neither a count nor a share below 1")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(serialize(self), incremental=None, missing_input="fail", reuse=False)

    @property
    def task_schema(self) -> Task:
        return find_task(self.task)

    @property
    def task_params(self) -> TaskParams:
        """The parameters as the task's own type. Raise Permanent if another version's job has more of them."""
        unknown = self.params.keys() - self.task_schema.params.model_fields.keys()
        if unknown:
            raise Permanent(
                f"{self.task} has no parameter {', '.join(sorted(unknown))} in this version of Nightshift: a newer one "
                "accepted the job, and has to run it",
                code="other_version",
            )
        return self.task_schema.params.model_validate(self.params)

    def column(self, name: str) -> str:
        """Return the table's name for the task's column `name`."""
        return self.input.columns.get(name, name)

    def in_series(self, folder: str) -> "JobSpec":
        """Return the spec with this folder for its series, if it is incremental and names none itself."""
        if self.incremental is None or self.incremental.series is not None:
            return self
        return self.model_copy(update={"incremental": self.incremental.model_copy(update={"series": folder})})

    def fingerprint(self) -> str:
        """Return a hash of all that decides the results. Two specs with one fingerprint ask for the same output."""
        left_out: Any = dict.fromkeys(
            ("priority", "labels", "notify", "max_errors", "missing_input", "reuse"), True
        ) | {"output": {"latest"}}
        decides = self.model_dump(mode="json", exclude=left_out)
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


class ResolvedModel(Strict):
    """The model as a worker loads it: `source` is what the spec named, `revision` pins its content.

    The revision of a hub model is a commit; that of a folder or a prefix is a digest of its files.
    """

    source: str
    kind: Literal["hub", "s3", "local"]
    revision: str


class Parent(Strict):
    """The job that another one retries: its id, and the location of its results."""

    job: str
    output: str


class RunOf(Strict):
    """The run that a job is of: the schedule's name, the due time, and the run's name. The tenant is the job's."""

    schedule: str
    due: datetime
    run: str


class AcceptedJob(Strict):
    """`_job.json`: the accepted spec, with everything in it resolved. `parent` is the job that this one retries.

    `run` is the run of a schedule that the job is of, or that it retries.

    `allowed_inputs` are the prefixes that the submitter may read, URIs in a table's rows included. It is None if the
    settings alone decide what may be read. `max_priority` is the submitter's: above NORMAL_PRIORITY, a job goes before
    those of other tenants only up to it. It is None if the submitter has the usual one. `layout` says where the parts
    lie: jobs of versions that knew one place don't name it.
    """

    id: str
    spec: JobSpec
    fingerprint: str
    model: ResolvedModel
    accepted_at: datetime
    accepted_by: str
    version: str
    parent: Parent | None = None
    allowed_inputs: tuple[str, ...] | None = None
    max_priority: int | None = None
    layout: Layout = Layout.FLAT
    run: RunOf | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(serialize(self), max_priority=None, layout=Layout.FLAT, run=None)

    def shown(self) -> "AcceptedJob":
        """Return the job with secrets in the URL of `notify` masked."""
        notify = self.spec.notify and HttpUrl(masked(str(self.spec.notify)))
        return self.model_copy(update={"spec": self.spec.model_copy(update={"notify": notify})})

    @property
    def reach(self) -> int:
        """How far the job goes before those of other tenants: its priority, within what the submitter may use."""
        is_tenants = self.allowed_inputs is not None
        most = self.max_priority or (NORMAL_PRIORITY if is_tenants else HIGHEST_PRIORITY)
        return max(NORMAL_PRIORITY, min(self.spec.priority, most)) if is_tenants else self.spec.priority

    @property
    def output(self) -> str:
        return self.spec.output.uri

    @property
    def tenant(self) -> str:
        """The tenant whose share of the workers the job uses: its label `tenant`, or an empty string without one."""
        return self.spec.labels.get("tenant", "")

    @property
    def model_key(self) -> str:
        """The key of the loaded model. Jobs with equal keys can share one."""
        return model_key(self.spec.task, self.model.source, self.model.revision)


def model_key(task: str, source: str, revision: str) -> str:
    """Return a key for a loaded model. It has the task, since another task loads the same files differently."""
    return f"{task} {source} {revision}"


def parse_spec(data: object) -> JobSpec:
    """Return a JobSpec from parsed YAML or JSON.

    Raise SpecError with every problem found, each with its field and, for an unknown key, the nearest known one.
    """
    if not isinstance(data, dict):
        raise SpecError.of("", f"a job spec is a mapping of keys to values, not {type(data).__name__}")
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        raise SpecError(spec_problems(error, JobSpec) + _params_problems(data)) from None


def _params_problems(data: dict[str, Any]) -> list[Problem]:
    """Return the problems with the parameters of a spec that has other faults too."""
    try:
        params = find_task(str(data.get("task"))).params
    except SpecError as error:
        return error.problems if "task" in data else []
    try:
        params.model_validate(data.get("params") or {})
    except ValidationError as error:
        return spec_problems(error, params, prefix=("params",))
    return []


# Pydantic adds these to a path for the branch of a union that it tried. They are not part of the field's name.
_UNION_BRANCHES = (
    "constrained-str",
    "list[constrained-str]",
    "literal['auto']",
    "constrained-int",
    "bool",
    "int",
    "float",
)


def spec_problems(error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...] = ()) -> list[Problem]:
    found: dict[str, str] = {}
    for item in error.errors(include_url=False):
        path = [str(part) for part in item["loc"] if part not in _UNION_BRANCHES]
        if item["type"] == "extra_forbidden":
            known = _keys_at(path[:-1], model)
            near = get_close_matches(path[-1], known, n=1, cutoff=0.5)
            message = "unknown key; " + (f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}")
        elif item["type"] == "missing":
            message = "is required"
        else:
            message = f"{item['msg']}, not {shown(item['input'])}"
        name = ".".join([*prefix, *path])
        found[name] = f"{found[name]}, or {message}" if name in found else message
    return [Problem(name, message) for name, message in found.items()]


def _keys_at(path: list[str], model: type[BaseModel]) -> list[str]:
    """Return the known keys of the mapping at `path` inside `model`."""
    for name in path:
        annotation = model.model_fields[name].annotation
        inner = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        found = next((kind for kind in inner if issubclass(kind, BaseModel)), None)
        if found is None:
            break
        model = found
    return list(model.model_fields)


def spec_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job spec. A task's parameters apply on condition that the task is named."""
    schema = JobSpec.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    tasks = all_tasks()
    schema["properties"]["task"]["enum"] = [name for t in tasks.values() for name in (t.id, *t.aliases)]
    schema["allOf"] = [
        {
            "if": {"properties": {"task": {"enum": [task.id, *task.aliases]}}},
            "then": {"properties": {"params": {"anyOf": [task.params.model_json_schema(), {"type": "null"}]}}},
        }
        for task in tasks.values()
    ]
    return schema
