"""Schedules over the REST API: made, changed, run at once and deleted, unless the config file has them."""

from __future__ import annotations

import uuid
from typing import Any, Final

import pytest
from api_asking import get_json, open_own, open_shared
from api_site import PREFIX, ApiSite, refusal

from jobqueue_core.job import JobState

NIGHTLY: Final = {"name": "nightly", "expression": "0 3 * * *", "type": "report", "timezone": "Europe/Berlin", "payload": {"n": 1}}

shared = pytest.fixture(open_shared, scope="module")
site = pytest.fixture(open_own)


def test_a_schedule_lives_from_its_creation_to_its_deletion(site: ApiSite) -> None:
    client = site.client()
    created = client.simulate_post(f"{PREFIX}/schedules", json=NIGHTLY)
    assert created.status_code == 201
    path = created.headers["location"]
    assert client.simulate_get(path).json == created.json == get_json(site, "/schedules")[0]
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
    get_json(shared, f"/schedules/{name}", 404)
    before = client.simulate_post(f"{PREFIX}/schedules", json={**NIGHTLY, "name": name}).json
    refusal(client.simulate_patch(f"{PREFIX}/schedules/{name}", json={"paused": True, **changes}), 422, field=field)
    assert get_json(shared, f"/schedules/{name}") == before


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
