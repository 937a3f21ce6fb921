"""`python -m benchmarks`: see `--help`. Ends with 1 where contestants that should agree gave different answers."""

import argparse
import os
import signal
import sys
from importlib import import_module

PARTS = {
    "startup": "one record through `nightshift run`, against a script around Transformers' pipeline",
    "speed": "the runner against a bare loop and against Transformers' pipeline",
    "memory": "a worker's memory on a 5 GB file of one row group (3 GB of disk)",
    "storage": "reads and listings of S3 against boto3 and pyarrow, on SeaweedFS (not run by default)",
    "objects": "a job over 100,000 small pictures in SeaweedFS, and its memory (not run by default)",
    "speech": "speech recognition against Transformers' pipeline at batch 16 (not run by default)",
    "generation": "text generation one by one, in batches and by Transformers (not run by default; needs a model)",
    "api": "the HTTP API under 200 clients at once that submit and poll",
    "series": "what ten million entries of a series cost, in CPU and memory (not run by default)",
    "shards": "what a shard costs beside its work: 1,000 that do nothing, by real workers (not run by default)",
}
DEFAULT = ["startup", "speed", "memory", "api"]
FULL = ["memory", "shards"]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Nightshift on this machine, best while it does nothing else.",
        epilog="\n".join(f"{name:<12}{what}" for name, what in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; {', '.join(DEFAULT)}")
    parser.add_argument(
        "--full", action="store_true", help="memory: all shards of the file, an hour or so; shards: 100,000 too"
    )
    arguments = parser.parse_args()
    parts = arguments.parts or DEFAULT
    for name in parts:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}; choose of {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files go away
    print("load before: " + " ".join(f"{load:.1f}" for load in os.getloadavg()) + f", {os.cpu_count()} cores")
    agreed = True
    for name in parts:
        module = import_module(f"benchmarks.{name}")
        agreed &= module.main(arguments.full) if name in FULL else module.main()
    return 0 if agreed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
