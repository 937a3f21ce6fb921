"""The Python client of the HTTP API: submit, wait, cancel, read results.

    from nightshift import Client

    client = Client("https://nightshift.internal", token="nst_…")
    job = client.submit({"task": "text-classification", "model": …, "input": …, "output": …})
    job.wait(progress=True)
    table = job.results()

Requests that may be sent again are, with backoff, when the server is away or busy; a submission bears an idempotency
key, and is one of them.
"""

import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx2
import pyarrow as pa
import pyarrow.dataset as ds

from jobs.client.answers import LONGEST_WAIT_S, PASSING, Pieces, backoff, error_of, retry_after
from jobs.client.bar import Bar
from jobs.client.schedules import Schedules
from jobs.client.show import Preview, job_html
from schemas import __version__
from schemas.errors import NightshiftError, ServiceUnavailable
from schemas.job import JobSpec

ARROW = "application/vnd.apache.arrow.stream"


class JobFailed(NightshiftError):
    """The job ended, and did not succeed. `job` has all that is known of it."""

    code = "job_failed"

    def __init__(self, job: "Job") -> None:
        super().__init__(f"job {job.id} {job.status}" + (f": {job.error}" if job.error else ""))
        self.job = job


@dataclass(frozen=True)
class Job:
    """A job as the server last told of it; `data` is all that it told. A notebook shows it as a table.

    `client` is the one that told of it, for the methods that ask again.
    """

    id: str
    status: str
    output: str
    data: Mapping[str, Any] = field(repr=False)
    client: "Client" = field(repr=False, compare=False)

    @classmethod
    def of(cls, data: Mapping[str, Any], client: "Client") -> "Job":
        return cls(data["id"], data["status"], data["output"], data, client)

    @property
    def ended(self) -> bool:
        return self.data["end"] is not None

    @property
    def records(self) -> int:
        """Records done so far."""
        if self.data["end"] is not None:
            return int(self.data["end"]["records"])
        return int(self.data["progress"]["records_done"]) if self.data["progress"] else 0

    @property
    def error_rows(self) -> int:
        return sum((self.data["end"] or self.data["progress"] or {"errors": {}})["errors"].values())

    @property
    def error(self) -> str | None:
        return self.data["error"]["message"] if self.data["error"] else None

    def refresh(self) -> "Job":
        """Return the job as it is now."""
        return self.client.job(self.id)

    def wait(self, **how: Any) -> "Job":
        """Return the job once it has ended; `how` as in `Client.wait`, and it raises as that does."""
        return self.client.wait(self.id, **how)

    def preview(self, rows: int = 5) -> Preview:
        """Return the first rows; of a job that has not ended, of those that are there."""
        return self.client.preview(self.id, rows, partial=not self.ended)

    def results(self, **which: bool) -> pa.Table:
        """Return the rows as a table; `which` as in `Client.batches`."""
        return self.client.results(self.id, **which)

    def _repr_html_(self) -> str:
        return job_html(self)


class Client:
    """A server's client, for one thread at a time. Raises SpecError, NotFound, Unauthenticated, Forbidden, Conflict,
    RateLimited, ServiceUnavailable, else ApiError."""

    def __init__(
        self, url: str = "http://127.0.0.1:8000", token: str | None = None, *, tries: int = 6, timeout_s: float = 60
    ) -> None:
        headers = {"User-Agent": f"nightshift/{__version__}"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s)
        self._tries = tries

    @property
    def schedules(self) -> Schedules:
        """The schedules: add, look at, pause, resume, run, remove."""
        return Schedules(self._json)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- jobs ----------------------------------------------------------------------------------------------------

    def submit(self, spec: JobSpec | Mapping[str, Any], idempotency_key: str | None = None) -> Job:
        """Submit a job; one that has the output already, of the same spec, is that job. Raises SpecError."""
        key = idempotency_key or str(uuid.uuid4())
        return Job.of(self._json("POST", "/v1/jobs", json=_plain(spec), headers={"Idempotency-Key": key}), self)

    def plan(self, spec: JobSpec | Mapping[str, Any]) -> dict[str, Any]:
        """What the job would be: shards, records, bytes, seconds. Queues nothing."""
        found: dict[str, Any] = self._json("POST", "/v1/jobs:plan", json=_plain(spec))
        return found

    def job(self, id: str) -> Job:
        return Job.of(self._json("GET", _path(id)), self)

    def jobs(self, **filters: Any) -> Iterator[Job]:
        """Jobs, newest first, page by page: `status`, `task`, `label`, `since`, `until` as in the API."""
        params = {name: value for name, value in filters.items() if value is not None}
        while True:
            page = self._json("GET", "/v1/jobs", params=params)
            yield from (Job.of(told, self) for told in page["jobs"])
            if page["next"] is None:
                return
            params["cursor"] = page["next"]

    def cancel(self, id: str) -> Job:
        return self._act(id, "cancel")

    def pause(self, id: str) -> Job:
        return self._act(id, "pause")

    def continue_(self, id: str) -> Job:
        return self._act(id, "continue")

    def resume(self, id: str) -> Job:
        return self._act(id, "resume")

    def retry(self, id: str, output: str | None = None) -> Job:
        """A job of what this one could not do."""
        return self._act(id, "retry", json={} if output is None else {"output": output})

    def _act(self, id: str, action: str, **more: Any) -> Job:
        return Job.of(self._json("POST", f"{_path(id)}:{action}", **more), self)

    def wait(
        self,
        id: str,
        *,
        progress: bool | Callable[[Job], None] = False,
        timeout_s: float | None = None,
        check: bool = True,
        every_s: float = 1.0,
    ) -> Job:
        """Wait until the job has ended. `progress=True` shows a bar of it, in a notebook or terminal; a function is
        called with the job each time. Raises JobFailed where it did not succeed and `check` is asked for, TimeoutError.
        """
        if progress is True:
            with Bar() as bar:
                return self.wait(id, progress=bar.show, timeout_s=timeout_s, check=check, every_s=every_s)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        wait_s = min(0.1, every_s)
        while True:
            job = self.job(id)
            if callable(progress):
                progress(job)
            if job.ended:
                if check and job.status != "succeeded":
                    raise JobFailed(job)
                return job
            if deadline is not None and time.monotonic() + wait_s > deadline:
                raise TimeoutError(f"job {id} is still {job.status} after {timeout_s:g} s")
            time.sleep(wait_s)
            wait_s = min(every_s, wait_s * 1.5)

    # --- results -------------------------------------------------------------------------------------------------

    def batches(
        self,
        id: str,
        *,
        errors: bool = False,
        partial: bool = False,
        with_retries: bool = False,
        limit: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The job's rows in input order, batch by batch, in bounded memory; `limit` of them at most.

        Raises Conflict where it has not ended.
        """
        flags = {"errors": errors, "partial": partial, "with_retries": with_retries}
        params = {name: "true" for name, value in flags.items() if value}
        params |= {} if limit is None else {"limit": str(limit)}
        request = self._http.build_request("GET", f"{_path(id)}/results", params=params, headers={"Accept": ARROW})
        response = self._sent(request, stream=True)
        try:
            with pa.ipc.open_stream(Pieces(response.iter_bytes())) as reader:
                yield from reader
        except httpx2.TransportError as error:
            raise ServiceUnavailable(f"the results of job {id} broke off: {error}") from error
        finally:
            response.close()

    def preview(self, id: str, rows: int = 5, *, partial: bool = False) -> Preview:
        """The job's first rows, which a notebook shows as a table."""
        return Preview(self.results(id, limit=rows, partial=partial))

    def results(self, id: str, **which: Any) -> pa.Table:
        """The job's rows as a table; `which` as in `batches`."""
        found = list(self.batches(id, **which))
        if not found:
            return pa.table({})
        return pa.Table.from_batches(found).unify_dictionaries()

    def dataset(self, id: str, folder: Path | None = None, **which: bool) -> ds.Dataset:
        """The job's rows as a dataset in files of this machine, for results that don't fit in memory."""
        folder = folder or Path(tempfile.mkdtemp(prefix=f"nightshift-{id}-"))
        batches = self.batches(id, **which)
        first = next(batches, None)
        schema = pa.schema([]) if first is None else first.schema
        # Dictionaries may differ from batch to batch, which Feather files don't have: plain values do.
        plain = pa.schema([f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema])
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "results.arrow"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, plain) as writer:
            if first is not None:
                writer.write_batch(first.cast(plain))
                for batch in batches:
                    writer.write_batch(batch.cast(plain))
        return ds.dataset(file, format="arrow")

    def errors(self, id: str, **params: Any) -> dict[str, Any]:
        """Error rows by code, lost shards, and the first rows with an error."""
        found: dict[str, Any] = self._json("GET", f"{_path(id)}/errors", params=params)
        return found

    def manifest(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._json("GET", f"{_path(id)}/manifest")
        return found

    # --- the rest ------------------------------------------------------------------------------------------------

    def tasks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._json("GET", "/v1/tasks")["tasks"]
        return found

    def workers(self) -> dict[str, Any]:
        found: dict[str, Any] = self._json("GET", "/v1/workers")
        return found

    def _json(self, method: str, path: str, **more: Any) -> Any:
        request = self._http.build_request(method, path, **more)
        return self._sent(request).json()

    def _sent(self, request: httpx2.Request, stream: bool = False) -> httpx2.Response:
        """The answer, asked for again where that may help. An action on a job does no harm when it is repeated."""
        for tried in range(1, self._tries + 1):
            last = tried == self._tries
            try:
                response = self._http.send(request, stream=stream)
            except httpx2.TransportError as error:
                if last:
                    raise ServiceUnavailable(f"{self._http.base_url} can't be reached: {error}") from error
                time.sleep(backoff(tried))
                continue
            if response.is_success:
                return response
            response.read()
            response.close()
            if last or response.status_code not in PASSING:
                raise error_of(response)
            wait = retry_after(response)
            if wait is not None and wait > LONGEST_WAIT_S:
                raise error_of(response)
            time.sleep(backoff(tried) if wait is None else wait)
        raise AssertionError("unreachable")


def _path(id: str) -> str:
    return f"/v1/jobs/{quote(id, safe='')}"


def _plain(spec: JobSpec | Mapping[str, Any]) -> Any:
    return spec.model_dump(mode="json") if isinstance(spec, JobSpec) else json.loads(json.dumps(spec))
