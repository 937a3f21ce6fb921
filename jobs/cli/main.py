"""`nightshift`: the group of commands, and how errors become exit codes.

0 succeeded · 1 failed · 2 a bad spec or command line · 3 succeeded, with error rows · 130 interrupted
"""

import importlib
import signal
import sys
from difflib import get_close_matches
from keyword import iskeyword

import click

from schemas import __version__
from schemas.errors import NightshiftError, SpecError

#: Each command: the module beside this file that has a function of its name, imported when the command is used, and
#: what it does, so that `--help` imports none.
COMMANDS = {
    "run": ("run", "Run a job and wait for it, with progress."),
    "plan": ("run", "Validate a job; print shards, records and estimated time."),
    "resume": ("run", "Go on with a job that stopped."),
    "retry": ("retry", "Run a job's error rows, and what it lost, again."),
    "recover": ("recover", "Rebuild Redis from the catalog."),
    "results": ("results", "Print a job's rows."),
    "verify": ("verify", "Whether a job's results are what the job made."),
    "compare": ("compare", "How the results of two jobs differ."),
    "compact": ("compact", "Write a job's rows into few large files, elsewhere."),
    "gc": ("gc", "Remove results that have expired; a dry run unless told otherwise."),
    "status": ("jobs", "Where a job stands; without one, all that are under way."),
    "jobs": ("list_jobs", "List jobs, ended ones too."),
    "submit": ("run", "Hand a job to a deployment's workers and return."),
    "watch": ("jobs", "Follow a job until it ends."),
    "cancel": ("jobs", "Stop a job."),
    "pause": ("pause", "Hold a job back; shards in hand are finished."),
    "continue": ("pause", "Let a paused job go on."),
    "schedule": ("schedule", "Job specs that run by the clock: add, list, pause, history …"),
    "worker": ("worker", "Run shards for a deployment."),
    "workers": ("workers", "The workers of a deployment, and which of them take no shards, and why."),
    "api": ("api", "Serve the HTTP API."),
    "token": ("token", "Make, list and revoke the API's tokens."),
    "tasks": ("tasks", "The tasks, with parameters."),
    "schema": ("tasks", "The JSON Schema of a job spec."),
    "demo": ("demo", "Classify real text with a real model, here, now."),
}


class Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name + "_" * iskeyword(cmd_name)
        command = getattr(importlib.import_module(f"jobs.cli.{COMMANDS[cmd_name][0]}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(COMMANDS)}"
            ctx.fail(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nightshift")
def cli() -> None:
    """Batch inference for data in S3 and models on the Hugging Face hub.

    \b
    Try it:      nightshift demo
    Your data:   nightshift run --task text-classification --model MODEL \\
                   --input s3://bucket/in/ --output s3://bucket/out/
    Your own Redis and workers: set NIGHTSHIFT_REDIS_URL, start `nightshift worker`
    where the GPUs are, and use `submit`, `status`, `watch`.
    """


def _interrupt(*_: object) -> None:
    """SIGTERM ends a command as Ctrl-C does: cleanly. `worker` has a handler of its own."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line. A SpecError exits with 2, any other error of ours with 1, Ctrl-C or SIGTERM with 130."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as exit:
        sys.exit(exit.exit_code)
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        click.echo(f"error: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except SpecError as error:
        for problem in error.problems:
            click.echo(f"error: {problem.field + ': ' if problem.field else ''}{problem.message}", err=True)
        sys.exit(2)
    except NightshiftError as error:
        click.echo(f"error: {error.message}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
