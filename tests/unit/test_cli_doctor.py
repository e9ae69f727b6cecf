"""``jobqueue doctor``: each thing that can be wrong is found, and what cannot be looked at is not guessed at."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from jobqueue_cli import checks
from jobqueue_cli.plugin import jobqueue_commands
from jobqueue_cli.root import Root
from jobqueue_cli.session import Cli
from jobqueue_core import BrokerUnavailable, StorageUnavailable
from jobqueue_core.app import App
from jobqueue_core.broker import OutboxLag
from jobqueue_core.checks import Check, Finding
from jobqueue_core.errors import PluginError
from jobqueue_core.testing.factories import died, release, worker_info

Run = Callable[..., Result]


class _Kept(App):
    """Each command closes the app it was given; a test looks at it afterwards."""

    def close(self) -> None:
        pass


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    (tmp_path / "jobqueue.toml").write_text("")
    app = _Kept.from_config(tmp_path / "jobqueue.toml", environ={})
    yield app
    App.close(app)


@pytest.fixture
def run(app: App) -> Run:
    def run(*arguments: str) -> Result:
        root = Root({one.name: one for one in jobqueue_commands()}, cli=Cli(open_app=lambda _path: app))
        return CliRunner().invoke(root, ["doctor", "--json", *arguments], prog_name="jobqueue")

    return run


@pytest.fixture
def findings(run: Run) -> Callable[..., dict[str, list[dict[str, Any]]]]:
    """What the doctor finds, by check; and that its exit status fits."""

    def findings(*arguments: str) -> dict[str, list[dict[str, Any]]]:
        result = run(*arguments)
        found: dict[str, list[dict[str, Any]]] = {}
        for one in json.loads(result.stdout):
            found.setdefault(one["check"], []).append(one)
        assert result.exit_code == any(one["level"] == "error" for some in found.values() for one in some)
        return found

    return findings


def test_a_sound_installation_with_a_worker_has_nothing_wrong(findings: Any, app: App) -> None:
    app.broker.beat(worker_info())
    found = findings()
    assert {"settings", "plugins", "handlers", "broker", "storage", "clock", "workers", "queues", "types", "outbox"} <= set(found)
    assert [one for some in found.values() for one in some if one["level"] != "ok"] == []


def test_no_worker_is_a_warning(findings: Any) -> None:
    assert findings()["workers"][0]["level"] == "warning"


def test_workers_of_different_releases_are_a_warning(findings: Any, app: App) -> None:
    for number in ("1", "2"):
        app.broker.beat(worker_info(f"w-{number}", version=number))
    assert "different releases are running: 1, 2" in findings()["workers"][1]["text"]


@pytest.mark.parametrize(("queues", "level"), [(("default",), "error"), (("default", "mail"), "ok"), (("default", "*"), "ok")])
def test_a_queue_with_jobs_that_no_worker_serves_is_an_error(findings: Any, app: App, queues: tuple[str, ...], level: str) -> None:
    app.queue.enqueue("a", queue="mail")
    app.broker.beat(worker_info(queues=queues))
    assert findings()["queues"][0]["level"] == level


def test_a_paused_queue_is_a_warning_with_the_command_that_ends_it(findings: Any, app: App) -> None:
    app.broker.pause("mail")
    (finding,) = findings()["queues"]
    assert (finding["level"], finding["remedy"]) == ("warning", "jobqueue queue resume mail")


def test_a_type_without_a_handler_is_an_error(findings: Any, app: App) -> None:
    app.queue.enqueue("nobody.knows")
    (lease,) = app.broker.lease(["default"], 1, worker_id="w", lease_for=timedelta(seconds=30), wait=timedelta(0), suspects=1)
    app.broker.release([release(lease, delay=timedelta(minutes=1), unknown_type=True)], worker_id="w")
    (finding,) = findings()["types"]
    assert (finding["level"], finding["text"]) == ("error", "no worker has a handler for type 'nobody.knows': 1 job waiting for one")


def test_a_broker_that_is_away_is_one_error_and_nothing_is_asked_of_it_again(findings: Any, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def now() -> None:
        asked.append("now")
        raise BrokerUnavailable("no answer from redis://h", maybe_accepted=False)

    monkeypatch.setattr(app.broker, "now", now)
    found = findings()
    assert [one["text"] for one in found["broker"]] == ["no answer from redis://h"]
    assert not {"clock", "workers", "queues", "types", "outbox"} & set(found)
    assert asked == ["now"]


def test_a_broker_without_its_driver_is_an_error_that_names_the_extra(findings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error = PluginError("pip install 'jobqueue[redis]'", plugin="redis")
    monkeypatch.setattr(App, "broker", property(lambda _self: (_ for _ in ()).throw(error)))
    assert "jobqueue[redis]" in findings()["broker"][0]["text"]


def test_a_storage_that_is_away_is_an_error(findings: Any, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_wanted: object) -> int:
        raise StorageUnavailable("no answer")

    monkeypatch.setattr(app.storage, "count_dead_letters", away)
    assert findings()["storage"][0]["level"] == "error"


@pytest.mark.parametrize(("skew", "words"), [(timedelta(minutes=5), "behind"), (timedelta(minutes=-5), "ahead of")])
def test_clocks_that_differ_are_a_warning(findings: Any, app: App, monkeypatch: pytest.MonkeyPatch, skew: timedelta, words: str) -> None:
    now = app.broker.now
    monkeypatch.setattr(app.broker, "now", lambda: now() + skew)
    (finding,) = findings()["clock"]
    assert finding["level"] == "warning"
    assert f"{words} the broker's" in finding["text"]


def test_an_outbox_that_waits_is_a_warning_and_fix_records_it(findings: Any, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    job = app.queue.enqueue("a")
    (lease,) = app.broker.lease(["default"], 1, worker_id="w", lease_for=timedelta(seconds=30), wait=timedelta(0), suspects=1)
    app.broker.settle([died(lease)], worker_id="w")
    lag = app.broker.outbox_lag
    monkeypatch.setattr(app.broker, "outbox_lag", lambda: attrs.evolve(lag(), oldest_age=timedelta(minutes=2)))
    (finding,) = findings()["outbox"]
    assert finding["level"] == "warning"
    assert "1 execution and 1 dead letter wait for storage, the oldest for 2m" in finding["text"]
    assert app.storage.dead_letter(job.id) is None
    (finding,) = findings("--fix")["outbox"]
    assert finding["fixed"] is True
    assert app.storage.dead_letter(job.id) is not None


def test_dropped_history_is_a_warning(findings: Any, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.broker, "outbox_lag", lambda: OutboxLag(dropped=7))
    assert [one["text"] for one in findings()["outbox"]] == ["7 executions dropped because more than [history] max_pending waited"]


def test_a_broken_plugin_is_a_warning_and_a_broken_handler_package_an_error(findings: Any, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(app.plugins), "faults", property(lambda _self: ("plugin 'x': is broken",)))
    app.__dict__["registry"] = app.registry
    app.handler_faults.append(PluginError("is broken", plugin="handlers"))
    found = findings()
    assert [one["level"] for one in found["plugins"]] == ["warning"]
    assert [one["level"] for one in found["handlers"]] == ["error"]


def test_warnings_about_settings_are_passed_on(findings: Any, app: App) -> None:
    app.settings = attrs.evolve(app.settings, warnings=("REDIS_URL is ignored",))
    result = CliRunner().invoke(
        Root({one.name: one for one in jobqueue_commands()}, cli=Cli(open_app=lambda _path: app)), ["doctor", "--json"], prog_name="jobqueue"
    )
    assert result.stderr == "warning: REDIS_URL is ignored\n"
    assert [one["text"] for one in json.loads(result.stdout) if one["check"] == "settings"] == ["REDIS_URL is ignored"]


def test_a_check_of_another_plugin_that_raises_is_a_finding(findings: Any, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_app: App, _fix: bool) -> list[Finding]:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(app.plugins, "checks", lambda _settings: [Check(name="outside", run=broken)])
    assert findings()["outside"][0]["text"] == "the check itself broke: ZeroDivisionError: a bug"


@pytest.mark.parametrize("fix", [True, False])
def test_a_check_of_another_plugin_is_told_whether_to_fix(findings: Any, app: App, monkeypatch: pytest.MonkeyPatch, fix: bool) -> None:
    def run(_app: App, fix: bool) -> list[Finding]:
        return [Finding(level="error" if not fix else "ok", text="x", fixed=fix)]

    monkeypatch.setattr(app.plugins, "checks", lambda _settings: [Check(name="outside", run=run)])
    assert findings(*(["--fix"] if fix else []))["outside"][0]["fixed"] is fix


HERE = socket.gethostname()
PROBES = pytest.mark.parametrize("words", [("--worker",), ("--worker", "--live")], ids=["ready", "live"])


@PROBES
@pytest.mark.parametrize(("host", "status"), [(None, 1), ("another-host", 1), (HERE, 0)], ids=["none", "elsewhere", "here"])
def test_a_probe_succeeds_only_when_a_worker_of_this_host_lives(run: Run, app: App, words: tuple[str, ...], host: str | None, status: int) -> None:
    if host is not None:
        app.broker.beat(worker_info(host=host))
    result = run(*words)
    assert result.exit_code == status
    assert {one["check"] for one in json.loads(result.stdout)} == {"worker"}


@PROBES
def test_a_probe_wants_as_many_workers_as_processes_are_configured(findings: Any, app: App, words: tuple[str, ...]) -> None:
    app.settings = attrs.evolve(app.settings, worker=attrs.evolve(app.settings.worker, processes=3))
    for number in (1, 2):
        app.broker.beat(worker_info(f"w-{number}", host=HERE))
    texts = [one["text"] for one in findings(*words)["worker"] if one["level"] == "error"]
    assert len(texts) == 1
    assert f"only 2 of the 3 workers of host {HERE}" in texts[0]
    app.broker.beat(worker_info("w-3", host=HERE))
    assert {one["level"] for one in findings(*words)["worker"]} == {"ok"}


def test_a_worker_that_is_stopping_is_not_ready_but_alive(run: Run, app: App) -> None:
    app.broker.beat(worker_info(host=HERE, stopping=True))
    assert (run("--worker").exit_code, run("--worker", "--live").exit_code) == (1, 0)


def test_a_broker_that_is_away_makes_workers_not_ready_but_is_no_reason_to_kill_them(
    findings: Any, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise BrokerUnavailable("no answer from redis://h", maybe_accepted=False)

    monkeypatch.setattr(app.broker, "workers", away)
    assert [one["level"] for one in findings("--worker")["worker"]] == ["error"]
    (finding,) = findings("--worker", "--live")["worker"]
    assert (finding["level"], finding["text"]) == ("warning", "whether workers live cannot be told: no answer from redis://h")


@PROBES
def test_a_probe_opens_no_storage_and_imports_no_handler(run: Run, app: App, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    app.broker.beat(worker_info(host=HERE))
    for part in ("storage", "registry"):
        monkeypatch.setattr(App, part, property(lambda _self: pytest.fail("is of no concern")))
    assert run(*words).exit_code == 0


def test_live_without_worker_is_wrong_usage(run: Run) -> None:
    result = run("--live")
    assert (result.exit_code, "--worker" in result.stderr) == (2, True)


def test_the_built_in_checks_are_offered_by_the_hook(app: App) -> None:
    names = [check.name for check in app.plugins.checks(app.settings)]
    assert [check.name for check in checks.Examination(app.settings).checks()] == [
        name for name in names if not name.startswith(("api", "schedules", "sqlite"))
    ]
