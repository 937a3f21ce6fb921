"""What is said between producers, workers and readers: job specs, plans, reports, manifests, errors.

Imports pydantic and pyarrow only; the packages `jobs` and `workers` build on it.
"""

__version__ = "0.1.0"
