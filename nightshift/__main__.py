"""The command line: `nightshift`, or `python -m nightshift`."""

import sys


def main() -> None:
    """Run the command line, then exit. The exit codes are listed in jobs/cli/main.py."""
    from jobs.logs import never_raise_warnings

    never_raise_warnings()  # before anything else is imported
    from jobs.cli.main import main as run

    run()


if __name__ == "__main__":
    # `-m` put the working folder first: packages of the user's named `jobs` or `schemas` would be run instead of ours.
    if not sys.flags.safe_path:
        del sys.path[0]
    main()
