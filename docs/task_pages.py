"""The task pages under docs/tasks, made from the schemas: `python -m docs.task_pages` writes them, `--check` compares.

A page shows the specs under docs/examples whose task it is about; a task without one has a page all the same.
"""

import html
import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from schemas.task import Column, Task
from schemas.tasks import all_tasks, module_name

DOCS = Path(__file__).parents[1] / "docs"
_MADE = "<!-- Written by `make docs` from the schemas; edit those. -->"
#: What a JSON Schema calls a bound, and how a page puts it.
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "length {} or more",
    "maxLength": "length {} or less",
    "minItems": "length {} or more",
    "maxItems": "length {} or less",
}
_WORDS = {"array": "list", "object": "mapping"}


@dataclass(frozen=True)
class Example:
    """A spec that stands under docs/examples, and its input."""

    file: Path
    text: str
    table: pa.Table


def pages() -> dict[Path, str]:
    """Every page by its file."""
    tasks = list(all_tasks().values())
    folder = DOCS / "tasks"
    made = {folder / f"{task.id}.md": page(task, list(examples_of(task))) for task in tasks}
    return made | {folder / "README.md": index(tasks)}


def examples_of(task: Task) -> Iterator[Example]:
    """The specs of a task under docs/examples, in order of name."""
    for file in sorted((DOCS / "examples").glob("*/*.yaml"), key=lambda file: (file.parent, file.stem)):
        text = file.read_text(encoding="utf-8")
        spec = yaml.safe_load(text)
        if spec["task"] in (task.id, *task.aliases):
            yield Example(file, text, pq.read_table(file.parent / spec["input"]["uri"]))


def index(tasks: list[Task]) -> str:
    """The table of all tasks."""
    rows = [[f"[`{task.id}`]({task.id}.md)", _codes(task.aliases), task.group, prose(task.summary)] for task in tasks]
    return _paragraphs([_MADE, "# Tasks", _table(["task", "also called", "group", "what it does"], rows)])


def page(task: Task, examples: list[Example]) -> str:
    """The page of one task, as Markdown."""
    return _paragraphs(
        [
            _MADE,
            f"# {task.id}",
            prose(task.summary),
            _facts(task),
            prose(notes(task)),
            "## Input",
            _table(["column", "needed", "types", "what it is"], [_column(column) for column in task.columns]),
            "## Parameters",
            parameters(task),
            "## Prediction",
            f"The column `prediction` is a struct, null where a record has an error. Its version is {task.version}.",
            _table(["field", "type", "unit", "range", "what it is"], [*fields(task.prediction)]),
            f"## Example{'s' * (len(examples) > 1)}" if examples else "",
            *(example_section(example) for example in examples),
        ]
    )


def notes(task: Task) -> str:
    """The docstring of the task's schema module, without its first line."""
    module = importlib.import_module(f"schemas.tasks.{module_name(task)}")
    return (module.__doc__ or "").partition("\n")[2].strip()


def _facts(task: Task) -> str:
    facts = [f"- Also called: {_codes(task.aliases)}"] if task.aliases else []
    facts.append(f"- Group of workers: {task.group}")
    facts.append(f"- Model classes, by the ending of their names: {_codes(task.heads)}")
    return "\n".join(facts)


def _column(column: Column) -> list[str]:
    need = "required" if column.required else "optional"
    return [f"`{column.name}`", need, column.accepts, prose(column.description)]


def parameters(task: Task) -> str:
    """The table of a task's parameters, from their JSON Schema."""
    schema = task.params.model_json_schema()
    known = schema.get("$defs", {})
    rows = [
        [f"`{name}`", kind(field, known), _default(field), prose(field.get("description", ""))]
        for name, field in schema.get("properties", {}).items()
    ]
    return _table(["parameter", "type", "default", "what it is"], rows) if rows else "None."


def kind(schema: dict[str, Any], known: dict[str, Any]) -> str:
    """What a JSON Schema allows, in words: its type, its choices, its bounds."""
    if "$ref" in schema:
        return kind(known[schema["$ref"].rpartition("/")[2]], known)
    if "anyOf" in schema:
        return " or ".join(kind(choice, known) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(_json(choice) for choice in schema["enum"])
    if "const" in schema:
        return _json(schema["const"])
    name = str(schema.get("type", "any"))
    bounds = [words.format(schema[bound]) for bound, words in _BOUNDS.items() if bound in schema]
    limits = f" ({', '.join(bounds)})" if bounds else ""
    items = f" of {kind(schema['items'], known)}" if "items" in schema else ""
    return _WORDS.get(name, name) + limits + items


def _default(schema: dict[str, Any]) -> str:
    return _json(schema["default"]) if "default" in schema else "required"


def _json(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def fields(arrow: pa.DataType, prefix: str = "") -> Iterator[list[str]]:
    """A table's row for each field of a struct, the fields inside it after it. `[]` stands for a list's items."""
    for field in arrow:
        about = {key.decode(): prose(value.decode()) for key, value in (field.metadata or {}).items()}
        notes = [about.get(key, "") for key in ("unit", "range", "description")]
        yield [f"`{prefix}{field.name}`", f"`{type_name(field.type)}`", *notes]
        inner, name = field.type, prefix + field.name
        while _is_list(inner):
            inner, name = inner.value_type, f"{name}[]"
        if pa.types.is_struct(inner):
            yield from fields(inner, f"{name}.")


def type_name(arrow: pa.DataType) -> str:
    """An Arrow type, without the fields of structs."""
    if pa.types.is_struct(arrow):
        return "struct"
    return f"list<{type_name(arrow.value_type)}>" if _is_list(arrow) else str(arrow)


def _is_list(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_list(arrow) or pa.types.is_large_list(arrow))


def example_section(example: Example) -> str:
    """A spec, how to run it and what it reads."""
    folder = example.file.parent.relative_to(DOCS.parent).as_posix()
    rows = [[_value(value) for value in row.values()] for row in example.table.to_pylist()]
    return _paragraphs(
        [
            f"[{example.file.name}](../{example.file.relative_to(DOCS).as_posix()}):",
            f"```yaml\n{example.text.strip()}\n```",
            f"```sh\ncd {folder} && nightshift run {example.file.name}\n```",
            "Its input:",
            _table(example.table.column_names, rows),
        ]
    )


def _value(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):  # a picture or a sound
        return _escaped(f"{value.get('path') or 'bytes'}, {len(value['bytes']) / 1000:.1f} kB")
    return _escaped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def prose(text: str) -> str:
    """Text as Markdown that may have code in backticks: elsewhere an angle bracket is no HTML."""
    pieces = text.split("`")
    return "`".join(_escaped(piece) if i % 2 == 0 else piece for i, piece in enumerate(pieces))


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def _paragraphs(parts: list[str]) -> str:
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _text(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None


def stale(made: dict[Path, str]) -> list[Path]:
    """The files that differ from the pages made now, and pages of tasks that are gone."""
    changed = [file for file, text in made.items() if _text(file) != text]
    gone = [
        file for file in (DOCS / "tasks").glob("*.md") if file not in made and (_text(file) or "").startswith(_MADE)
    ]
    return sorted(changed + gone)


def write(made: dict[Path, str]) -> None:
    """Bring docs/tasks up to date."""
    for file in stale(made):
        if file in made:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(made[file], encoding="utf-8")
        else:
            file.unlink()


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where a page is stale, and name it.")
def main(check: bool) -> None:
    """Write docs/tasks from the schemas."""
    made = pages()
    if not check:
        write(made)
    elif found := stale(made):
        raise click.ClickException(
            "run `make docs`; stale: " + ", ".join(str(file.relative_to(DOCS.parent)) for file in found)
        )


if __name__ == "__main__":
    main()
