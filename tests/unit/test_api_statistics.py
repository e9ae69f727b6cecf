"""What an operator looks at: executions, workers and their types, and the whole in numbers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from api_asking import NOBODY, get_json, open_own
from api_site import ApiSite

from jobqueue_core.testing.factories import completed, failed

site = pytest.fixture(open_own)


def test_executions_are_newest_first_and_a_jobs_by_run(site: ApiSite) -> None:
    lease = site.leased(type="mail")
    site.settle(failed(lease, delay=timedelta(seconds=1)))
    site.clock.advance(timedelta(seconds=2))
    again = site.settle(completed(site.lease(site.job(lease.job.id))))
    site.clock.advance(timedelta(seconds=2))
    other = site.dead(type="other", queue="q")
    assert [(one["job_id"], one["state"]) for one in get_json(site, "/executions")] == [
        (other.id, "dead"),
        (again.id, "completed"),
        (again.id, "failed"),
    ]
    runs = get_json(site, f"/executions/{again.id}")
    assert [(one["run"], one["attempt"], one["state"]) for one in runs] == [(1, 1, "failed"), (2, 2, "completed")]
    assert [one["state"] for one in get_json(site, "/executions?type=mail&state=failed")] == ["failed"]
    assert [one["state"] for one in get_json(site, "/executions?queue=q")] == ["dead"]
    assert [one["state"] for one in get_json(site, f"/executions?since={runs[1]['finished_at']}")] == ["dead", "completed"]
    assert [one["state"] for one in get_json(site, f"/executions?until={runs[1]['finished_at']}")] == ["failed"]
    assert [one["state"] for one in get_json(site, "/executions?offset=1&limit=1")] == ["completed"]
    assert get_json(site, "/executions?offset=10000") == []
    assert get_json(site, f"/executions/{site.queued().id}") == []
    get_json(site, f"/executions/{NOBODY}", 404)


def test_workers_and_their_types_are_shown(site: ApiSite) -> None:
    assert (get_json(site, "/workers"), get_json(site, "/types")) == ([], [])
    schema = {"type": "object", "properties": {"to": {"type": "string"}}}
    site.worker("w-1", payload_schema=schema)
    (worker,), (served,) = get_json(site, "/workers"), get_json(site, "/types")
    assert (worker["id"], worker["types"]) == ("w-1", ["test.job"])
    assert (served["type"], served["payload_schema"]) == ("test.job", schema)


def test_the_whole_is_shown_in_numbers(site: ApiSite) -> None:
    site.one_of_each()
    site.dead()
    found = get_json(site, "/stats")
    assert found["jobs"] == {"waiting": 1, "processing": 1, "scheduled": 1, "retrying": 1}
    assert (found["totals"]["dead"], found["dead_letter_count"], found["outbox_lag"]["history"], found["storage_error"]) == (2, 2, 0, None)
    day = found["executions_24h"]
    assert (day["total"], day["completed"], day["failed"], day["dead"], day["lost"]) == (4, 1, 1, 2, 0)
