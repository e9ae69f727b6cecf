"""A job that is there, over the REST API: it is waited for, cancelled, and has logs."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from api_asking import NOBODY, get_json, open_shared
from api_site import PREFIX, ApiSite, opened, refusal

from jobqueue_core.testing.factories import completed, log_line

shared = pytest.fixture(open_shared, scope="module")

# Waiting -------------------------------------------------------------------------------------------------------------------------------


def test_who_waits_is_answered_once_the_job_has_finished(shared: ApiSite) -> None:
    lease = shared.leased()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(get_json, shared, f"/jobs/{lease.job.id}?wait=20s")
        threading.Event().wait(0.2)
        assert not waiting.done()
        shared.settle(completed(lease, b"[7]"))
        began = time.monotonic()
        assert waiting.result()["result"] == [7]
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("wait", ["0", "0s", "0.1", "100ms"])
def test_who_waits_in_vain_is_answered_when_time_is_up(shared: ApiSite, wait: str) -> None:
    job, began = shared.queued(), time.monotonic()
    assert get_json(shared, f"/jobs/{job.id}?wait={wait}")["state"] == "queued"
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("wait", ["30.001", "30001ms", "31s", "1h", "999999999", "-1", "abc", "", "1e1", "10 s", "%00", "inf", "nan", "9" * 41])
def test_a_wait_that_is_too_long_or_none_is_refused(shared: ApiSite, wait: str) -> None:
    job = shared.completed()
    refusal(shared.client("read").simulate_get(f"{PREFIX}/jobs/{job.id}", query_string=f"wait={wait}"), 422, field="wait")


def test_waiting_for_what_has_finished_or_nobody_knows_takes_no_time(shared: ApiSite) -> None:
    began = time.monotonic()
    assert get_json(shared, f"/jobs/{shared.dead().id}?wait=30s")["state"] == "dead"
    assert get_json(shared, f"/jobs/{shared.archived()}?wait=30s")["archived"]
    get_json(shared, f"/jobs/{NOBODY}?wait=30s", 404)
    assert time.monotonic() - began < 2


def _wait_when_there_is_room(site: ApiSite, job_id: str) -> Any:
    """The job once it has finished, waited for as soon as that is not one wait too many."""
    deadline = time.monotonic() + 10
    while (answer := site.client("read").simulate_get(f"{PREFIX}/jobs/{job_id}?wait=30s")).status_code == 429:
        assert time.monotonic() < deadline
    assert answer.status_code == 200, answer.text
    return answer.json


def test_more_waits_than_the_process_has_threads_to_spare_are_429_until_one_ends(tmp_path: Path) -> None:
    with opened(ApiSite(tmp_path, threads=4)) as site, ThreadPoolExecutor(2) as pool:
        jobs = [site.queued() for _ in range(2)]
        waiting = [pool.submit(_wait_when_there_is_room, site, job.id) for job in jobs]
        deadline = time.monotonic() + 10
        while (answer := site.client("read").simulate_get(f"{PREFIX}/jobs/{jobs[0].id}?wait=10ms")).status_code == 200:
            assert time.monotonic() < deadline
        refusal(answer, 429, "too_many_waits")
        assert get_json(site, f"/jobs/{site.completed().id}?wait=30s")["state"] == "completed", "what has finished needs no thread"
        assert get_json(site, f"/jobs/{jobs[0].id}")["state"] == "queued"
        site.broker.cancel(jobs[0].id)
        assert waiting[0].result()["state"] == "cancelled"
        assert get_json(site, f"/jobs/{jobs[1].id}?wait=10ms")["state"] == "queued"
        site.closing.begin()
        began = time.monotonic()
        assert waiting[1].result()["state"] == "queued"
        assert time.monotonic() - began < 2, "whoever waits must not keep a process from stopping"


# Cancelling ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["queued", "scheduled", "retrying"])
def test_what_waits_is_cancelled_at_once(shared: ApiSite, make: str) -> None:
    answer = shared.client("write").simulate_delete(f"{PREFIX}/jobs/{getattr(shared, make)().id}")
    assert (answer.status_code, answer.json["state"]) == (200, "cancelled")


def test_what_runs_is_asked_to_stop(shared: ApiSite) -> None:
    answer = shared.client("write").simulate_delete(f"{PREFIX}/jobs/{shared.processing().id}")
    assert (answer.status_code, answer.json["state"], answer.json["cancel_requested"]) == (202, "processing", True)


@pytest.mark.parametrize("make", ["completed", "dead", "cancelled"])
def test_what_has_finished_cannot_be_cancelled(shared: ApiSite, make: str) -> None:
    refusal(shared.client("write").simulate_delete(f"{PREFIX}/jobs/{getattr(shared, make)().id}"), 409, "finished")


def test_what_only_history_knows_has_finished_and_what_nobody_knows_is_404(shared: ApiSite) -> None:
    refusal(shared.client("write").simulate_delete(f"{PREFIX}/jobs/{shared.archived()}"), 409, "finished")
    refusal(shared.client("write").simulate_delete(f"{PREFIX}/jobs/{NOBODY}"), 404, "not_found")


# Logs ----------------------------------------------------------------------------------------------------------------------------------


def test_logs_are_in_order_and_none_is_none(shared: ApiSite) -> None:
    job = shared.processing(lines=[log_line("one"), log_line("two\x00\u2028", level="warning")])
    assert [(line["level"], line["message"]) for line in get_json(shared, f"/jobs/{job.id}/logs")] == [("info", "one"), ("warning", "two\x00\u2028")]
    assert get_json(shared, f"/jobs/{shared.queued().id}/logs") == []
    get_json(shared, f"/jobs/{NOBODY}/logs", 404)
