"""Where a request goes: path and method decide, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from api_asking import UNKNOWN, ask, named, open_prompt, prompt_site, routes
from api_site import PREFIX, SECRETS, ApiSite, links, refusal

from jobqueue_core.job import JobState

site = pytest.fixture(open_prompt, scope="module")


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_header_does_not_change_the_method(site: ApiSite, header: str) -> None:
    job = site.queued()
    reading = {"Authorization": f"Bearer {SECRETS['admin']}", header: "DELETE"}
    assert ask(site, "GET", f"{PREFIX}/jobs/{job.id}", reading).json["state"] == "queued"
    refusal(ask(site, "POST", f"{PREFIX}/jobs/{job.id}", reading), 405, "method_not_allowed")
    refusal(ask(site, "POST", f"{PREFIX}/queues/{job.queue}/jobs", {**reading, header: "GET"}, query="_method=DELETE"), 405)
    assert site.job(job.id).state is JobState.QUEUED


def test_head_answers_what_get_would_without_the_body(site: ApiSite) -> None:
    headers = {"Authorization": f"Bearer {SECRETS['read']}"}
    for method, path in routes(site):
        if method != "HEAD" or path == "/metrics":
            continue
        asked = named(site, path)
        head, get = ask(site, "HEAD", asked, headers), ask(site, "GET", asked, headers)
        assert (head.status_code, head.content) == (get.status_code, b""), asked
        assert head.headers["content-type"] == get.headers["content-type"], asked


def test_a_method_that_a_path_does_not_have_is_405_with_what_it_has(site: ApiSite) -> None:
    answer = ask(site, "PUT", f"{PREFIX}/jobs", {"Authorization": f"Bearer {SECRETS['read']}"})
    refusal(answer, 405, "method_not_allowed")
    assert {one.strip() for one in answer.headers["allow"].split(",")} >= {"GET", "POST"}


@pytest.mark.parametrize("path", UNKNOWN)
def test_what_does_not_exist_is_404_in_the_one_shape(site: ApiSite, path: str) -> None:
    refusal(ask(site, "GET", path, {"Authorization": f"Bearer {SECRETS['read']}"}), 404, "not_found")


def test_with_a_prefix_everything_is_there_and_nowhere_else(tmp_path: Path) -> None:
    with prompt_site(tmp_path, path_prefix="/queue/a") as site:
        client = site.client()
        assert ask(site, "GET", "/queue/a/health").status_code == 200
        assert ask(site, "GET", "/health").status_code == 401
        assert ask(site, "GET", f"/queue/a{PREFIX}/jobs").status_code == 401
        refusal(client.simulate_get("/health"), 404)
        refusal(client.simulate_get(f"{PREFIX}/jobs"), 404)
        created = client.simulate_post(f"/queue/a{PREFIX}/jobs", json={"type": "a"})
        assert created.headers["location"] == f"/queue/a{PREFIX}/jobs/{created.json['id']}"
        assert client.simulate_get(created.headers["location"]).json == created.json
        client.simulate_post(f"/queue/a{PREFIX}/jobs", json={"type": "a"})
        page = client.simulate_get(f"/queue/a{PREFIX}/jobs?limit=1")
        assert links(page)["next"].startswith(f"http://localhost:8080/queue/a{PREFIX}/jobs?")
        assert client.simulate_get(f"/queue/a{PREFIX}/openapi.json").json["servers"] == [{"url": "/queue/a"}]
