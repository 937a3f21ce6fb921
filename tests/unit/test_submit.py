"""Ids of jobs."""

import time

from jobs.api.index import JOB_ID
from jobs.submit import new_job_id


def test_ids_of_one_second_sort_by_time() -> None:
    ids = []
    for _ in range(200):
        ids.append(new_job_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert all(JOB_ID.fullmatch(id) for id in ids)
