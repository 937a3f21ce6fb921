"""Nightly runs: when a schedule is due, what is decided of each due time, and how its job is started and followed."""
