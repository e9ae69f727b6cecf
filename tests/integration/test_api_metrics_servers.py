"""The metrics of an installation on Redis and PostgreSQL: the same as on one file, and an answer in time whatever the network does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from metrics_site import OF_BROKER, OF_STORAGE, Metrics, scraped
from servers import PostgresPlace, Proxy, RedisPlace

from jobqueue_api.exposition.exposition import Exposition
from jobqueue_core.app import App
from jobqueue_core.recorder import Recorder
from jobqueue_core.testing.factories import completed, died, worker_info

pytestmark = [pytest.mark.redis, pytest.mark.postgres]
PATIENCE = 20.0
SECOND = timedelta(seconds=1)


class Site:
    """An app on servers behind networks that can fail."""

    def __init__(self, app: App, networks: dict[str, Proxy]) -> None:
        self.app = app
        self.networks = networks
        self.exposition = Exposition(app, patience=timedelta(seconds=1))

    def scrape(self) -> Metrics:
        return scraped(self.exposition)

    def scrape_until(self, wanted: Callable[[Metrics], object]) -> Metrics:
        deadline = time.monotonic() + PATIENCE
        while not wanted(metrics := self.scrape()):
            assert time.monotonic() < deadline, metrics.samples
        return metrics


def _behind(url: str, stack: ExitStack) -> tuple[str, Proxy]:
    parts = urlsplit(url)
    proxy = stack.enter_context(Proxy(parts.port or 0, parts.hostname or ""))
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return parts._replace(netloc=f"{login}127.0.0.1:{proxy.port}").geturl(), proxy


@pytest.fixture
def site(tmp_path: Path, redis_place: RedisPlace, postgres_place: PostgresPlace) -> Iterator[Site]:
    with ExitStack() as stack:
        broker, redis_network = _behind(redis_place.url, stack)
        storage, postgres_network = _behind(postgres_place.url, stack)
        config = tmp_path / "jobqueue.toml"
        config.write_text(
            f'[run]\nnamespace = "{redis_place.namespace}"\n[broker]\nplugin = "redis"\nurl = "{broker}"\n'
            f'[storage]\nplugin = "postgres"\nurl = "{storage}"\n'
        )
        app = stack.enter_context(App.from_config(config, environ={}))
        yield Site(app, {"broker": redis_network, "storage": postgres_network})
        for network in (redis_network, postgres_network):
            network.pass_on()


def test_what_happened_on_servers_is_shown_as_on_a_file(site: Site) -> None:
    broker, queue, namespace = site.app.broker, site.app.queue, site.app.settings.run.namespace
    for _ in range(4):
        queue.enqueue("mail.send", queue="mail", priority="high")
    queue.enqueue("mail.send", queue="mail", delay="1h")
    taken = broker.lease(["mail"], 3, worker_id="w1", lease_for=30 * SECOND, wait=timedelta(0), suspects=1)
    assert broker.settle([completed(taken[0]), died(taken[1])], worker_id="w1") == [True, True]
    broker.beat(worker_info("w1", started_at=broker.now()))
    Recorder(broker=broker, storage=site.app.storage).record_waiting()
    metrics = site.scrape_until(lambda metrics: metrics.names_of(OF_BROKER) and metrics.names_of(OF_STORAGE))
    labels = {"namespace": namespace, "queue": "mail"}
    found = {
        name: metrics(f"jobqueue_queue_{name}", **labels) for name in ("processing", "scheduled", "enqueued_total", "completed_total", "dead_total")
    }
    assert found == {"processing": 1, "scheduled": 1, "enqueued_total": 5, "completed_total": 1, "dead_total": 1}
    assert metrics("jobqueue_queue_jobs", priority="high", **labels) == 1
    of_type = {"namespace": namespace, "type": "mail.send"}
    assert metrics("jobqueue_executions_total", state="completed", **of_type) == metrics("jobqueue_executions_total", state="dead", **of_type) == 1
    assert metrics("jobqueue_execution_duration_seconds_bucket", le="0.05", **of_type) == 2
    assert metrics("jobqueue_dead_letters_open", namespace=namespace) == 1
    assert metrics("jobqueue_workers", state="working", namespace=namespace) == 1
    assert metrics("jobqueue_outbox_entries", kind="history", namespace=namespace) == 0


@pytest.mark.parametrize(("away", "lost", "kept"), [("broker", OF_BROKER, OF_STORAGE), ("storage", OF_STORAGE, OF_BROKER)])
def test_a_network_that_swallows_everything_costs_no_more_than_the_time_given(
    site: Site, away: str, lost: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    namespace = site.app.settings.run.namespace
    site.scrape_until(lambda metrics: metrics.names_of(OF_BROKER) and metrics.names_of(OF_STORAGE))
    site.networks[away].halt()
    began = time.monotonic()
    metrics = site.scrape()
    assert time.monotonic() - began < 5
    assert metrics(f"jobqueue_{away}_up", namespace=namespace) == 0
    assert (metrics.names_of(lost), bool(metrics.names_of(kept))) == (set(), True)
    site.networks[away].pass_on()
    back = site.scrape_until(lambda metrics: metrics(f"jobqueue_{away}_up", namespace=namespace) == 1)
    assert back.names_of(lost)
