"""Which models does a process hold? Each is loaded once; the least recently used go to make room for the next one."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.logs import event
from jobs.settings import Settings
from jobs.storage import Storage
from schemas.job import AcceptedJob, ResolvedModel, model_key
from workers.handler import Handler, Loaded
from workers.models.budget import Budget
from workers.models.device import (
    OUT_OF_MEMORY,
    available_memory,
    default_budget,
    free_memory,
    pick_device,
    pick_dtype,
)
from workers.models.download import local_folder, stored_dtype
from workers.models.trust import loaded_size

_log = logging.getLogger(__name__)
#: How many times the bytes of its weights a model needs on a device: batches need room too.
_BESIDES = 1.1

Key = tuple[str, str, torch.dtype, torch.device, type[Handler[Any]]]


@dataclass
class Held:
    """A loaded model, its size in bytes, the batch budget that works for it here, and its load time in seconds."""

    loaded: Loaded
    size: int
    budget: Budget
    load_s: float


class ModelCache:
    """Loads models on first use. For one thread at a time."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._settings = settings
        self._storage = storage
        self._held: OrderedDict[Key, Held] = OrderedDict()
        self.device = pick_device()

    def get(
        self,
        job: AcceptedJob,
        handler: type[Handler[Any]],
        loading: Callable[[], AbstractContextManager[None]] = nullcontext,
        fetching: Callable[[], AbstractContextManager[Callable[[], None]]] = lambda: nullcontext(lambda: None),
    ) -> Held:
        """Return the job's model, fetched within `fetching` and loaded within `loading` if it isn't yet.

        What `fetching` yields is called whenever more of the model has come. Raise Permanent if it can't be loaded.
        """
        folder = None
        dtype = self._dtype(job)
        if dtype is None:
            folder = self._folder(job, fetching)
            dtype = pick_dtype(job.spec.dtype, stored_dtype(folder), self.device)
        key = (job.model.source, job.model.revision, dtype, self.device, handler)
        if key not in self._held:
            folder = folder or self._folder(job, fetching)
            with loading():
                self._make_room(folder, dtype)
                self._held[key] = self._load(handler, folder, dtype, job.model)
            self._let_go(lambda: len(self._held) > 1 and self._size > self._limit)
        self._held.move_to_end(key)
        return self._held[key]

    def _folder(self, job: AcceptedJob, fetching: Callable[[], AbstractContextManager[Callable[[], None]]]) -> Path:
        storage = self._storage
        if "*" in self._settings.allowed_models:  # else the settings name it, and what it may read
            storage = storage.within(self._settings.narrowed(job.allowed_inputs).allowed_inputs)
        with fetching() as moved:
            return local_folder(job.model, storage, self._settings.home, moved)

    @property
    def warm(self) -> list[str]:
        """The keys of the models held, in the form in which jobs name their models."""
        return [model_key(handler.task.id, source, revision) for source, revision, _, _, handler in self._held]

    def _dtype(self, job: AcceptedJob) -> torch.dtype | None:
        """Return the dtype for the job's model, or None if its files are needed to tell."""
        if job.spec.dtype != "auto" or self.device.type == "cpu":
            return pick_dtype(job.spec.dtype, None, self.device)
        return None

    def _load(self, handler: type[Handler[Any]], folder: Path, dtype: torch.dtype, model: ResolvedModel) -> Held:
        start = time.monotonic()
        loaded = self._loaded(handler, folder, dtype)
        size = sum(p.nbytes for p in loaded.model.parameters()) + sum(b.nbytes for b in loaded.model.buffers())
        seconds = time.monotonic() - start
        event(
            _log,
            "model_loaded",
            model=model.source,
            revision=model.revision,
            dtype=str(dtype).split(".")[-1],
            device=str(self.device),
            bytes=size,
            seconds=seconds,
        )
        return Held(loaded, size, Budget(self._settings.batch_tokens or default_budget(self.device)), seconds)

    def _make_room(self, folder: Path, dtype: torch.dtype) -> None:
        """Let models go until the one in the folder fits beside the others, or no other is left."""
        if not self._held:
            return
        needed = loaded_size(folder, dtype)

        def crowded() -> bool:
            available = available_memory(self.device)
            full = available is not None and needed * _BESIDES > available
            return full or self._size + needed > self._limit

        self._let_go(crowded)

    def _loaded(self, handler: type[Handler[Any]], folder: Path, dtype: torch.dtype) -> Loaded:
        """Load the model. If memory runs out, let all others go and try once more."""
        try:
            return handler.load(folder, self.device, dtype)
        except OUT_OF_MEMORY as error:
            if not self._held:
                raise
            event(_log, "no_room_for_model", logging.WARNING, error=str(error))
        # Outside of `except`: the error keeps alive what was loaded before it.
        self._let_go(lambda: True)
        return handler.load(folder, self.device, dtype)

    @property
    def _limit(self) -> float:
        return self._settings.model_memory_gb * (1 << 30)

    @property
    def _size(self) -> int:
        return sum(held.size for held in self._held.values())

    def _let_go(self, more: Callable[[], bool]) -> None:
        """Let go of the least recently used model, again and again while there is `more` to let go."""
        while self._held and more():
            key = next(iter(self._held))
            del self._held[key]
            free_memory()
            event(_log, "model_let_go", model=key[0])
