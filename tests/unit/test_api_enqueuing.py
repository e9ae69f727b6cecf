"""Jobs are enqueued over the REST API one by one or in batches, and once however often they are sent."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from api_asking import get_json, open_own, open_shared
from api_site import PREFIX, ApiSite, Client, Result, opened, refusal

from jobqueue_core.testing.factories import completed

HOUR: Final = timedelta(hours=1)

shared = pytest.fixture(open_shared, scope="module")
site = pytest.fixture(open_own)


def _create(client: Client, body: object, key: str | None = None, path: str = "/jobs") -> Result:
    return client.simulate_post(f"{PREFIX}{path}", json=body, headers={} if key is None else {"Idempotency-Key": key})


# One job -------------------------------------------------------------------------------------------------------------------------------


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
    assert len(get_json(shared, "/jobs?queue=by-id")) == 1
    refusal(_create(shared.client("write"), {**body, "type": "another"}), 409)


def test_a_unique_key_is_held_until_the_job_has_ended(site: ApiSite) -> None:
    body = {"type": "a", "queue": "keyed", "unique_key": "welcome:42"}
    first, again = _create(site.client("write"), body), _create(site.client("write"), body)
    assert (first.status_code, again.status_code, again.json["id"]) == (201, 200, first.json["id"])
    site.settle(completed(site.lease(site.job(first.json["id"]))))
    assert _create(site.client("write"), body).status_code == 201


# Idempotency keys ----------------------------------------------------------------------------------------------------------------------


def test_a_request_that_is_repeated_under_its_key_makes_no_second_job(shared: ApiSite) -> None:
    client = shared.client("write")
    first = _create(client, {"type": "a", "queue": "once", "payload": {"x": 1, "y": [1, 2]}}, key="k-1")
    again = client.simulate_post(
        f"{PREFIX}/jobs",
        body='{ "payload": {"y": [1,2], "x": 1},\n "queue": "once", "type": "a" }',
        headers={"Idempotency-Key": "k-1", "Content-Type": "application/json; charset=utf-8"},
    )
    assert (first.status_code, again.status_code, again.json["id"]) == (201, 200, first.json["id"])
    assert len(get_json(shared, "/jobs?queue=once")) == 1


def test_another_body_under_the_same_key_is_a_conflict(shared: ApiSite) -> None:
    client = shared.client("write")
    assert _create(client, {"type": "a", "queue": "conflict", "payload": 1}, key="k-2").status_code == 201
    refusal(_create(client, {"type": "a", "queue": "conflict", "payload": 2}, key="k-2"), 409, "idempotency_conflict")
    refusal(_create(client, {"type": "a", "queue": "elsewhere", "payload": 1}, key="k-2"), 409, "idempotency_conflict")
    assert len(get_json(shared, "/jobs?queue=conflict")) == 1


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
    assert get_json(shared, f"/jobs?queue={queue}") == []


def test_a_batch_has_1_to_1000_jobs(shared: ApiSite) -> None:
    def send(count: int) -> Result:
        return _create(shared.client("write"), {"jobs": [{"type": "a", "queue": "thousand"}] * count}, path="/jobs/batch")

    refusal(send(0), 422, field="jobs")
    refusal(send(1001), 422, field="jobs")
    whole = send(1000)
    assert (whole.status_code, len(whole.json)) == (200, 1000)
    assert get_json(shared, "/queues/thousand/depth")["waiting"] == 1000


def test_a_batch_that_is_repeated_under_its_key_makes_no_second_jobs(shared: ApiSite) -> None:
    batch = {"jobs": [{"type": "a", "queue": "again", "payload": number} for number in range(5)]}
    first, again = (_create(shared.client("write"), batch, key="b-1", path="/jobs/batch") for _ in range(2))
    assert [one["status"] for one in again.json] == ["existing"] * 5
    assert [one["id"] for one in again.json] == [one["id"] for one in first.json]
    assert len(get_json(shared, "/jobs?queue=again")) == 5


def test_another_batch_under_the_same_key_makes_nothing(shared: ApiSite) -> None:
    _create(shared.client("write"), {"jobs": [{"type": "a", "queue": "first-batch"}]}, key="b-2", path="/jobs/batch")
    for other in ([{"type": "b", "queue": "other-batch"}], [{"type": "a", "queue": "first-batch"}, {"type": "a", "queue": "other-batch"}]):
        answer = _create(shared.client("write"), {"jobs": other}, key="b-2", path="/jobs/batch")
        assert answer.status_code == 409 or {one["status"] for one in answer.json} == {"refused"}, answer.text
    assert get_json(shared, "/jobs?queue=other-batch") == []
