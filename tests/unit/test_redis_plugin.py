"""The plugin ``redis``: what it offers, and what it says where its driver is missing."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from jobqueue_core.errors import ConfigError, PluginError
from jobqueue_core.plugins import Plugins
from jobqueue_core.settings import Settings, load_settings
from jobqueue_redis.plugin import jobqueue_brokers, jobqueue_checks


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "jobqueue.toml"
    file.write_text(
        """
        [run]
        namespace = "mine"
        [broker]
        plugin = "redis"
        url = "redis://h:1/2"
        allow_eviction = true
        wait_replicas = 3
        [job]
        result_ttl = "5m"
        [history]
        max_pending = 7
        """
    )
    return load_settings(file, environ={}, plugins=Plugins.load())


def test_the_broker_is_opened_with_what_the_settings_say(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue_redis.broker.RedisBroker", lambda url, **options: (url, options))
    (plugin,) = jobqueue_brokers()
    expected = {"namespace": "mine", "result_ttl": timedelta(minutes=5), "max_pending": 7, "allow_eviction": True, "wait_replicas": 3}
    assert plugin.open(settings) == ("redis://h:1/2", expected)


@pytest.mark.parametrize("installed", [None, "5.2.1", "7.0"])
def test_a_missing_or_old_driver_is_named_with_what_to_install(installed: str | None, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr("jobqueue_redis.plugin.version", version)
    (plugin,) = jobqueue_brokers()
    with pytest.raises(PluginError, match=r"pip install 'jobqueue\[redis\]'"):
        plugin.open(settings)
    assert list(jobqueue_checks(settings)) == []


def test_its_checks_are_offered_where_it_is_chosen(settings: Settings) -> None:
    assert list(jobqueue_checks(settings))
    assert list(jobqueue_checks(Settings())) == []


def test_loading_the_plugin_does_not_load_its_driver() -> None:
    program = "import sys, jobqueue_redis.plugin; print('redis' in sys.modules, 'hiredis' in sys.modules)"
    done: Any = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "url", ["redis://h/abc", "redis://h:99999", "redis://h?foo=1", "rediss://h?ssl_cert_reqs=maybe", "redis+sentinel://h:1", "unix://x"]
)
def test_a_url_that_cannot_work_is_refused_with_the_settings_before_anything_connects(tmp_path: Path, url: str) -> None:
    (tmp_path / "jobqueue.toml").write_text(f'[broker]\nplugin = "redis"\nurl = "{url}"\n')
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "jobqueue.toml", environ={}, plugins=Plugins.load())
    assert all("jobqueue.toml: broker.url" in problem for problem in caught.value.problems)
