"""How is a job described on the command line? By options, a spec file, or both; they become one spec."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml

from schemas.errors import SpecError
from schemas.job import JobSpec, parse_spec


def spec_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a spec to a command: a file, and options that add to it or replace it."""
    for decorate in reversed(
        [
            click.argument("spec_file", required=False, type=click.Path(dir_okay=False), metavar="[JOB.yaml]"),
            click.option("--task", help="What to do to each record; see `nightshift tasks`."),
            click.option("--model", help="Hub id, s3:// prefix or local folder."),
            click.option("--revision", help="Branch, tag or commit of a hub model."),
            click.option("--input", "inputs", multiple=True, help="File, prefix/ or glob; may be given again."),
            click.option("--output", help="A prefix or folder of this job's own."),
            click.option(
                "--column",
                "columns",
                multiple=True,
                metavar="NAME=COLUMN",
                help="The table's column for one of the task's, such as text=review_body.",
            ),
            click.option("--keep", help="Input columns to carry to the output, comma-separated."),
            click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the task."),
            click.option(
                "--set",
                "sets",
                multiple=True,
                metavar="KEY=VALUE",
                help="Any other key of the spec, such as shard.rows=500.",
            ),
        ]
    ):
        command = decorate(command)
    return command


def spec_from_options(
    spec_file: str | None,
    task: str | None,
    model: str | None,
    revision: str | None,
    inputs: tuple[str, ...],
    output: str | None,
    columns: tuple[str, ...],
    keep: str | None,
    params: tuple[str, ...],
    sets: tuple[str, ...],
) -> JobSpec:
    """Return the spec of a file, overridden by the options. Raise SpecError with all that is wrong."""
    data = read_file(spec_file) if spec_file else {}
    named = {"task": task, "model": model, "revision": revision, "output.uri": output}
    given: dict[str, Any] = {path: value for path, value in named.items() if value is not None}
    if inputs:
        given["input.uri"] = inputs[0] if len(inputs) == 1 else list(inputs)
    if keep is not None:
        given["input.keep"] = [name.strip() for name in keep.split(",") if name.strip()]
    given |= {f"input.columns.{name}": value for name, value in map(pair, columns)}
    given |= {f"params.{name}": value_of(value) for name, value in map(pair, params)}
    given |= {name: value_of(value) for name, value in map(pair, sets)}
    for path, value in given.items():
        put(data, path, value)
    return parse_spec(data)


def read_file(file: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(Path(file).read_text())
    except OSError as error:
        raise SpecError.of("", f"the spec file {file!r} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError.of("", f"the spec file {file!r} is neither YAML nor JSON: {error}") from None
    if not isinstance(data, dict):
        raise SpecError.of("", f"the spec file {file!r} holds {type(data).__name__}, not keys and values")
    return data


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{text!r} is not of the form NAME=VALUE")
    return name.strip(), value


def value_of(text: str) -> Any:
    """Read a value as YAML: 2 is a number, true a truth value, [a, b] a list."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def put(data: dict[str, Any], path: str, value: Any) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        if data.get(folder) is None:
            data[folder] = {}
        inner = data[folder]
        if not isinstance(inner, dict):
            raise SpecError.of(path, f"{folder!r} is {inner!r} in the spec file, not keys and values")
        data = inner
    data[name] = value
