"""Dead letters over the REST API: listed, grouped, tried again and deleted, one by one or by a filter."""

from __future__ import annotations

from datetime import timedelta

import pytest
from api_asking import NOBODY, get_json, open_own, open_shared
from api_site import PREFIX, ApiSite, refusal

shared = pytest.fixture(open_shared, scope="module")

site = pytest.fixture(open_own)

# Lists ---------------------------------------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_while_they_are_open(site: ApiSite) -> None:
    jobs = []
    for number in range(4):
        jobs.append(site.dead(type=f"type.{number % 2}", queue=f"q{number}", error=f"OSError: disk {number}"))
        site.clock.advance(timedelta(seconds=1))
    site.client().simulate_delete(f"{PREFIX}/dlq/{jobs[3].id}")
    site.client("write").simulate_post(f"{PREFIX}/dlq/{jobs[2].id}/retry")
    ids = [job.id for job in jobs]
    assert [one["job_id"] for one in get_json(site, "/dlq")] == [ids[1], ids[0]]
    assert [one["job_id"] for one in get_json(site, "/dlq?state=all")] == ids[::-1]
    assert [one["job_id"] for one in get_json(site, "/dlq?state=requeued")] == [ids[2]]
    assert [one["job_id"] for one in get_json(site, "/dlq?state=discarded")] == [ids[3]]
    assert [one["job_id"] for one in get_json(site, "/dlq?type=type.1&state=all")] == [ids[3], ids[1]]
    assert [one["job_id"] for one in get_json(site, "/dlq?queue=q0")] == [ids[0]]
    one = get_json(site, f"/dlq/{ids[0]}")
    assert (one["death"], one["error"], one["traceback"], one["state"]) == (1, "OSError: disk 0", "Traceback: there\nOSError: disk 0", "open")
    assert get_json(site, f"/dlq?since={one['died_at']}&until={one['died_at']}") == [one]
    assert [found["job_id"] for found in get_json(site, f"/dlq?fingerprint={one['fingerprint']}")] == [ids[0]]


def test_dead_letters_are_grouped_by_what_went_wrong(site: ApiSite) -> None:
    jobs = [site.dead(error=f"TimeoutError: after {number} s") for number in range(3)]
    site.dead(error="KeyError: 'x'")
    first, second = get_json(site, "/dlq/groups")
    assert (first["count"], second["count"], second["example_error"]) == (3, 1, "KeyError: 'x'")
    assert first["example_job_id"] in [job.id for job in jobs]
    assert len(get_json(site, f"/dlq?fingerprint={first['fingerprint']}")) == 3
    assert get_json(site, "/dlq/groups?limit=1") == [first]
    assert get_json(site, "/dlq/groups?type=nobody") == []


# One dead letter -----------------------------------------------------------------------------------------------------------------------


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
    assert get_json(shared, f"/dlq/{dead.id}")["state"] == "open"


def test_a_dead_letter_is_deleted_once(shared: ApiSite) -> None:
    job = shared.dead()
    answer = shared.client().simulate_delete(f"{PREFIX}/dlq/{job.id}")
    assert (answer.status_code, answer.json["state"]) == (200, "discarded")
    refusal(shared.client().simulate_delete(f"{PREFIX}/dlq/{job.id}"), 409, "not_open")
    refusal(shared.client().simulate_delete(f"{PREFIX}/dlq/{NOBODY}"), 404, "not_found")


# Bulk actions --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "state"), [("POST", "/dlq/retry", "requeued"), ("DELETE", "/dlq", "discarded")])
def test_a_bulk_action_does_what_the_filter_says_and_nothing_when_it_is_dry(site: ApiSite, method: str, path: str, state: str) -> None:
    mails = [site.dead(type="mail", queue=f"q{number}", error=f"OSError: {number}") for number in range(3)]
    other = site.dead(type="other", queue="q0", error="KeyError: x")
    client = site.client()
    dry = client.simulate_request(method, f"{PREFIX}{path}?type=mail&dry_run=true")
    assert dry.json == {"matched": 3, "done": 0, "skipped": 0, "dry_run": True}
    assert len(get_json(site, "/dlq")) == 4
    assert client.simulate_request(method, f"{PREFIX}{path}?type=mail&queue=q1").json == {"matched": 1, "done": 1, "skipped": 0, "dry_run": False}
    assert client.simulate_request(method, f"{PREFIX}{path}?type=mail&dry_run=false").json["done"] == 2
    assert {one["job_id"] for one in get_json(site, f"/dlq?state={state}")} == {job.id for job in mails}
    print_of = get_json(site, f"/dlq/{other.id}")["fingerprint"]
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
    assert len(get_json(site, "/dlq")) == 1
