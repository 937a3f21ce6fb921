"""Benchmarks: how fast the runner is, how much memory a worker takes, how fast S3 is read. `python -m benchmarks`."""
