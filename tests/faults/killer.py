"""The random killer: at random moments it ends a process that a seed chooses, for as long as a job lasts."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import psutil

from tests.faults.redis_server import RedisServer
from tests.faults.stage import Stage, Worker

#: What is killed, and how often of a hundred.
TARGETS = {"child": 55, "celery": 15, "worker": 15, "redis": 15}


class Killer:
    """Kills until told that it is over: a Celery child, a Celery process, a whole worker, or Redis.

    Workers and Redis are started again. The moments are random, and what is killed: which shard it hits is chance.
    """

    def __init__(self, stage: Stage, redis_server: RedisServer, seed: int) -> None:
        self._stage = stage
        self._redis = redis_server
        self._random = random.Random(seed)
        self._worker: Worker | None = None
        self.killed: Counter[str] = Counter()

    def run(self, done: Callable[[], int], over: Callable[[], bool], kills: int) -> None:
        """Keep a worker of two processes until it is `over`, and kill so many times.

        Each time a random moment after more was `done` than before, so that the job gets somewhere; once in a while
        sooner, while processes still start.
        """
        pause = threading.Event()
        before = done()
        with ExitStack() as workers:
            self._worker = workers.enter_context(self._stage.worker("--groups", "text,control", "--processes", "2"))
            while not over():
                pause.wait(self._random.uniform(0, 4))
                if self.killed.total() >= kills or over() or (done() == before and self._random.random() > 0.05):
                    continue
                before = done()
                target = self._random.choices(list(TARGETS), list(TARGETS.values()))[0]
                if target == "redis":
                    self._redis.kill()
                    pause.wait(self._random.uniform(0, 3))
                    self._redis.start()
                elif target == "worker":
                    self._worker.kill()
                    self._worker = workers.enter_context(
                        self._stage.worker("--groups", "text,control", "--processes", "2")
                    )
                elif (victim := self._victim(target)) is not None:
                    victim.kill()
                else:
                    continue
                self.killed[target] += 1

    def _victim(self, target: str) -> psutil.Process | None:
        """A child of a Celery process, or a Celery process: those are the supervisor's own children."""
        assert self._worker is not None
        family = self._worker.family()
        if not family:
            return None
        top = family[0].pid
        found: list[psutil.Process] = []
        for member in family[1:]:
            try:
                if (member.ppid() == top) == (target == "celery"):
                    found.append(member)
            except psutil.NoSuchProcess:
                continue
        return self._random.choice(found) if found else None
