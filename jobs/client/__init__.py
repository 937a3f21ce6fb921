"""The Python client of the HTTP API. Users import it from `nightshift`."""

from jobs.client.answers import ApiError, Conflict, RateLimited
from jobs.client.client import ARROW, Client, Job, JobFailed

__all__ = ["ARROW", "ApiError", "Client", "Conflict", "Job", "JobFailed", "RateLimited"]
