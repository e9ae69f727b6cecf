"""A storage that plays only some of the roles: the API serves what there is, and says what there is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from api_site import PREFIX, ApiSite, refusal

from jobqueue_core.storage import Storage


class History:
    """A storage that remembers executions, and nothing else."""

    PROTOCOL = 1

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        for name in ("record_executions", "executions", "job_executions", "statistics", "totals", "prune_executions", "ends", "have_ended"):
            setattr(self, name, getattr(storage, name))

    def describe(self) -> str:
        return "history only"

    def close(self) -> None:
        self._storage.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ApiSite]:
    with closing(ApiSite(tmp_path)) as site:
        site.app._storage = History(site.app.storage)  # type: ignore[assignment]  # it plays one role
        yield site


def test_it_is_ready(site: ApiSite) -> None:
    answer = site.client().simulate_get("/ready")
    assert (answer.status_code, answer.json["dependencies"]["storage"]) == (200, "history only")


def test_statistics_lack_what_it_does_not_know(site: ApiSite) -> None:
    stats = site.client().simulate_get(f"{PREFIX}/stats").json
    assert (stats["dead_letter_count"], stats["storage_error"], stats["executions_24h"]["total"]) == (None, None, 0)


def test_what_it_plays_is_served(site: ApiSite) -> None:
    assert site.client().simulate_get(f"{PREFIX}/executions").json == []
    assert site.client().simulate_get(f"{PREFIX}/jobs").json == []


@pytest.mark.parametrize("path", ["/dlq", "/dlq/groups", "/schedules"])
def test_what_it_does_not_play_is_a_conflict_that_says_so(site: ApiSite, path: str) -> None:
    assert "history only" in refusal(site.client().simulate_get(f"{PREFIX}{path}"), 409, "no_storage")
