"""Queues over the REST API: in numbers, paused and purged."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest
from api_asking import get_json, open_own, open_shared
from api_site import PREFIX, ApiSite, refusal

from jobqueue_core.job import JobState

HOUR: Final = timedelta(hours=1)

shared = pytest.fixture(open_shared, scope="module")
site = pytest.fixture(open_own)


def test_a_queue_is_shown_in_numbers(site: ApiSite) -> None:
    for priority in ("critical", "high", "high", "low"):
        site.queued(queue="mail", priority=priority)
    site.scheduled(queue="mail")
    site.clock.advance(timedelta(seconds=7))
    (queue,) = get_json(site, "/queues")
    assert queue == get_json(site, "/queues/mail/stats")
    assert queue["depth"] == {"critical": 1, "high": 2, "medium": 0, "low": 1}
    assert (queue["waiting"], queue["scheduled"], queue["oldest_age"], queue["totals"]["enqueued"]) == (4, 1, 7.0, 5)
    assert get_json(site, "/queues/mail/depth") == {"name": "mail", "depth": queue["depth"], "waiting": 4}


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(site: ApiSite) -> None:
    job, client = site.queued(queue="mail"), site.client()
    assert client.simulate_post(f"{PREFIX}/queues/mail/pause").json == {"name": "mail", "paused": True}
    assert get_json(site, "/queues/mail/stats")["paused"] is True
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
        get_json(shared, path, 404)
    refusal(shared.client().simulate_delete(f"{PREFIX}/queues/nobody/jobs"), 404, "not_found")
