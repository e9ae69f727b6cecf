"""How metrics are answered: what is not known is left out, nothing grows without bound, and whoever asks gets the format that they read."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from api_site import ApiSite
from metrics_site import OF_BROKER, OF_STORAGE, Metrics, MetricsSite, scraped
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from jobqueue_api.exposition.exposition import Exposition
from jobqueue_api.exposition.facts import BrokerFacts, StorageFacts
from jobqueue_api.exposition.families import Families
from jobqueue_core import __version__
from jobqueue_core.app import App
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.broker import OutboxLag
from jobqueue_core.errors import BrokerUnavailable, StorageUnavailable
from jobqueue_core.histogram import Histogram
from jobqueue_core.storage import ExecutionTotals, TypeTotals
from jobqueue_core.testing.factories import NOON, execution, worker_info

PATIENCE = 20.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[MetricsSite]:
    site = MetricsSite(tmp_path)
    with closing(site.app):
        yield site


# What is not known ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("away", "kept"), [("broker", "storage"), ("storage", "broker")])
def test_what_is_away_is_down_and_left_out_and_the_other_shown(tmp_path: Path, away: str, kept: str) -> None:
    (tmp_path / "jobqueue.toml").write_text(f'[{kept}]\nurl = "sqlite:///here.db"\n[{away}]\nurl = "sqlite:///no/such/folder/jobqueue.db"\n')
    app = App.from_config(tmp_path / "jobqueue.toml", environ={})
    with closing(app):
        metrics = scraped(Exposition(app))
    prefixes = {"broker": OF_BROKER, "storage": OF_STORAGE}
    assert (metrics(f"jobqueue_{away}_up"), metrics(f"jobqueue_{kept}_up")) == (0, 1)
    assert metrics.names_of(prefixes[away]) == set()
    assert metrics.names_of(prefixes[kept])
    # By whose clock would it be?
    assert "jobqueue_schedule_lag_seconds" not in metrics.names


def test_without_both_there_is_still_an_answer(tmp_path: Path) -> None:
    nowhere = "sqlite:///no/such/folder/jobqueue.db"
    (tmp_path / "jobqueue.toml").write_text(f'[broker]\nurl = "{nowhere}"\n[storage]\nurl = "{nowhere}"\n')
    app = App.from_config(tmp_path / "jobqueue.toml", environ={})
    metrics = scraped(Exposition(app))
    assert metrics.names == {"jobqueue_build_info", "jobqueue_broker_up", "jobqueue_storage_up"}
    assert (metrics("jobqueue_broker_up"), metrics("jobqueue_storage_up")) == (0, 0)


def test_what_comes_back_is_shown_again(site: MetricsSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(site.broker, "workers", lambda: fail(BrokerUnavailable("gone")))
        patch.setattr(site.storage, "count_dead_letters", lambda _wanted: fail(StorageUnavailable("gone")))
        away = site.scrape()
        assert (away("jobqueue_broker_up"), away("jobqueue_storage_up")) == (0, 0)
        # Part of it was known: all or nothing, so that no two figures are of different times.
        assert away.names_of(OF_BROKER + OF_STORAGE) == set()
    back = site.scrape()
    assert (back("jobqueue_broker_up"), back("jobqueue_storage_up")) == (1, 1)
    assert "jobqueue_dead_letters_open" in back.names


def test_a_storage_that_plays_only_some_roles_is_up_and_shows_what_it_has(site: MetricsSite) -> None:
    part: Any = SimpleNamespace(count_dead_letters=lambda _wanted: 4)
    site.app._storage = part
    metrics = site.scrape()
    assert metrics("jobqueue_storage_up") == 1
    assert metrics.names_of(OF_STORAGE) == {"jobqueue_dead_letters_open"}
    assert {labels["kind"] for labels in metrics.labels("jobqueue_omitted")} == {"queue", "worker"}
    site.app._storage = site.storage


class Hanging:
    """A broker that does not answer until it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.go = threading.Event()

    def queues(self) -> Any:
        self.calls += 1
        assert self.go.wait(PATIENCE)
        raise BrokerUnavailable("too late")


def test_one_thread_waits_for_a_broker_that_hangs_however_many_scrape_and_nobody_waits_for_long(site: MetricsSite) -> None:
    hanging: Any = Hanging()
    site.app._broker = hanging
    exposition = Exposition(site.app, patience=timedelta(seconds=1))
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = [answer.result(timeout=PATIENCE) for answer in [pool.submit(scraped, exposition) for _ in range(8)]]
    assert time.monotonic() - began < 5
    for metrics in answers:
        assert (metrics("jobqueue_broker_up"), metrics("jobqueue_storage_up")) == (0, 1)
    assert hanging.calls == 1
    hanging.go.set()
    site.app._broker = site.broker
    deadline = time.monotonic() + PATIENCE
    while scraped(exposition)("jobqueue_broker_up") == 0:
        assert time.monotonic() < deadline


def test_scrapes_at_once_each_answer_in_full(site: MetricsSite) -> None:
    site.queue.enqueue("t", queue="mail")
    with ThreadPoolExecutor(8) as pool:
        answers = [answer.result(timeout=PATIENCE) for answer in [pool.submit(site.scrape) for _ in range(32)]]
    assert {answer("jobqueue_queue_jobs", queue="mail", priority="medium") for answer in answers} == {1}
    assert len({frozenset(answer.names) for answer in answers}) == 1


def test_an_error_that_nobody_foresaw_is_not_taken_for_a_broker_that_is_away(site: MetricsSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.broker, "workers", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        site.scrape()


# Bounds --------------------------------------------------------------------------------------------------------------------------------


def test_of_too_many_queues_the_busiest_are_shown_and_the_others_counted(site: MetricsSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.queue.enqueue("t")
    (template,) = site.broker.queues()
    many = [attrs.evolve(template, name=f"q{number:05}", enqueued=number) for number in range(10_000)]
    monkeypatch.setattr(site.broker, "queues", lambda: many)
    metrics = site.scrape()
    assert {labels["queue"] for labels in metrics.labels("jobqueue_queue_jobs")} == {f"q{number:05}" for number in range(9_000, 10_000)}
    assert metrics("jobqueue_omitted", kind="queue") == 9_000
    # The sum knows them all.
    assert metrics("jobqueue_jobs", state="waiting") == 10_000


def test_of_too_many_types_the_largest_are_shown_and_the_others_counted(site: MetricsSite) -> None:
    assert site.scrape()("jobqueue_omitted", kind="type") == 0
    rows = [execution(type=f"type.{number:04}") for number in range(1_200)] + [execution(type=f"type.{number:04}") for number in range(900, 1_200)]
    site.storage.record_executions(rows, record="none")
    metrics = site.scrape()
    shown = {labels["type"] for labels in metrics.labels("jobqueue_executions_total")}
    assert len(shown) == 1_000
    assert shown >= {f"type.{number:04}" for number in range(900, 1_200)}
    assert metrics("jobqueue_omitted", kind="type") == 200


def test_however_much_there_is_no_answer_has_more_than_45_000_series(site: MetricsSite) -> None:
    site.queue.enqueue("t")
    (template,) = site.broker.queues()
    queues = [attrs.evolve(template, name=f"q{number}") for number in range(3_000)]
    workers = [worker_info(f"w{number}", host=f"h{number}") for number in range(3_000)]
    totals = TypeTotals(counts=dict.fromkeys(ExecutionState, 1), durations=Histogram(dict.fromkeys(range(270), 1), total_ms=1.0))
    types = ExecutionTotals(types=10_000, by_type={f"t{number}": totals for number in range(1_000)})
    families = list(
        Families(namespace="", broker="redis", storage="postgres").of(
            BrokerFacts(now=NOON, queues=queues, workers=workers, outbox=OutboxLag()),
            StorageFacts(totals=types, dead_letters=0, schedules=None),
        )
    )
    assert 40_000 < sum(len(family.samples) for family in families) <= 45_000
    (omitted,) = (family for family in families if family.name == "jobqueue_omitted")
    assert {sample.labels["kind"]: sample.value for sample in omitted.samples} == {"queue": 2_000, "worker": 2_000, "type": 9_000}


# Over HTTP -----------------------------------------------------------------------------------------------------------------------------


def test_a_scrape_needs_a_key_that_may_read(tmp_path: Path) -> None:
    site = ApiSite(tmp_path)
    site.queue.enqueue("t", queue="mail")
    assert [site.client(role).simulate_get("/metrics").status_code for role in (None, "read")] == [401, 200]
    answer = site.client("read").simulate_get("/metrics", headers={"Accept-Encoding": "gzip"})
    assert (answer.headers["Content-Type"], answer.headers["Content-Encoding"]) == ("text/plain; version=0.0.4; charset=utf-8", "gzip")
    assert Metrics(read_text(gzip.decompress(answer.content).decode()))("jobqueue_queue_jobs", queue="mail", priority="medium") == 1
    as_prometheus = site.client("read").simulate_get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert as_prometheus.text.endswith("# EOF\n")


def test_a_scrape_is_answered_while_the_broker_is_away(tmp_path: Path) -> None:
    answer = ApiSite(tmp_path, overrides={"broker.url": f"sqlite:///{tmp_path}/no/such/folder.db"}).client("read").simulate_get("/metrics")
    metrics = Metrics(read_text(answer.text))
    assert (answer.status_code, metrics("jobqueue_broker_up"), metrics("jobqueue_storage_up")) == (200, 0, 1)


# Format --------------------------------------------------------------------------------------------------------------------------------


def filled(site: MetricsSite) -> None:
    """Something of every kind."""
    site.queue.enqueue("t", queue="mail")
    site.broker.beat(worker_info(started_at=site.clock(), name='quo"te\\ and\nline', host="ü"))
    site.storage.record_executions([execution()], record="all")


def test_names_and_types_follow_the_conventions(site: MetricsSite) -> None:
    filled(site)
    for family in site.scrape().families:
        assert family.name.startswith("jobqueue_")
        assert family.documentation.endswith(".")
        assert family.type in ("gauge", "counter", "histogram")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
        assert not family.name.endswith(("_ms", "_count", "_sum"))


def test_whatever_a_worker_is_called_can_be_read_back(site: MetricsSite) -> None:
    filled(site)
    assert site.scrape().labels("jobqueue_worker_running") == [{"name": 'quo"te\\ and\nline', "host": "ü", "version": "1.0"}]


def test_the_release_and_the_plugins_are_named(site: MetricsSite) -> None:
    assert site.scrape()("jobqueue_build_info", version=__version__, broker="sqlite", storage="sqlite") == 1


def test_without_a_namespace_no_series_has_that_label(site: MetricsSite) -> None:
    filled(site)
    assert [labels for _, labels in site.scrape().samples if "namespace" in dict(labels)] == []


def test_every_series_says_in_which_namespace_it_is(site: MetricsSite) -> None:
    filled(site)
    plain = site.scrape().samples
    site.app.settings = attrs.evolve(site.app.settings, run=attrs.evolve(site.app.settings.run, namespace="blue"))
    named = scraped(Exposition(site.app)).samples
    assert named == {(name, labels | {("namespace", "blue")}): value for (name, labels), value in plain.items()}


def test_who_prefers_openmetrics_gets_it_with_the_same_figures(site: MetricsSite) -> None:
    filled(site)
    accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    scrape = site.exposition.scrape(accept, None)
    assert scrape.content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    text = scrape.data.decode()
    assert text.endswith("# EOF\n")
    assert Metrics(read_openmetrics(text)).samples == site.scrape().samples
    assert "# UNIT jobqueue_execution_duration_seconds seconds\n" in text


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "text/html",
        "text/plain;version=0.0.4",
        "application/openmetrics-text; version=abc",
        "application/openmetrics-text; version=1.x",
    ],
)
def test_whoever_does_not_gets_text(site: MetricsSite, accept: str | None) -> None:
    scrape = site.exposition.scrape(accept, None)
    assert scrape.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert Metrics(read_text(scrape.data.decode()))("jobqueue_broker_up") == 1


def test_who_takes_gzip_gets_the_same_compressed(site: MetricsSite) -> None:
    filled(site)
    plain, packed = site.exposition.scrape(None, "identity"), site.exposition.scrape(None, "deflate, gzip;q=1.0")
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert len(packed.data) < len(plain.data) / 3
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept, Accept-Encoding"
