"""`nightshift schedule` and `nightshift jobs`, inside the test's own process."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from jobs.cli.main import COMMANDS, cli
from schemas.errors import NotFound, SpecError
from tests.integration.schedules.stage import Stage


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def done(*arguments: str) -> str:
    found = run(*arguments)
    assert found.exit_code == 0, (found.output, found.exception)
    return found.stdout


@pytest.fixture
def file(stage: Stage) -> Path:
    made = stage.folder / "nightly.yaml"
    made.write_text(yaml.safe_dump(stage.schedule().model_dump(mode="json", exclude_defaults=True)))
    return made


def test_a_schedule_by_its_commands(stage: Stage, file: Path) -> None:
    added = done("schedule", "add", str(file), "--set", "retry_failed=2", "--set", "spec.params.top_k=2")
    assert added.startswith("nightly: version 1, active\n")
    assert f"→ {stage.folder}/out/nightly/" in added
    shown = yaml.safe_load(done("schedule", "show", "nightly"))
    assert (shown["retry_failed"], shown["spec"]["params"]) == (2, {"top_k": 2})
    assert "'30 2 * * *' Europe/Berlin  next: " in done("schedule", "list")
    coming = [json.loads(line) for line in done("schedule", "next", "nightly", "--count", "2", "--json").splitlines()]
    assert [one["output"] for one in coming] == [f"{stage.folder}/out/nightly/{one['due'][:10]}/" for one in coming]
    assert isinstance(run("schedule", "add", str(file)).exception, Exception), "it has other content"
    done("schedule", "add", str(file), "--replace")
    done("schedule", "pause", "nightly")
    assert "resume" in run("schedule", "next", "nightly").stderr
    assert done("schedule", "resume", "nightly").startswith("resumed nightly; next: ")
    stage.input("2026-11-18")
    id = done("schedule", "run-now", "nightly", "--due", "2026-11-18T02:30").strip()
    assert "by hand" in done("schedule", "history", "nightly")
    job = stage.catalog.job(id)
    assert job is not None
    stage.work(job)
    stage.one.round()
    history = json.loads(done("schedule", "history", "nightly", "--json"))
    assert (history["status"], history["jobs"]) == ("succeeded", [id])
    done("schedule", "remove", "nightly")
    assert "nightly" not in done("schedule", "list")
    assert id in done("schedule", "history", "nightly"), "the history stays"
    for command in ("show", "pause", "next", "run-now"):
        assert isinstance(run("schedule", command, "nightly").exception, NotFound)


def test_a_schedule_by_options_and_what_is_wrong_with_it(stage: Stage) -> None:
    job = stage.folder / "job.yaml"
    job.write_text(yaml.safe_dump(stage.schedule().spec))
    named = ["schedule", "add", "--name", "options", "--spec", str(job), "--time-zone", "Europe/Berlin"]
    assert done(*named, "--cron", "30 2 * * *").startswith("options: version 1")
    table: list[tuple[list[str], str]] = [
        ([*named, "--cron", "30 2 * *"], "cron"),
        ([*named, "--cron", "30 2 * * *", "--time-zone", "Berlin"], "time_zone"),
        ([*named, "--cron", "30 2 * * *", "--set", "spec.output.uri=/tmp/{date:%Q}/"], "spec.output.uri"),
        (["schedule", "run-now", "options", "--due", "last night"], "due"),
    ]
    for arguments, field in table:
        error: Any = run(*arguments).exception
        assert isinstance(error, SpecError), arguments
        assert [problem.field for problem in error.problems] == [field]


def test_jobs_are_listed_ended_ones_too(stage: Stage) -> None:
    stage.add()
    stage.input("2026-11-20")
    from tests.integration.schedules.stage import DAY, NIGHT

    stage.at(NIGHT)
    [id] = stage.catalog.ids()
    ended = stage.catalog.job(id)
    assert ended is not None
    stage.work(ended)
    stage.input("2026-11-21")
    stage.at(NIGHT + DAY)
    lines = done("jobs").splitlines()
    assert [line.split("  ")[1] for line in lines] == ["planning", "succeeded"], "newest first"
    assert done("jobs", "--limit", "1").splitlines() == lines[:1]
    assert done("jobs", "--status", "succeeded").splitlines() == lines[1:]
    assert done("jobs", "--label", "schedule:nightly", "--task", "text-classification").splitlines() == lines
    assert json.loads(done("jobs", "--status", "succeeded", "--json"))["end"]["records"] == 4
    none = run("jobs", "--status", "failed")
    assert (none.exit_code, none.stdout, none.stderr) == (0, "", "there is no such job\n")
    assert {"jobs", "schedule"} <= COMMANDS.keys()
