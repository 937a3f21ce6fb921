"""The Python client of the HTTP API: submit, wait, cancel, read results.

    from nightshift import Client

    client = Client("https://nightshift.internal", token="nst_…")
    job = client.submit({"task": "text-classification", "model": …, "input": …, "output": …})
    job.wait(progress=True)
    table = job.results()

Requests that may be sent again are, with backoff, when the server is away or busy; a submission bears an idempotency
key, and is one of them.
"""

import email.utils
import json
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

import httpx2
import pyarrow as pa
import pyarrow.dataset as ds

from jobs.notebook.bar import Bar
from jobs.notebook.show import Preview, job_html
from schemas import __version__
from schemas.errors import Forbidden, NightshiftError, NotFound, Problem, ServiceUnavailable, SpecError, Unauthenticated
from schemas.job import JobSpec

ARROW = "application/vnd.apache.arrow.stream"
#: Answers that may be others when asked again.
_PASSING = (429, 502, 503, 504)


class ApiError(NightshiftError):
    """The server refused; `status` is HTTP's, `code` and `message` are the problem document's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Conflict(ApiError):
    """The job is not in a state that allows what was asked for: it has not ended, or it has."""


class RateLimited(ApiError):
    """More requests, or more running jobs, than the token allows."""


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
            with pa.ipc.open_stream(_Pieces(response.iter_bytes())) as reader:
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
                time.sleep(_backoff(tried))
                continue
            if response.is_success:
                return response
            response.read()
            response.close()
            if last or response.status_code not in _PASSING:
                raise _error(response)
            wait = _retry_after(response)
            if wait is not None and wait > _LONGEST_WAIT_S:
                raise _error(response)
            time.sleep(_backoff(tried) if wait is None else wait)
        raise AssertionError("unreachable")


_LONGEST_WAIT_S = 20.0


def _backoff(tried: int) -> float:
    return float(min(10.0, 0.2 * 2.0**tried) * random.uniform(0.5, 1))


def _retry_after(response: httpx2.Response) -> float | None:
    text = response.headers.get("Retry-After")
    if text is None:
        return None
    if text.isdecimal():
        return float(text)
    when = email.utils.parsedate_to_datetime(text)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _error(response: httpx2.Response) -> NightshiftError:
    """The problem document as an error of its kind."""
    try:
        problem = response.json()
        code, message = str(problem["code"]), str(problem["detail"])
        fields = [Problem(one["field"], one["message"]) for one in problem["errors"]]
    except (ValueError, KeyError, TypeError):  # a proxy's answer, not the server's
        code, message, fields = "http_error", f"HTTP {response.status_code}: {response.text[:200]}", []
    status = response.status_code
    if status == 422:
        return SpecError(fields or [Problem("", message)])
    plain = {401: Unauthenticated, 403: Forbidden, 404: NotFound, 503: ServiceUnavailable}
    if status in plain:
        return plain[status](message)
    return {409: Conflict, 429: RateLimited}.get(status, ApiError)(status, code, message)


def _path(id: str) -> str:
    return f"/v1/jobs/{quote(id, safe='')}"


def _plain(spec: JobSpec | Mapping[str, Any]) -> Any:
    return spec.model_dump(mode="json") if isinstance(spec, JobSpec) else json.loads(json.dumps(spec))


class _Pieces:
    """The pieces of an answer as a file that can only be read on."""

    closed = False

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = bytearray()

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest += piece
        end = len(self._rest) if size < 0 else size
        taken = bytes(self._rest[:end])
        del self._rest[:end]
        return taken

    def readable(self) -> Literal[True]:
        return True

    def writable(self) -> Literal[False]:
        return False

    def seekable(self) -> Literal[False]:
        return False

    def flush(self) -> None: ...

    def close(self) -> None: ...
