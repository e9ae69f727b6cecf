"""The hook ``jobqueue_timetables``: which plugin reads an expression, and what is said when none can."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from schedule_scene import NOON, SECOND, Scene

from jobqueue_core import ConfigError, JobQueue, PluginError, hookimpl
from jobqueue_core.app import App
from jobqueue_core.errors import InvalidSchedule
from jobqueue_core.plugins import Plugins
from jobqueue_core.scheduling.ticks import Ticks
from jobqueue_core.settings import load_settings
from jobqueue_core.timetable import Timetable, TimetablePlugin, Timetables


@attrs.frozen
class Every:
    """Due at each multiple of some seconds, and remembers what it was made of."""

    text: str
    timezone: str
    seconds: int = 10

    def after(self, moment: datetime) -> datetime | None:
        return datetime.fromtimestamp((int(moment.timestamp()) // self.seconds + 1) * self.seconds, UTC)

    def before(self, moment: datetime) -> datetime | None:
        return datetime.fromtimestamp(int(moment.timestamp()) // self.seconds * self.seconds, UTC)


def offering(*names: str, read: Callable[[str, str], Timetable] = Every) -> object:
    """A plugin that offers languages."""

    class Plugin:
        @hookimpl
        def jobqueue_timetables(self) -> list[TimetablePlugin]:
            return [TimetablePlugin(name=name, read=read) for name in names]

    return Plugin()


def timetables(**plugins: object) -> Timetables:
    """What these plugins read."""
    return Timetables(Plugins.load(extra=list(plugins.items()), installed=False).timetables())


def tagged(tag: str) -> Callable[[str, str], Timetable]:
    return lambda text, timezone: Every(f"{tag}|{text}", timezone)


@pytest.mark.parametrize(
    ("expression", "read_as"),
    [
        ("0 3 * * *", "cron|0 3 * * *"),
        ("cron: 0 3 * * *", "cron|0 3 * * *"),
        ("@daily", "cron|@daily"),
        ("solar: sunset", "solar|sunset"),
        ("solar:sunset", "solar|sunset"),
        ("  solar :  sunset +5  ", "solar|sunset +5"),
        ("solar: a: b", "solar|a: b"),
        ("solar:", "solar|"),
        ("lunar: full", "lunar|full"),
        ("0 3 * * * solar: x", "cron|0 3 * * * solar: x"),
        (": x", "cron|: x"),
        ("", "cron|"),
    ],
)
def test_the_plugin_that_an_expression_names_reads_it_and_cron_reads_the_rest(expression: str, read_as: str) -> None:
    some = timetables(a=offering("cron", read=tagged("cron")), b=offering("solar", read=tagged("solar")), c=offering("lunar", read=tagged("lunar")))
    assert some.read(expression, "Europe/Berlin") == Every(read_as, "Europe/Berlin")


@pytest.mark.parametrize("expression", ["solarium: x", "Solar: x"])
def test_a_language_that_nobody_reads_is_named_beside_those_that_there_are(expression: str) -> None:
    some = timetables(a=offering("cron", read=tagged("cron")), b=offering("solar", read=tagged("solar")))
    with pytest.raises(InvalidSchedule, match=rf"reads expressions of '{expression.partition(':')[0]}'; installed: cron, solar") as caught:
        some.read(expression, "UTC")
    assert caught.value.field == "expression"


@pytest.mark.parametrize("plugins", [{}, {"b": offering("solar")}], ids=["none", "another"])
def test_without_one_that_reads_cron_the_extra_to_install_is_named(plugins: dict[str, object]) -> None:
    with pytest.raises(PluginError, match=r"pip install 'jobqueue\[cron\]'"):
        timetables(**plugins).read("0 3 * * *", "UTC")


def test_another_language_is_read_without_cron() -> None:
    assert timetables(b=offering("solar")).read("solar: x", "UTC") == Every("x", "UTC")


@pytest.fixture
def no_croniter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed, and nothing that needs it imported yet."""
    monkeypatch.setitem(sys.modules, "croniter", None)
    for name in ("timetable", "expression"):
        monkeypatch.delitem(sys.modules, f"jobqueue_cron.{name}", raising=False)


@pytest.mark.usefixtures("no_croniter")
def test_the_bundled_plugin_without_its_dependency_names_the_extra() -> None:
    plugins = Plugins.load()
    assert [fault for fault in plugins.faults if "cron" in str(fault)] == []
    with pytest.raises(PluginError, match=r"plugin 'cron': .*pip install 'jobqueue\[cron\]'"):
        Timetables(plugins.timetables()).read("0 3 * * *", "UTC")


@pytest.mark.usefixtures("no_croniter")
def test_a_config_file_with_schedules_says_so_too(tmp_path: Path) -> None:
    path = tmp_path / "jobqueue.toml"
    path.write_text("[[cron]]\nname = 'a'\nexpression = '@daily'\ntype = 't'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cron\[0\]\.expression.*jobqueue\[cron\]"):
        load_settings(path, environ={}, overrides=None, plugins=Plugins.load())
    path.write_text("[worker]\nconcurrency = 3\n", encoding="utf-8")
    assert load_settings(path, environ={}, overrides=None, plugins=Plugins.load()).section("cron") == []


# Start and end -------------------------------------------------------------------------------------------------------------------------


def test_the_ticks_of_a_schedule_are_those_of_its_timetable_from_start_to_end() -> None:
    at = [NOON + seconds * SECOND for seconds in range(0, 70, 10)]
    ticks = Ticks(Every("", "UTC"), start=at[2], end=at[4])
    assert [ticks.after(moment) for moment in (NOON - SECOND, at[1], at[2], at[3], at[4])] == [at[2], at[2], at[3], at[4], None]
    assert [ticks.before(moment) for moment in (at[6], at[4], at[3], at[2], at[2] - SECOND, NOON)] == [at[4], at[4], at[3], at[2], None, None]
    assert list(ticks.from_to(NOON, at[6])) == at[2:5]
    assert list(ticks.from_to(at[3], at[3])) == [at[3]]
    assert ticks.latest(2, since=NOON, until=at[6]) == at[3:5]
    assert ticks.latest(9, since=at[3], until=at[3]) == [at[3]]
    assert ticks.latest(9, since=NOON, until=at[1]) == []


# Wrong answers -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [[3], ["solar"], [Every("x", "UTC")], [TimetablePlugin], [None], None, 5], ids=repr)
def test_a_wrong_answer_is_the_plugins_fault_and_the_others_count(answer: Any) -> None:
    class Wrong:
        @hookimpl
        def jobqueue_timetables(self) -> Any:
            return answer

    plugins = Plugins.load(extra=[("wrong", Wrong()), ("good", offering("solar"))], installed=False)
    assert set(plugins.timetables()) == {"solar"}
    assert [str(fault) for fault in plugins.faults if fault.origin.name == "wrong" and "jobqueue_timetables" in fault.cause] != []


def test_a_language_that_two_plugins_offer_is_read_by_neither_and_both_are_named() -> None:
    plugins = Plugins.load(extra=[("one", offering("solar", "own")), ("two", offering("solar"))], installed=False)
    assert set(plugins.timetables()) == {"own"}
    said = [str(fault) for fault in plugins.faults]
    assert len(said) == 2
    assert all("timetable 'solar'" in one and "'one'" in one and "'two'" in one for one in said)


def test_a_disabled_plugin_reads_nothing() -> None:
    plugins = Plugins.load(extra=[("one", offering("solar")), ("two", offering("solar"))], installed=False)
    plugins.disable(["one"])
    assert Timetables(plugins.timetables()).read("solar: x", "UTC") == Every("x", "UTC")


# In use --------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "jobqueue.db")
    with scene.queue:
        yield scene


def test_a_queue_of_ones_own_reads_with_what_is_installed(scene: Scene) -> None:
    with_installed = JobQueue(scene.broker, scene.storage)
    assert with_installed.timetables.read("0 13 * * *", "UTC").after(NOON) == NOON + timedelta(hours=1)
    assert with_installed.timetables is with_installed.timetables


def test_an_app_reads_with_its_own_plugins(tmp_path: Path) -> None:
    plugins = Plugins.load(extra=[("stars", offering("solar"))])
    settings = load_settings(None, environ={}, overrides={"broker.url": f"sqlite:///{tmp_path}/a.db"}, plugins=plugins)
    with App(settings, plugins) as app:
        assert app.queue.timetables.read("solar: x", "UTC") == Every("x", "UTC")


def test_a_schedule_in_another_language_is_added_listed_and_fired(scene: Scene) -> None:
    some = timetables(cron=offering("cron", read=tagged("cron")), stars=offering("solar"))
    queue = JobQueue(scene.broker, scene.storage, timetables=some)
    added = queue.schedules.add("evening", "solar: sunset", "t", timezone="Mars/Olympus")
    assert (added.expression, added.timezone, added.next_run) == ("solar: sunset", "Mars/Olympus", NOON + 10 * SECOND)
    assert queue.schedules.preview("solar: sunset", count=2) == [NOON + 10 * SECOND, NOON + 20 * SECOND]
    scene.pass_time(25 * SECOND, ticker=scene.ticker(timetables=some))
    assert scene.ticks("evening") == [NOON + 10 * SECOND, NOON + 20 * SECOND]


@pytest.mark.parametrize("field", ["expression", "timezone"])
def test_what_a_plugin_refuses_is_refused_with_its_words(scene: Scene, field: str) -> None:
    def read(text: str, timezone: str) -> Timetable:
        raise InvalidSchedule(field, "no sun there")

    queue = JobQueue(scene.broker, scene.storage, timetables=timetables(stars=offering("solar", read=read)))
    with pytest.raises(InvalidSchedule, match="no sun there") as caught:
        queue.schedules.add("evening", "solar: sunset", "t")
    assert caught.value.field == field
    assert scene.schedules.all() == []


def test_a_schedule_that_no_plugin_reads_any_more_waits_for_one_that_does(scene: Scene) -> None:
    with_stars = timetables(cron=offering("cron"), stars=offering("solar"))
    JobQueue(scene.broker, scene.storage, timetables=with_stars).schedules.add("evening", "solar: sunset", "t")
    scene.add("other")
    scene.pass_time(12 * SECOND, ticker=scene.ticker())
    assert (scene.ticks("evening"), len(scene.ticks("other"))) == ([], 12)
    scene.turn(scene.ticker(timetables=with_stars))
    assert scene.ticks("evening") == [NOON + 10 * SECOND]


def test_a_config_file_in_a_language_that_is_missing_leaves_the_schedule_as_it_was(scene: Scene) -> None:
    with_stars = timetables(cron=offering("cron"), stars=offering("solar"))
    declared = {"evening": {"expression": "solar: sunset", "type": "t"}}
    scene.turn(scene.ticker(timetables=with_stars, declared=declared))
    before = scene.schedules.get("evening")
    scene.turn(scene.ticker(timetables=timetables(), declared={"evening": {"expression": "solar: noon", "type": "t"}}))
    assert scene.schedules.get("evening") == before
