"""`verify`: whether a job's results are what the job made."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from jobs.cli.find_job import find_job
from jobs.cli.progress import counted
from jobs.cli.run_job import json_option, quiet_settings
from jobs.results.replay import Replayed, drawn, replayed
from jobs.results.verify import Checked, Finding
from jobs.results.verify import verify as verify_results
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.storage.job_folder import JobFolder
from jobs.supervisor import child_processes
from schemas.errors import NotFinished
from schemas.extras import check_installed
from schemas.job import AcceptedJob

_REPLAY = "workers.execution.replay"
#: Lines of the process's own output that are shown if it ends early.
_SHOWN = 5


@click.command()
@click.argument("job")
@click.option("--no-input", is_flag=True, help="Don't read the input, to compare kept columns with it.")
@click.option(
    "--replay", "count", type=click.IntRange(min=1), metavar="N", help="Compute N shards again, here, and compare."
)
@click.option("--seed", default=0, show_default=True, help="Draws the shards for --replay.")
@json_option
def verify(job: str, no_input: bool, count: int | None, seed: int, as_json: bool) -> None:
    """Verify a job's results: every part against manifest and plan, and both against the catalog.

    Each part is read whole: its rows, its errors, the checksum of its rows, the places in the input that they are of,
    and kept columns against the input. A line for each fault; exits with 1 if there is one.

    \b
    nightshift verify s3://annotated/reviews/
    nightshift verify 20261120-031500-k3v9x2 --replay 3
    """
    settings = quiet_settings()
    storage = Storage()
    catalog = Catalog(settings.catalog_uri, storage)
    found = find_job(job, catalog)
    faults = 0
    checked = Checked()
    for finding in verify_results(found, catalog, settings, checked, with_input=not no_input):
        faults += not finding.is_note
        _say(finding, as_json)
    if count is not None:
        folder = catalog.folder_of(found)
        for done in _replayed(found, folder, checked.checksums, settings, count, seed):
            if done.problem is not None:
                faults += 1
                _say(Finding(done.part.name, done.problem), as_json)
            elif not as_json:
                click.echo(f"{done.part.name}: computed again, the same")
    if as_json:
        click.echo(json.dumps({"job": found.id, "parts": checked.parts, "rows": checked.rows, "faults": faults}))
    else:
        verdict = "no fault" if not faults else counted(faults, "fault")
        click.echo(f"{counted(checked.parts, 'part')} with {counted(checked.rows, 'row')} verified: {verdict}")
    sys.exit(1 if faults else 0)


def _say(finding: Finding, as_json: bool) -> None:
    if as_json:
        kind = "note" if finding.is_note else "fault"
        click.echo(json.dumps({"kind": kind, "place": finding.place, "message": finding.message}))
    else:
        click.echo(f"note: {finding}" if finding.is_note else str(finding), err=finding.is_note)


def _replayed(
    job: AcceptedJob, folder: JobFolder, checksums: dict[int, str], settings: Settings, count: int, seed: int
) -> Iterator[Replayed]:
    """Compute shards again in a process of its own, which has torch, and yield what became of each."""
    check_installed(job.spec.task_schema.group)
    manifest = folder.read_manifest()
    if manifest is None:
        raise NotFinished(f"job {job.id} has not ended: there is nothing to compare with")
    parts = drawn(manifest, folder, count, seed)
    with tempfile.TemporaryDirectory(prefix="nightshift-replay-") as made:
        results, log = Path(made, "parts"), Path(made, "log")
        results.mkdir()
        command = ["-m", _REPLAY, job.id, str(results), *(str(part.shard) for part in parts)]
        process = child_processes.start(command, settings.environment(os.environ), results, log)

        def wait(*files: Path) -> bool:
            while not any(file.exists() for file in files):
                if process.poll() is not None:
                    return any(file.exists() for file in files)
                time.sleep(0.1)
            return True

        try:
            yield from replayed(parts, folder, checksums, results, wait, Storage())
            _check(process, log)
        finally:
            child_processes.stop([process], 5)


def _check(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Say what the process wrote if it failed."""
    status = process.wait()
    if status:
        lines = log.read_text(errors="replace").splitlines()[-_SHOWN:]
        click.echo("\n".join([f"the process that computed shards again ended with {status}:", *lines]), err=True)
