"""The REST API as its users use it: each operation, and what they are told when something is wrong."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from api_site import PREFIX, ApiSite, Client, Result, next_of, opened, refusal, walk

from jobqueue_core.attempt import ExecutionState
from jobqueue_core.job import JobState
from jobqueue_core.testing.factories import completed, failed, log_line

NOBODY: Final = str(uuid.UUID(int=0))
HOUR: Final = timedelta(hours=1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    """A site for tests that keep to queues and ids of their own."""
    with opened(ApiSite(tmp_path_factory.mktemp("api"))) as site:
        yield site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ApiSite]:
    """A site of the test's own."""
    with opened(ApiSite(tmp_path)) as site:
        yield site


def _create(client: Client, body: object, key: str | None = None, path: str = "/jobs") -> Result:
    return client.simulate_post(f"{PREFIX}{path}", json=body, headers={} if key is None else {"Idempotency-Key": key})


def _get(site: ApiSite, path: str, status: int = 200) -> Any:
    answer = site.client("read").simulate_get(f"{PREFIX}{path}")
    assert answer.status_code == status, answer.text
    return answer.json


# Creating ------------------------------------------------------------------------------------------------------------------------------


def test_a_new_job_is_201_with_where_it_is(shared: ApiSite) -> None:
    answer = _create(shared.client("write"), {"type": "email.send", "payload": {"to": "a@b.c"}, "queue": "mail", "priority": "high"})
    assert answer.status_code == 201
    assert (answer.json["type"], answer.json["queue"], answer.json["priority"], answer.json["state"]) == ("email.send", "mail", "high", "queued")
    assert shared.client("read").simulate_get(answer.headers["location"]).json == answer.json
    assert shared.job(answer.json["id"]).payload == {"to": "a@b.c"}


@pytest.mark.parametrize("written", ["90s", "1m30s", 90, 90.0, "90000ms"])
def test_durations_may_be_text_or_seconds(shared: ApiSite, written: object) -> None:
    answer = _create(shared.client("write"), {"type": "a", "delay": written, "timeout": written})
    assert (answer.status_code, answer.json["timeout"], answer.json["state"]) == (201, "1m30s", "scheduled")


def test_a_job_whose_id_is_known_is_answered_and_not_made_again(shared: ApiSite) -> None:
    body = {"type": "a", "queue": "by-id", "id": str(uuid.uuid4())}
    first, again = _create(shared.client("write"), body), _create(shared.client("write"), {**body, "payload": 7, "id": body["id"].upper()})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json == first.json
    assert again.headers["location"] == first.headers["location"]
    assert len(_get(shared, "/jobs?queue=by-id")) == 1
    refusal(_create(shared.client("write"), {**body, "type": "another"}), 409)


def test_a_unique_key_is_held_until_the_job_has_ended(site: ApiSite) -> None:
    body = {"type": "a", "queue": "keyed", "unique_key": "welcome:42"}
    first, again = _create(site.client("write"), body), _create(site.client("write"), body)
    assert (first.status_code, again.status_code, again.json["id"]) == (201, 200, first.json["id"])
    site.settle(completed(site.lease(site.job(first.json["id"]))))
    assert _create(site.client("write"), body).status_code == 201


def test_a_request_that_is_repeated_under_its_key_makes_no_second_job(shared: ApiSite) -> None:
    client = shared.client("write")
    first = _create(client, {"type": "a", "queue": "once", "payload": {"x": 1, "y": [1, 2]}}, key="k-1")
    again = client.simulate_post(
        f"{PREFIX}/jobs",
        body='{ "payload": {"y": [1,2], "x": 1},\n "queue": "once", "type": "a" }',
        headers={"Idempotency-Key": "k-1", "Content-Type": "application/json; charset=utf-8"},
    )
    assert (first.status_code, again.status_code, again.json["id"]) == (201, 200, first.json["id"])
    assert len(_get(shared, "/jobs?queue=once")) == 1


def test_another_body_under_the_same_key_is_a_conflict(shared: ApiSite) -> None:
    client = shared.client("write")
    assert _create(client, {"type": "a", "queue": "conflict", "payload": 1}, key="k-2").status_code == 201
    refusal(_create(client, {"type": "a", "queue": "conflict", "payload": 2}, key="k-2"), 409, "idempotency_conflict")
    refusal(_create(client, {"type": "a", "queue": "elsewhere", "payload": 1}, key="k-2"), 409, "idempotency_conflict")
    assert len(_get(shared, "/jobs?queue=conflict")) == 1


def test_each_holder_has_keys_of_their_own(shared: ApiSite) -> None:
    body = {"type": "a", "queue": "holders"}
    answers = [_create(shared.client(role), body, key="k-3") for role in ("write", "admin", "write")]
    assert [answer.status_code for answer in answers] == [201, 201, 200]


def test_a_key_is_kept_a_day_and_no_longer(tmp_path: Path) -> None:
    with opened(ApiSite(tmp_path, result_ttl=timedelta(minutes=1))) as site:
        body = {"type": "a", "queue": "day"}
        first = _create(site.client("write"), body, key="k-4")
        site.settle(completed(site.lease(site.job(first.json["id"]))))
        site.clock.advance(23 * HOUR)
        site.broker.prune(1000)
        again = _create(site.client("write"), body, key="k-4")
        assert (again.status_code, again.json["id"]) == (200, first.json["id"])
        refusal(_create(site.client("write"), {**body, "payload": 1}, key="k-4"), 409)
        site.clock.advance(HOUR + timedelta(seconds=1))
        site.broker.prune(1000)
        assert _create(site.client("write"), body, key="k-4").status_code == 201


def test_many_that_send_the_same_at_once_make_one_job(shared: ApiSite) -> None:
    body = {"type": "a", "queue": "at-once"}
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _number: _create(shared.client("write"), body, key="k-5"), range(30)))
    assert sorted(answer.status_code for answer in answers) == [200] * 29 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "a" * 181, "\xe4", "a\x00b", "a\tb"])
def test_what_can_be_no_key_is_refused_by_name(shared: ApiSite, key: str) -> None:
    for path, body in (("/jobs", {"type": "a"}), ("/jobs/batch", {"jobs": [{"type": "a"}]})):
        refusal(_create(shared.client("write"), body, key=key, path=path), 422, field="Idempotency-Key")


# Batches -------------------------------------------------------------------------------------------------------------------------------


def test_a_batch_is_answered_one_by_one_in_order(shared: ApiSite) -> None:
    known = shared.queued(type="a")
    jobs = [{"type": "a", "payload": number, "queue": "batch"} for number in range(3)]
    answer = _create(shared.client("write"), {"jobs": [*jobs, {"type": "a", "queue": known.queue, "id": known.id}]}, path="/jobs/batch")
    assert answer.status_code == 200
    assert [one["status"] for one in answer.json] == ["created"] * 3 + ["existing"]
    assert [one["job"]["payload"] for one in answer.json[:3]] == [0, 1, 2]
    assert answer.json[3]["id"] == answer.json[3]["job"]["id"] == known.id


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"type": "a", "queue": "!"}, "jobs[1].queue"),
        ({"type": "a", "queue": 3}, "jobs[1].queue"),
        ({"type": "a", "nope": 3}, "jobs[1].nope"),
        ({"payload": 3}, "jobs[1].type"),
        ({"type": "a", "delay": "1h", "scheduled_at": "2030-01-01T00:00:00Z"}, "jobs[1].delay"),
        ({"type": "a", "metadata": {"jobqueue.schedule": "x"}}, "jobs[1].metadata"),
        ({"type": "a", "max_retries": -1}, "jobs[1].max_retries"),
        ({"type": "a", "payload": "x" * (1 << 20)}, "jobs[1].payload"),
        ({"type": "a", "id": "7"}, "jobs[1].id"),
        (None, "jobs[1]"),
    ],
)
def test_a_batch_with_one_wrong_job_enqueues_nothing(shared: ApiSite, wrong: object, field: str) -> None:
    queue = f"whole-{uuid.uuid4()}"
    answer = _create(shared.client("write"), {"jobs": [{"type": "a", "queue": queue}, wrong, {"type": "a", "queue": queue}]}, path="/jobs/batch")
    refusal(answer, 422)
    assert any(one["field"].startswith(field) for one in answer.json["details"]), answer.text
    assert _get(shared, f"/jobs?queue={queue}") == []


def test_a_batch_has_1_to_1000_jobs(shared: ApiSite) -> None:
    def send(count: int) -> Result:
        return _create(shared.client("write"), {"jobs": [{"type": "a", "queue": "thousand"}] * count}, path="/jobs/batch")

    refusal(send(0), 422, field="jobs")
    refusal(send(1001), 422, field="jobs")
    whole = send(1000)
    assert (whole.status_code, len(whole.json)) == (200, 1000)
    assert _get(shared, "/queues/thousand/depth")["waiting"] == 1000


def test_a_batch_that_is_repeated_under_its_key_makes_no_second_jobs(shared: ApiSite) -> None:
    batch = {"jobs": [{"type": "a", "queue": "again", "payload": number} for number in range(5)]}
    first, again = (_create(shared.client("write"), batch, key="b-1", path="/jobs/batch") for _ in range(2))
    assert [one["status"] for one in again.json] == ["existing"] * 5
    assert [one["id"] for one in again.json] == [one["id"] for one in first.json]
    assert len(_get(shared, "/jobs?queue=again")) == 5


def test_another_batch_under_the_same_key_makes_nothing(shared: ApiSite) -> None:
    _create(shared.client("write"), {"jobs": [{"type": "a", "queue": "first-batch"}]}, key="b-2", path="/jobs/batch")
    for other in ([{"type": "b", "queue": "other-batch"}], [{"type": "a", "queue": "first-batch"}, {"type": "a", "queue": "other-batch"}]):
        answer = _create(shared.client("write"), {"jobs": other}, key="b-2", path="/jobs/batch")
        assert answer.status_code == 409 or {one["status"] for one in answer.json} == {"refused"}, answer.text
    assert _get(shared, "/jobs?queue=other-batch") == []


# Waiting -------------------------------------------------------------------------------------------------------------------------------


def test_who_waits_is_answered_once_the_job_has_finished(shared: ApiSite) -> None:
    lease = shared.leased()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_get, shared, f"/jobs/{lease.job.id}?wait=20s")
        threading.Event().wait(0.2)
        assert not waiting.done()
        shared.settle(completed(lease, b"[7]"))
        began = time.monotonic()
        assert waiting.result()["result"] == [7]
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("wait", ["0", "0s", "0.1", "100ms"])
def test_who_waits_in_vain_is_answered_when_time_is_up(shared: ApiSite, wait: str) -> None:
    job, began = shared.queued(), time.monotonic()
    assert _get(shared, f"/jobs/{job.id}?wait={wait}")["state"] == "queued"
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("wait", ["30.001", "30001ms", "31s", "1h", "999999999", "-1", "abc", "", "1e1", "10 s", "%00", "inf", "nan", "9" * 41])
def test_a_wait_that_is_too_long_or_none_is_refused(shared: ApiSite, wait: str) -> None:
    job = shared.completed()
    refusal(shared.client("read").simulate_get(f"{PREFIX}/jobs/{job.id}", query_string=f"wait={wait}"), 422, field="wait")


def test_waiting_for_what_has_finished_or_nobody_knows_takes_no_time(shared: ApiSite) -> None:
    began = time.monotonic()
    assert _get(shared, f"/jobs/{shared.dead().id}?wait=30s")["state"] == "dead"
    assert _get(shared, f"/jobs/{shared.archived()}?wait=30s")["archived"]
    _get(shared, f"/jobs/{NOBODY}?wait=30s", 404)
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
        assert _get(site, f"/jobs/{site.completed().id}?wait=30s")["state"] == "completed", "what has finished needs no thread"
        assert _get(site, f"/jobs/{jobs[0].id}")["state"] == "queued"
        site.broker.cancel(jobs[0].id)
        assert waiting[0].result()["state"] == "cancelled"
        assert _get(site, f"/jobs/{jobs[1].id}?wait=10ms")["state"] == "queued"
        site.closing.begin()
        began = time.monotonic()
        assert waiting[1].result()["state"] == "queued"
        assert time.monotonic() - began < 2, "whoever waits must not keep a process from stopping"


# Cancelling and logs -------------------------------------------------------------------------------------------------------------------


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


def test_logs_are_in_order_and_none_is_none(shared: ApiSite) -> None:
    job = shared.processing(lines=[log_line("one"), log_line("two\x00\u2028", level="warning")])
    assert [(line["level"], line["message"]) for line in _get(shared, f"/jobs/{job.id}/logs")] == [("info", "one"), ("warning", "two\x00\u2028")]
    assert _get(shared, f"/jobs/{shared.queued().id}/logs") == []
    _get(shared, f"/jobs/{NOBODY}/logs", 404)


# Queues --------------------------------------------------------------------------------------------------------------------------------


def test_a_queue_is_shown_in_numbers(site: ApiSite) -> None:
    for priority in ("critical", "high", "high", "low"):
        site.queued(queue="mail", priority=priority)
    site.scheduled(queue="mail")
    site.clock.advance(timedelta(seconds=7))
    (queue,) = _get(site, "/queues")
    assert queue == _get(site, "/queues/mail/stats")
    assert queue["depth"] == {"critical": 1, "high": 2, "medium": 0, "low": 1}
    assert (queue["waiting"], queue["scheduled"], queue["oldest_age"], queue["totals"]["enqueued"]) == (4, 1, 7.0, 5)
    assert _get(site, "/queues/mail/depth") == {"name": "mail", "depth": queue["depth"], "waiting": 4}


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(site: ApiSite) -> None:
    job, client = site.queued(queue="mail"), site.client()
    assert client.simulate_post(f"{PREFIX}/queues/mail/pause").json == {"name": "mail", "paused": True}
    assert _get(site, "/queues/mail/stats")["paused"] is True
    assert site.broker.lease(["mail"], 1, worker_id="w", lease_for=HOUR, wait=timedelta(0), suspects=1) == []
    assert client.simulate_post(f"{PREFIX}/queues/mail/resume").json == {"name": "mail", "paused": False}
    site.lease(job)


def test_a_purge_cancels_what_has_not_started_and_says_how_many(site: ApiSite) -> None:
    running = site.processing(queue="mail")
    waiting = [site.queued(queue="mail"), site.scheduled(queue="mail"), site.queued(queue="mail")]
    other = site.queued()
    assert site.client().simulate_delete(f"{PREFIX}/queues/mail/jobs").json == {"queue": "mail", "purged": 3}
    assert {site.job(job.id).state for job in waiting} == {JobState.CANCELLED}
    assert (site.job(running.id).state, site.job(other.id).state) == (JobState.PROCESSING, JobState.QUEUED)


def test_a_queue_that_nobody_knows_is_404(shared: ApiSite) -> None:
    for path in ("/queues/nobody/stats", "/queues/nobody/depth"):
        _get(shared, path, 404)
    refusal(shared.client().simulate_delete(f"{PREFIX}/queues/nobody/jobs"), 404, "not_found")


# Dead letters --------------------------------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_while_they_are_open(site: ApiSite) -> None:
    jobs = []
    for number in range(4):
        jobs.append(site.dead(type=f"type.{number % 2}", queue=f"q{number}", error=f"OSError: disk {number}"))
        site.clock.advance(timedelta(seconds=1))
    site.client().simulate_delete(f"{PREFIX}/dlq/{jobs[3].id}")
    site.client("write").simulate_post(f"{PREFIX}/dlq/{jobs[2].id}/retry")
    ids = [job.id for job in jobs]
    assert [one["job_id"] for one in _get(site, "/dlq")] == [ids[1], ids[0]]
    assert [one["job_id"] for one in _get(site, "/dlq?state=all")] == ids[::-1]
    assert [one["job_id"] for one in _get(site, "/dlq?state=requeued")] == [ids[2]]
    assert [one["job_id"] for one in _get(site, "/dlq?state=discarded")] == [ids[3]]
    assert [one["job_id"] for one in _get(site, "/dlq?type=type.1&state=all")] == [ids[3], ids[1]]
    assert [one["job_id"] for one in _get(site, "/dlq?queue=q0")] == [ids[0]]
    one = _get(site, f"/dlq/{ids[0]}")
    assert (one["death"], one["error"], one["traceback"], one["state"]) == (1, "OSError: disk 0", "Traceback: there\nOSError: disk 0", "open")
    assert _get(site, f"/dlq?since={one['died_at']}&until={one['died_at']}") == [one]
    assert [found["job_id"] for found in _get(site, f"/dlq?fingerprint={one['fingerprint']}")] == [ids[0]]


def test_dead_letters_are_grouped_by_what_went_wrong(site: ApiSite) -> None:
    jobs = [site.dead(error=f"TimeoutError: after {number} s") for number in range(3)]
    site.dead(error="KeyError: 'x'")
    first, second = _get(site, "/dlq/groups")
    assert (first["count"], second["count"], second["example_error"]) == (3, 1, "KeyError: 'x'")
    assert first["example_job_id"] in [job.id for job in jobs]
    assert len(_get(site, f"/dlq?fingerprint={first['fingerprint']}")) == 3
    assert _get(site, "/dlq/groups?limit=1") == [first]
    assert _get(site, "/dlq/groups?type=nobody") == []


def test_a_dead_job_is_tried_again_once(shared: ApiSite) -> None:
    job = shared.dead(payload={"a": 1.5})
    answer = shared.client("write").simulate_post(f"{PREFIX}/dlq/{job.id}/retry")
    assert (answer.status_code, answer.json["id"], answer.json["state"], answer.json["retry_count"]) == (200, job.id, "queued", 0)
    assert shared.job(job.id).payload_json == job.payload_json
    refusal(shared.client("write").simulate_post(f"{PREFIX}/dlq/{job.id}/retry"), 409, "not_open")
    refusal(shared.client("write").simulate_post(f"{PREFIX}/dlq/{NOBODY}/retry"), 404, "not_found")


@pytest.mark.parametrize(("body", "payload"), [({"payload": {"b": 2}}, {"b": 2}), ({"payload": None}, None), ({}, {"a": 1})])
def test_a_dead_job_may_be_given_another_payload(shared: ApiSite, body: object, payload: object) -> None:
    job = shared.dead(payload={"a": 1})
    answer = shared.client("write").simulate_post(f"{PREFIX}/dlq/{job.id}/retry", json=body)
    assert (answer.status_code, answer.json["payload"]) == (200, payload)


def test_what_could_not_be_read_needs_a_payload_to_be_tried_again(shared: ApiSite) -> None:
    job_id = shared.undecodable()
    refusal(shared.client("write").simulate_post(f"{PREFIX}/dlq/{job_id}/retry"), 409, "undecodable")
    answer = shared.client("write").simulate_post(f"{PREFIX}/dlq/{job_id}/retry", json={"payload": 1})
    assert (answer.status_code, answer.json["payload"]) == (200, 1)


def test_a_retry_does_not_take_a_unique_key_that_another_job_holds(shared: ApiSite) -> None:
    dead = shared.dead(queue="held", unique_key="k")
    shared.queued(queue="held", unique_key="k")
    refusal(shared.client("write").simulate_post(f"{PREFIX}/dlq/{dead.id}/retry"), 409, "key_taken")
    assert _get(shared, f"/dlq/{dead.id}")["state"] == "open"


def test_a_dead_letter_is_deleted_once(shared: ApiSite) -> None:
    job = shared.dead()
    answer = shared.client().simulate_delete(f"{PREFIX}/dlq/{job.id}")
    assert (answer.status_code, answer.json["state"]) == (200, "discarded")
    refusal(shared.client().simulate_delete(f"{PREFIX}/dlq/{job.id}"), 409, "not_open")
    refusal(shared.client().simulate_delete(f"{PREFIX}/dlq/{NOBODY}"), 404, "not_found")


@pytest.mark.parametrize(("method", "path", "state"), [("POST", "/dlq/retry", "requeued"), ("DELETE", "/dlq", "discarded")])
def test_a_bulk_action_does_what_the_filter_says_and_nothing_when_it_is_dry(site: ApiSite, method: str, path: str, state: str) -> None:
    mails = [site.dead(type="mail", queue=f"q{number}", error=f"OSError: {number}") for number in range(3)]
    other = site.dead(type="other", queue="q0", error="KeyError: x")
    client = site.client()
    dry = client.simulate_request(method, f"{PREFIX}{path}?type=mail&dry_run=true")
    assert dry.json == {"matched": 3, "done": 0, "skipped": 0, "dry_run": True}
    assert len(_get(site, "/dlq")) == 4
    assert client.simulate_request(method, f"{PREFIX}{path}?type=mail&queue=q1").json == {"matched": 1, "done": 1, "skipped": 0, "dry_run": False}
    assert client.simulate_request(method, f"{PREFIX}{path}?type=mail&dry_run=false").json["done"] == 2
    assert {one["job_id"] for one in _get(site, f"/dlq?state={state}")} == {job.id for job in mails}
    print_of = _get(site, f"/dlq/{other.id}")["fingerprint"]
    assert client.simulate_request(method, f"{PREFIX}{path}?fingerprint={'x' * 16}").json["matched"] == 0
    assert client.simulate_request(method, f"{PREFIX}{path}?until=2020-01-01T00:00:00Z").json["matched"] == 0
    assert client.simulate_request(method, f"{PREFIX}{path}?fingerprint={print_of}&since=2020-01-01T00:00:00Z").json["done"] == 1
    assert client.simulate_request(method, f"{PREFIX}{path}").json == {"matched": 0, "done": 0, "skipped": 0, "dry_run": False}


@pytest.mark.parametrize(("method", "path"), [("POST", "/dlq/retry"), ("DELETE", "/dlq")])
@pytest.mark.parametrize(
    "query", ["typ=mail", "dry_run=1", "dry_run=", "dry_run=True", "type=", "limit=1", "state=open", "since=yesterday", "dry-run=true"]
)
def test_a_slip_in_a_filter_does_not_make_a_bulk_action_on_everything(site: ApiSite, method: str, path: str, query: str) -> None:
    site.dead()
    answer = site.client().simulate_request(method, f"{PREFIX}{path}", query_string=query)
    refusal(answer, 422, field=query.partition("=")[0])
    filtered = site.client().simulate_request(method, f"{PREFIX}{path}", json={"type": "mail"})
    refusal(filtered, 400, "body_unexpected")
    assert len(_get(site, "/dlq")) == 1


# Executions ----------------------------------------------------------------------------------------------------------------------------


def test_executions_are_newest_first_and_a_jobs_by_run(site: ApiSite) -> None:
    lease = site.leased(type="mail")
    site.settle(failed(lease, delay=timedelta(seconds=1)))
    site.clock.advance(timedelta(seconds=2))
    again = site.settle(completed(site.lease(site.job(lease.job.id))))
    site.clock.advance(timedelta(seconds=2))
    other = site.dead(type="other", queue="q")
    assert [(one["job_id"], one["state"]) for one in _get(site, "/executions")] == [(other.id, "dead"), (again.id, "completed"), (again.id, "failed")]
    runs = _get(site, f"/executions/{again.id}")
    assert [(one["run"], one["attempt"], one["state"]) for one in runs] == [(1, 1, "failed"), (2, 2, "completed")]
    assert [one["state"] for one in _get(site, "/executions?type=mail&state=failed")] == ["failed"]
    assert [one["state"] for one in _get(site, "/executions?queue=q")] == ["dead"]
    assert [one["state"] for one in _get(site, f"/executions?since={runs[1]['finished_at']}")] == ["dead", "completed"]
    assert [one["state"] for one in _get(site, f"/executions?until={runs[1]['finished_at']}")] == ["failed"]
    assert [one["state"] for one in _get(site, "/executions?offset=1&limit=1")] == ["completed"]
    assert _get(site, "/executions?offset=10000") == []
    assert _get(site, f"/executions/{site.queued().id}") == []
    _get(site, f"/executions/{NOBODY}", 404)


# Schedules -----------------------------------------------------------------------------------------------------------------------------

NIGHTLY: Final = {"name": "nightly", "expression": "0 3 * * *", "type": "report", "timezone": "Europe/Berlin", "payload": {"n": 1}}


def test_a_schedule_lives_from_its_creation_to_its_deletion(site: ApiSite) -> None:
    client = site.client()
    created = client.simulate_post(f"{PREFIX}/schedules", json=NIGHTLY)
    assert created.status_code == 201
    path = created.headers["location"]
    assert client.simulate_get(path).json == created.json == _get(site, "/schedules")[0]
    assert (created.json["source"], created.json["paused"], created.json["queue"]) == ("dynamic", False, None)
    refusal(client.simulate_post(f"{PREFIX}/schedules", json=NIGHTLY), 409, "exists")

    assert client.simulate_patch(path, json={"paused": True}).json["paused"] is True
    changed = client.simulate_patch(path, json={"expression": "@hourly", "queue": "reports", "timeout": 60, "max_retries": 2})
    assert (changed.status_code, changed.json["queue"], changed.json["timeout"], changed.json["paused"]) == (200, "reports", "1m", True)
    assert client.simulate_patch(path, json={"queue": None, "paused": False}).json["queue"] is None
    assert len(client.simulate_get(f"{path}/next", query_string="count=3").json) == 3

    run = site.client("write").simulate_post(f"{path}/run")
    assert (run.status_code, run.json["metadata"]["jobqueue.schedule"], run.json["payload"]) == (201, "nightly", {"n": 1})
    assert [one["job_id"] for one in client.simulate_get(f"{path}/runs").json] == [run.json["id"]]

    gone = client.simulate_delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/run"), ("GET", "/runs"), ("GET", "/next")):
        refusal(client.simulate_request(method, path + suffix), 404, "not_found")
    refusal(client.simulate_patch(path, json={"paused": True}), 404, "not_found")
    assert site.job(run.json["id"]).state is JobState.QUEUED


def test_a_schedule_of_the_config_file_can_be_paused_and_run_only(site: ApiSite) -> None:
    path, client = f"{PREFIX}/schedules/{site.config_schedule()}", site.client()
    assert client.simulate_patch(path, json={"paused": True}).json["paused"] is True
    assert client.simulate_patch(path, json={"paused": False}).json["paused"] is False
    refusal(client.simulate_patch(path, json={"queue": "x"}), 409, "from_config")
    refusal(client.simulate_patch(path, json={"paused": True, "queue": "x"}), 409, "from_config")
    refusal(client.simulate_delete(path), 409, "from_config")
    assert client.simulate_get(path).json["paused"] is False
    assert client.simulate_post(f"{path}/run").status_code == 201


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"expression": "61 * * * *"}, "expression"),
        ({"expression": "0 0 31 2 *"}, "expression"),
        ({"expression": ""}, "expression"),
        ({"expression": "a\u0000"}, "expression"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"timezone": "a\u0000b"}, "timezone"),
        ({"start": "2030-01-02T00:00:00Z", "end": "2030-01-01T00:00:00Z"}, "end"),
        ({"start": "2030-01-02T00:00:00"}, "start"),
        ({"misfire": "twice"}, "misfire"),
        ({"overlap": 1}, "overlap"),
        ({"misfire_limit": 0}, "misfire_limit"),
        ({"misfire_limit": 10**400}, "misfire_limit"),
        ({"jitter": "-1s"}, "jitter"),
        ({"timeout": 0}, "timeout"),
        ({"type": "a b"}, "type"),
        ({"queue": "a\nb"}, "queue"),
        ({"priority": "urgent"}, "priority"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"nope": 1}, "nope"),
        ({"payload": "x" * (1 << 20)}, "payload"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_named_and_nothing_changes(shared: ApiSite, changes: dict[str, Any], field: str) -> None:
    client, name = shared.client(), f"s-{uuid.uuid4()}"
    refusal(client.simulate_post(f"{PREFIX}/schedules", json={**NIGHTLY, "name": name, **changes}), 422, field=field)
    _get(shared, f"/schedules/{name}", 404)
    before = client.simulate_post(f"{PREFIX}/schedules", json={**NIGHTLY, "name": name}).json
    refusal(client.simulate_patch(f"{PREFIX}/schedules/{name}", json={"paused": True, **changes}), 422, field=field)
    assert _get(shared, f"/schedules/{name}") == before


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "a\n", "a\u0000", "n" * 101, "\u00e4", None, 7])
def test_a_schedule_needs_a_name_that_is_one(shared: ApiSite, name: object) -> None:
    refusal(shared.client().simulate_post(f"{PREFIX}/schedules", json={**NIGHTLY, "name": name}), 422, field="name")


def test_a_schedule_that_is_never_due_is_not_made(shared: ApiSite) -> None:
    refusal(shared.client().simulate_post(f"{PREFIX}/schedules", json={**NIGHTLY, "name": "past", "end": "2001-01-01T00:00:00Z"}), 422, field="end")


def test_a_change_must_change_something(shared: ApiSite) -> None:
    name = shared.schedule(f"s-{uuid.uuid4()}")
    refusal(shared.client().simulate_patch(f"{PREFIX}/schedules/{name}", json={}), 422)


def test_a_schedule_whose_last_job_has_not_ended_may_not_be_run_again_if_it_says_so(shared: ApiSite) -> None:
    name = shared.schedule(f"s-{uuid.uuid4()}", overlap="skip")
    assert shared.client("write").simulate_post(f"{PREFIX}/schedules/{name}/run").status_code == 201
    refusal(shared.client("write").simulate_post(f"{PREFIX}/schedules/{name}/run"), 409, "still_running")


# Workers, types, statistics ------------------------------------------------------------------------------------------------------------


def test_workers_and_their_types_are_shown(site: ApiSite) -> None:
    assert (_get(site, "/workers"), _get(site, "/types")) == ([], [])
    schema = {"type": "object", "properties": {"to": {"type": "string"}}}
    site.worker("w-1", payload_schema=schema)
    (worker,), (served,) = _get(site, "/workers"), _get(site, "/types")
    assert (worker["id"], worker["types"]) == ("w-1", ["test.job"])
    assert (served["type"], served["payload_schema"]) == ("test.job", schema)


def test_the_whole_is_shown_in_numbers(site: ApiSite) -> None:
    site.one_of_each()
    site.dead()
    found = _get(site, "/stats")
    assert found["jobs"] == {"waiting": 1, "processing": 1, "scheduled": 1, "retrying": 1}
    assert (found["totals"]["dead"], found["dead_letter_count"], found["outbox_lag"]["history"], found["storage_error"]) == (2, 2, 0, None)
    day = found["executions_24h"]
    assert (day["total"], day["completed"], day["failed"], day["dead"], day["lost"]) == (4, 1, 1, 2, 0)


# Walking through lists -----------------------------------------------------------------------------------------------------------------


def _long(site: ApiSite) -> None:
    """Lists of some length."""
    for number in range(9):
        site.dead(queue="walk", error=f"OSError: {number}")
        site.archived(queue="walk", state=list(ExecutionState)[number % 2])
        # What no filter wants.
        site.dead(type="other", queue="other")
        site.clock.advance(timedelta(seconds=number % 2))
    for number in range(9):
        site.queued(queue="walk", payload=number)


@pytest.mark.parametrize(
    "path", ["/jobs", "/jobs?queue=walk", "/dlq", "/dlq?queue=walk&state=all", "/executions", "/executions?queue=walk&type=test.job"]
)
@pytest.mark.parametrize("limit", [1, 4, 9, 500])
def test_following_the_links_shows_everything_once(walked: ApiSite, path: str, limit: int) -> None:
    separator = "&" if "?" in path else "?"
    pages = walk(walked.client("read"), f"{PREFIX}{path}{separator}limit={limit}")
    rows = [json.dumps(row) for page in pages for row in page]
    assert sorted(rows) == sorted(json.dumps(row) for row in _get(walked, f"{path}{separator}limit=500"))
    assert len(set(rows)) == len(rows) >= 9
    assert max(map(len, pages)) <= limit


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    with opened(ApiSite(tmp_path_factory.mktemp("api"))) as site:
        _long(site)
        site.clock.advance(HOUR)
        yield site


def test_a_walk_keeps_its_filters_however_they_are_written(walked: ApiSite) -> None:
    died = [one["died_at"] for one in _get(walked, "/dlq?limit=500&queue=walk")]
    since = min(died).replace("Z", "+00:00")
    pages = walk(walked.client("read"), f"{PREFIX}/dlq?limit=2&since={since.replace('+', '%2B')}&queue=walk")
    assert [one["died_at"] for page in pages for one in page] == died


def test_a_walk_that_began_at_an_offset_goes_on_from_there(walked: ApiSite) -> None:
    whole = _get(walked, "/executions?limit=500")
    pages = walk(walked.client("read"), f"{PREFIX}/executions?limit=3&offset=5")
    assert [row for page in pages for row in page] == whole[5:]


def test_the_last_page_has_no_link(walked: ApiSite) -> None:
    assert next_of(walked.client("read").simulate_get(f"{PREFIX}/executions?limit=500")) is None
    assert next_of(walked.client("read").simulate_get(f"{PREFIX}/dlq?queue=nobody")) is None
