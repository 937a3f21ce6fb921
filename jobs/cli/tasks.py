"""`tasks` and `schema`: which tasks there are, for people and for programs."""

import json
from typing import Any

import click


@click.command()
@click.argument("task", required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON, with the JSON Schema of each task's parameters.")
def tasks(task: str | None, as_json: bool) -> None:
    """The tasks: what each reads, its parameters, and what it gives.

    \b
    nightshift tasks
    nightshift tasks text-classification
    """
    from schemas.tasks import all_tasks, find_task

    chosen = [find_task(task)] if task else list(all_tasks().values())
    if as_json:
        click.echo(json.dumps([_as_json(one) for one in chosen], indent=2))
        return
    for one in chosen:
        names = one.id + (f" ({', '.join(one.aliases)})" if one.aliases else "")
        click.echo(f"{names}\n  {one.summary}")
        for column in one.columns:
            click.echo(f"  column  {column.name}{'' if column.required else ' (optional)'}: {column.description}")
        for name, field in one.params.model_fields.items():
            default = "required" if field.is_required() else f"default {json.dumps(field.default)}"
            click.echo(f"  param   {name} ({default}): {field.description}")
        for out in one.prediction:
            note = (out.metadata or {}).get(b"description", b"").decode()
            click.echo(f"  gives   prediction.{out.name}: {out.type}. {note}")


def _as_json(task: Any) -> dict[str, Any]:
    return {
        "id": task.id,
        "aliases": list(task.aliases),
        "group": task.group,
        "summary": task.summary,
        "columns": [{"name": c.name, "required": c.required, "description": c.description} for c in task.columns],
        "params": task.params.model_json_schema(),
        "prediction": {field.name: str(field.type) for field in task.prediction},
        "prediction_version": task.version,
    }


@click.command()
def schema() -> None:
    """The JSON Schema of a job spec, for editors and generators.

    \b
    nightshift schema > job.schema.json
    """
    from schemas.job import spec_json_schema

    click.echo(json.dumps(spec_json_schema(), indent=2))
