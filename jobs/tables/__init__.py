"""Tables: a job's parts become rows of a Delta or Iceberg table, in one transaction, exactly once.

The parts are added as the files that they are, never rewritten. The libraries of both formats run in a process of their
own (`jobs.tables.apart`): a table lies where tenants may write, and what reads it here must not be ended by it.
"""

from jobs.tables.apart import check_apart, commit_apart

__all__ = ["check_apart", "commit_apart"]
