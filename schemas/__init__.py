"""The data model that producers, workers and readers share: job specs, plans, reports, manifests, errors.

It imports only pydantic and pyarrow. The packages `jobs` and `workers` build on it.
"""

__version__ = "0.1.0"
