"""What schemathesis loads beside the OpenAPI document: real jobs in the places of made-up ones.

A made-up id is a 404, and a made-up spec names a model that doesn't exist: nothing behind those would be tried at all.
"""

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import schemathesis

_JOBS = Path(os.environ["CONTRACT_JOBS"])
_chosen = random.Random(1)
#: Requests so far of each method and path: the first ones are sure to be for real work.
_asked: Counter[tuple[str, str]] = Counter()

#: What a made-up spec keeps beside what the real one says of them.
_FREE = ("labels", "priority", "seed", "max_errors", "batch_size", "shard", "dtype")
#: The schedule that requests for one name, and that made-up ones are made into; what those keep.
SCHEDULE = "contract"
_POLICIES = ("overlap", "catch_up", "catch_up_limit", "start_deadline_s", "retry_failed")
_OF_A_SCHEDULE = {"name", "cron", "time_zone", "spec", "jitter_s", "notify", *_POLICIES}
_ARROW = "application/vnd.apache.arrow.stream"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Four requests of five for a job name a real one; three specs of four that could be right ask for real work."""
    path = case.operation.path
    _asked[case.method, path] += 1
    first = _asked[case.method, path] <= 3
    known = json.loads(_JOBS.read_text())
    if path.startswith("/v1/jobs/{id}") and case.path_parameters and (_chosen.random() < 0.8 or first):
        ids = dict(known["ids"])
        if path.endswith("/events"):  # the stream of one that has not ended goes on until it does
            ids = {state: ids[state] for state in ("succeeded", "failed", "cancelled")}
        if _chosen.random() < 0.5 or first:
            action = path.rpartition(":")[2]
            ids = {action: ids.get(action, ids["succeeded"])}
        case.path_parameters["id"] = _chosen.choice(list(ids.values()))
    body = case.body
    if isinstance(body, dict) and case.method == "POST" and (_chosen.random() < 0.75 or first):
        fresh = known["spec"]["output"]["uri"].rstrip("/") + f"-{uuid4().hex[:8]}/"
        if path.endswith(":retry") and isinstance(body.get("output"), str):
            case.body = body | {"output": fresh}
        elif path in ("/v1/jobs", "/v1/jobs:plan") and set(body) <= set(known["spec"]):
            kept = {name: body[name] for name in _FREE if name in body}
            case.body = known["spec"] | kept | {"output": {"uri": fresh}}
    if path.startswith("/v1/schedules/{name}") and case.path_parameters and (_chosen.random() < 0.8 or first):
        case.path_parameters["name"] = SCHEDULE
    if path == "/v1/schedules" and isinstance(body, dict) and set(body) <= _OF_A_SCHEDULE:
        output = {"uri": known["spec"]["output"]["uri"].rstrip("/") + "-{run}/"}
        kept = {name: body[name] for name in _POLICIES if name in body}
        case.body = kept | {"name": SCHEDULE, "cron": "15 3 * * *", "spec": known["spec"] | {"output": output}}
    # Not where a header was left out on purpose: schemathesis takes a change of headers for its return.
    is_right = case.meta is not None and case.meta.generation.mode.is_positive
    if path.endswith("/results") and is_right and _chosen.random() < 0.25:
        case.headers = dict(case.headers or {}) | {"Accept": _ARROW}
