"""A world with a clock of its own: processes on machines, as greenlets, whose next step is drawn from a seed.

The product's own code runs in them. Whatever it waits for (Redis, storage, a lock, sleep) is a step: time goes on by a
drawn latency, and others may come first. A process can be killed, or cut off, between any two steps.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import greenlet

from schemas.errors import ServiceUnavailable


class Dead(BaseException):
    """Raised in a process that was killed, or whose world is over: it does nothing more."""


@dataclass(eq=False)
class Process:
    """A process on a machine. `alive` is False once it was killed. Its threads stand still until `stalled_until`."""

    name: str
    host: str
    alive: bool = True
    stalled_until: float = 0.0


@dataclass(order=True)
class _Task:
    due: float
    number: int
    green: greenlet.greenlet = field(compare=False)
    process: Process = field(compare=False)
    waiting: bool = field(compare=False, default=False)


class World:
    """One schedule. `seed` draws it whole."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1_000_000.0
        self.over = False
        self.steps = 0
        self._hub = greenlet.getcurrent()
        self._numbers = itertools.count()
        self._due: list[_Task] = []
        self._current: _Task | None = None
        self._all: list[greenlet.greenlet] = []
        self._idle: dict[int, _Task] = {}
        #: Machines that Redis can't be reached from, until a time; everyone if the name is "".
        self.cut_off: dict[str, float] = {}
        #: Ends a process; the chance that one ends at a step, and until when.
        self.kill: Callable[[Process], None] = lambda process: None
        self.deaths, self.deaths_until = 0.0, 0.0

    @property
    def process(self) -> Process | None:
        """The process whose step this is; None outside of the world."""
        return self._current.process if self._current is not None else None

    def start(self, process: Process, function: Callable[[], object], after: float = 0.0) -> None:
        """Run a function as a thread of a process."""

        def run() -> None:
            with suppress(Dead):
                function()

        green = greenlet.greenlet(run, parent=self._hub)
        self._all.append(green)
        heapq.heappush(self._due, _Task(self.now + after, next(self._numbers), green, process))

    def at(self, delay: float, action: Callable[[], object]) -> None:
        """Let something happen to the world, outside of its processes."""
        self.start(Process("fate", ""), action, delay)

    def sleep(self, seconds: float) -> None:
        """Let the others go on meanwhile."""
        task = self._current
        if task is None:
            return
        self._look(task.process)
        task.due = self.now + seconds
        task.number = next(self._numbers)
        heapq.heappush(self._due, task)
        self._hub.switch()
        self._look(task.process)
        if task.process.stalled_until > self.now:
            self.sleep(task.process.stalled_until - self.now)

    def doze(self, seconds: float) -> None:
        """Sleep until woken, or for so long."""
        task = self._current
        assert task is not None
        self._idle[id(task)] = task
        try:
            self.sleep(seconds)
        finally:
            self._idle.pop(id(task), None)

    def wake(self) -> None:
        """Wake all who doze: something was put into a queue."""
        for task in list(self._idle.values()):
            if task.due > self.now + 0.05:
                task.due = self.now + self.random.uniform(0, 0.05)
        heapq.heapify(self._due)

    def _look(self, process: Process) -> None:
        if self.over or not process.alive:
            raise Dead

    def step(self, kind: str) -> None:
        """Something of this kind is about to be done, by whoever's turn it is."""
        if self._current is None:
            return
        self.steps += 1
        process = self._current.process
        self.sleep(self.random.expovariate(500 if kind == "redis" else 100))
        if self.now < self.deaths_until and self.random.random() < self.deaths:
            self.kill(process)
            self._look(process)
        if kind == "redis" and self.is_cut_off(process.host):
            self.sleep(self.random.uniform(0.5, 3.0))
            if self.is_cut_off(process.host):
                raise ServiceUnavailable("Redis can't be reached (simulated)")

    def is_cut_off(self, host: str) -> bool:
        return host != "" and max(self.cut_off.get(host, 0.0), self.cut_off.get("", 0.0)) > self.now

    def run(self, until: Callable[[], bool], limit: float) -> bool:
        """Let the world go on until a condition holds. Return False if it doesn't by the time limit, in seconds."""
        end = self.now + limit
        while self._due:
            if until():
                return True
            task = heapq.heappop(self._due)
            if task.due > end:
                heapq.heappush(self._due, task)
                self.now = end
                return until()
            if not task.process.alive:
                continue
            self.now = max(self.now, task.due)
            self._current = task
            try:
                task.green.switch()
            finally:
                self._current = None
        return until()

    def close(self) -> None:
        """End whatever still runs."""
        self.over = True
        for green in self._all:
            if not green.dead and green:
                with suppress(Dead):
                    green.throw(Dead)


class Time:
    """What stands for the module `time` in the product's modules."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now

    def time(self) -> float:
        return self._world.now

    def sleep(self, seconds: float) -> None:
        self._world.sleep(seconds)


class Event:
    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float) -> bool:
        if not self._is_set:
            self._world.sleep(seconds)
        return self._is_set


class Lock:
    """Held across steps, as a real one is."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            self._world.sleep(0.01)
        self._held = True

    def __exit__(self, *error: object) -> None:
        self._held = False


class Thread:
    """A thread of the process that starts it. Nobody waits for its end: it sees by an event that it is over."""

    def __init__(self, world: World, target: Callable[[], object]) -> None:
        self._world = world
        self._target = target

    def start(self) -> None:
        process = self._world.process
        assert process is not None
        self._world.start(process, self._target)

    def join(self) -> None: ...


class Threading:
    """What stands for the module `threading`."""

    def __init__(self, world: World) -> None:
        self.Event = lambda: Event(world)
        self.Lock = lambda: Lock(world)
        self.Thread = lambda target, **_: Thread(world, target)


def serial_map(function: Callable[[Any], Any], items: Any, threads: int) -> Iterator[Any]:
    """What stands for `parallel_map`."""
    yield from map(function, items)
