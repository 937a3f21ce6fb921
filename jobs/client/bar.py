"""How does progress look while one waits? As tqdm's bar: a widget in a notebook that has widgets, else a line."""

from importlib.util import find_spec
from types import TracebackType

from tqdm import tqdm
from tqdm.auto import tqdm as tqdm_auto

from jobs.client.show import Shown


class Bar:
    """A bar of a job's records. Use it as a context manager."""

    def __init__(self) -> None:
        kind = tqdm_auto if find_spec("ipywidgets") else tqdm  # tqdm.auto warns in a notebook without widgets
        self._bar = kind(unit=" records", dynamic_ncols=True)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def show(self, job: Shown) -> None:
        """Show how far the job is."""
        progress, end = job.data["progress"], job.data["end"]
        self._bar.total = end["records"] if end else (progress["records"] or None) if progress else None
        errors = f", {job.error_rows:,} errors" if job.error_rows else ""
        self._bar.set_description_str(f"{job.data['id']} {job.data['status']}{errors}", refresh=False)
        self._bar.update(job.records - self._bar.n)
        self._bar.refresh()
