"""Plugins: found, checked, and named when they are at fault; what they offer, and that docs/plugin-hooks.md tells the truth about the hooks."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import pytest

from jobqueue_core import ConfigError, PluginError, handler, hookimpl, hookspecs
from jobqueue_core.app import App
from jobqueue_core.broker import PROTOCOL, BrokerPlugin
from jobqueue_core.checks import Check
from jobqueue_core.observers import Observer
from jobqueue_core.plugins import Plugins
from jobqueue_core.plugins.inventory import inventory
from jobqueue_core.service import CommandPlugin, ServicePlugin
from jobqueue_core.settings import Settings, load_settings
from jobqueue_core.settings.sections import BrokerSection, RunSection, StorageSection
from jobqueue_core.storage import StoragePlugin
from jobqueue_core.testing import Harness

ROOT = Path(__file__).parents[2]
SETTINGS = Settings()


def broker(name: str, open_it: Callable[[Settings], object] = object) -> BrokerPlugin:
    return BrokerPlugin(name=name, open=open_it, default_url=f"{name}://", schemes=(name,))


class FakePlugin:
    """A plugin object whose attributes are its hook implementations."""

    def __init__(self, **hooks: object) -> None:
        vars(self).update(hooks)


def plugin(**hooks: Callable[..., object]) -> FakePlugin:
    """A plugin object with these hook implementations."""
    return FakePlugin(**{name: hookimpl(function) for name, function in hooks.items()})


def nothing() -> list[object]:
    return []


def nothing_either() -> list[object]:
    return []


def load(**plugins: object) -> Plugins:
    return Plugins.load(extra=list(plugins.items()), installed=False)


def causes(plugins: Plugins) -> list[str]:
    return [str(fault) for fault in plugins.faults]


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a distribution with one module and entry points of it, for the length of a test."""
    monkeypatch.syspath_prepend(tmp_path)
    modules: list[str] = []

    def install(name: str, module: str, source: str, *, group: str = "jobqueue.plugins", entry: str = "") -> None:
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = tmp_path / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry or module} = {module}\n", encoding="utf-8")

    yield install
    for module in modules:
        sys.modules.pop(module, None)


BROKER_MODULE = """
    from jobqueue_core import hookimpl
    from jobqueue_core.broker import BrokerPlugin

    @hookimpl
    def jobqueue_brokers():
        return [BrokerPlugin(name="acme", open=object, default_url="acme://", schemes=("acme",))]
"""


# Finding -------------------------------------------------------------------------------------------------------------------------------


def test_an_installed_plugin_is_found_with_its_distribution(distribution: Callable[..., None]) -> None:
    distribution("acme-queue", "acme_queue_plugin", BROKER_MODULE, entry="acme")
    plugins = Plugins.load()
    assert "acme" in plugins.brokers()
    origin = plugins.origin("broker", "acme")
    assert (origin.name, origin.distribution, origin.version) == ("acme", "acme-queue", "1.2")


@pytest.mark.parametrize("source", ["import a_driver_that_is_missing", "raise SystemExit(3)", "1 / 0", "def broken(:"])
def test_a_plugin_that_cannot_be_imported_is_a_fault_and_the_others_load(distribution: Callable[..., None], source: str) -> None:
    distribution("acme-queue", "acme_queue_plugin", BROKER_MODULE, entry="acme")
    distribution("bad-queue", "bad_queue_plugin", source, entry="bad")
    plugins = Plugins.load()
    assert "acme" in plugins.brokers()
    (fault,) = [fault for fault in plugins.faults if fault.origin.name == "bad"]
    assert str(fault).startswith("plugin 'bad' (bad-queue 1.2): it cannot be imported: ")
    assert type(fault.error).__name__ in fault.cause
    with pytest.raises(PluginError, match=r"plugin 'bad' \(from bad-queue 1.2\): it cannot be imported") as caught:
        plugins.broker("bad")
    assert caught.value.__cause__ is fault.error


def test_two_plugins_of_one_name_are_both_refused_naming_both_distributions(distribution: Callable[..., None]) -> None:
    distribution("acme-one", "acme_one_plugin", BROKER_MODULE, entry="acme")
    distribution("acme-two", "acme_two_plugin", BROKER_MODULE, entry="acme")
    plugins = Plugins.load()
    assert "acme" not in plugins.brokers()
    with pytest.raises(PluginError, match=r"taken more than once, by plugin 'acme' \(acme-one 1.2\) and plugin 'acme' \(acme-two 1.2\)"):
        plugins.broker("acme")


def test_no_plugin_can_take_the_name_of_the_core() -> None:
    plugins = load(core=plugin(jobqueue_brokers=lambda: [broker("a")]))
    assert plugins.brokers() == {}
    assert any("by the core itself and plugin 'core'" in cause for cause in causes(plugins))


# Checking ------------------------------------------------------------------------------------------------------------------------------


def test_a_misspelt_hook_is_a_fault_that_names_the_hook_meant() -> None:
    plugins = load(acme=plugin(jobqueue_broker=lambda: [broker("a")]))
    assert causes(plugins) == ["plugin 'acme': there is no hook 'jobqueue_broker'; did you mean 'jobqueue_brokers'?"]


def test_a_hook_that_is_not_marked_is_a_fault() -> None:
    plugins = load(acme=FakePlugin(jobqueue_brokers=lambda: [broker("a")]))
    assert causes(plugins) == ["plugin 'acme': jobqueue_brokers is not marked with @hookimpl"]


def test_a_plugin_without_any_hook_is_a_fault() -> None:
    assert causes(load(acme=ModuleType("acme"))) == ["plugin 'acme': it implements no hook (functions named as hooks and marked with @hookimpl)"]


def test_an_argument_that_the_hook_does_not_have_is_a_fault() -> None:
    (cause,) = causes(load(acme=plugin(jobqueue_brokers=lambda config: [broker("a")])))
    assert cause.startswith("plugin 'acme': ")
    assert "Argument(s) {'config'} are declared in the hookimpl but can not be found in the hookspec" in cause
    assert "\n" not in cause


def test_a_hook_wrapper_is_a_fault() -> None:
    def wrap() -> Iterator[None]:
        yield

    (cause,) = causes(load(acme=FakePlugin(jobqueue_brokers=hookimpl(wrapper=True)(wrap))))
    assert cause == "plugin 'acme': jobqueue_brokers is a hook wrapper, and each plugin is asked for itself: nothing is there to wrap"


def test_a_faulty_plugin_offers_nothing_at_all() -> None:
    plugins = load(acme=plugin(jobqueue_broker=nothing, jobqueue_storages=lambda: [StoragePlugin(name="a", open=object, schemes=("a",))]))
    assert plugins.storages() == {}


ANSWERS = {
    "jobqueue_settings": "a mapping of table names to attrs classes",
    "jobqueue_brokers": "BrokerPlugin objects",
    "jobqueue_storages": "StoragePlugin objects",
    "jobqueue_timetables": "TimetablePlugin objects",
    "jobqueue_services": "ServicePlugin objects",
    "jobqueue_commands": "CommandPlugin objects",
    "jobqueue_handlers": "modules or functions",
    "jobqueue_middleware": "functions",
    "jobqueue_observers": "Observer objects",
    "jobqueue_checks": "Check objects",
}


def ask_all(plugins: Plugins) -> None:
    for ask in (plugins.brokers, plugins.storages, plugins.timetables, plugins.services, plugins.commands, plugins.sections, plugins.handler_modules):
        ask()
    plugins.probe(SETTINGS)


@pytest.mark.parametrize(("hook", "expected"), ANSWERS.items())
def test_an_answer_of_the_wrong_kind_is_a_fault_and_the_other_plugins_count(hook: str, expected: str) -> None:
    plugins = load(acme=plugin(**{hook: lambda: [3]}), good=plugin(jobqueue_brokers=lambda: [broker("a")]))
    ask_all(plugins)
    assert causes(plugins) == [f"plugin 'acme': hook {hook} must return {expected}, and returned 3"]
    assert set(plugins.brokers()) == {"a"}


@pytest.mark.parametrize("hook", ANSWERS)
def test_a_hook_that_raises_is_a_fault_and_the_other_plugins_count(hook: str) -> None:
    def fail() -> None:
        message = "no\nluck"
        raise ValueError(message)

    plugins = load(acme=plugin(**{hook: fail}), good=plugin(jobqueue_brokers=lambda: [broker("a")]))
    ask_all(plugins)
    ask_all(plugins)
    assert causes(plugins) == [f"plugin 'acme': hook {hook} raised ValueError: no luck"]
    assert set(plugins.brokers()) == {"a"}


def test_every_hook_has_a_test_of_its_answers() -> None:
    assert set(ANSWERS) == {name for name in vars(hookspecs) if name.startswith("jobqueue_")}


# Choosing ------------------------------------------------------------------------------------------------------------------------------


def twice(hook: str, part: Callable[[], object]) -> Plugins:
    return load(one=plugin(**{hook: lambda: [part()]}), two=plugin(**{hook: lambda: [part()]}))


@pytest.mark.parametrize(
    ("kind", "plugins"),
    [
        ("broker", twice("jobqueue_brokers", lambda: broker("a"))),
        ("storage", twice("jobqueue_storages", lambda: StoragePlugin(name="a", open=object, schemes=("a",)))),
        ("role", twice("jobqueue_services", lambda: ServicePlugin(name="a", summary="", open=lambda app: app))),
        ("command", twice("jobqueue_commands", lambda: CommandPlugin(name="a", help="", target="a:b"))),
    ],
)
def test_a_name_that_two_plugins_offer_can_be_chosen_by_nobody(kind: str, plugins: Plugins) -> None:
    clash = f"the {kind} 'a' is offered more than once, by plugin 'one' and plugin 'two'; uninstall or disable all but one"
    choose = {"broker": plugins.broker, "storage": plugins.storage, "role": plugins.service, "command": plugins.command}[kind]
    with pytest.raises(PluginError, match=re.escape(clash)):
        choose("a")
    assert causes(plugins) == [f"plugin 'one': {clash}", f"plugin 'two': {clash}"]


def test_disabling_one_of_two_rivals_leaves_the_other() -> None:
    plugins = twice("jobqueue_brokers", lambda: broker("a"))
    plugins.disable(["one"])
    assert plugins.origin("broker", "a").name == "two"
    assert plugins.faults == ()


def test_a_table_that_two_plugins_offer_is_refused_only_where_it_is_used(tmp_path: Path) -> None:
    @attrs.frozen
    class Section:
        x: int = 1

    backend = plugin(
        jobqueue_brokers=lambda: [BrokerPlugin(name="sqlite", open=object, default_url="sqlite:///q.db", schemes=("sqlite",))],
        jobqueue_storages=lambda: [StoragePlugin(name="sqlite", open=object, default_url="sqlite:///q.db", schemes=("sqlite",))],
    )
    offer = {"jobqueue_settings": lambda: {"acme": Section}}
    plugins = load(backend=backend, one=plugin(**offer), two=plugin(**offer))
    assert load_settings(environ={}, plugins=plugins).worker.concurrency == 10
    path = tmp_path / "jobqueue.toml"
    path.write_text("[acme]\nx = 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="the section 'acme' is offered more than once, by plugin 'one' and plugin 'two'"):
        load_settings(path, environ={}, plugins=plugins)


def test_the_tables_of_the_core_are_reserved() -> None:
    plugins = load(acme=plugin(jobqueue_settings=lambda: {"worker": RunSection}))
    assert plugins.sections()["worker"] is not RunSection
    assert causes(plugins) == ["plugin 'acme': offers the section 'worker', which is the core's own"]


def test_choosing_what_is_not_installed_names_what_is_and_what_is_broken() -> None:
    plugins = load(acme=plugin(jobqueue_brokers=lambda: [broker("a"), broker("b")]), bad=ModuleType("bad"))
    with pytest.raises(PluginError, match=r"no installed plugin offers a broker of this name; installed: a, b; broken: plugin 'bad': it implements"):
        plugins.broker("c")


def test_opening_a_broker_of_another_protocol_names_the_plugin() -> None:
    plugins = load(acme=plugin(jobqueue_brokers=lambda: [broker("a", lambda settings: SimpleNamespace(PROTOCOL=2))]))
    with pytest.raises(PluginError, match=r"plugin 'acme': its broker 'a' implements protocol 2, and this jobqueue 1"):
        plugins.broker("a").open(SETTINGS)


def test_opening_a_broker_that_raises_names_the_plugin_and_keeps_the_cause() -> None:
    plugins = load(acme=plugin(jobqueue_brokers=lambda: [broker("a", lambda settings: {}["x"])]))
    with pytest.raises(PluginError, match=r"plugin 'acme': its broker 'a' cannot be opened: KeyError: 'x'") as caught:
        plugins.broker("a").open(SETTINGS)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_of_the_framework_passes_through_opening() -> None:
    def refuse(_settings: Settings) -> object:
        message = "install jobqueue[acme]"
        raise PluginError(message, plugin="acme")

    plugins = load(acme=plugin(jobqueue_brokers=lambda: [broker("a", refuse)]))
    with pytest.raises(PluginError, match=r"^plugin 'acme': install jobqueue\[acme\]$"):
        plugins.broker("a").open(SETTINGS)


def test_opening_gives_the_settings_and_returns_the_broker() -> None:
    opened = SimpleNamespace(PROTOCOL=PROTOCOL)
    seen: list[Settings] = []

    def open_it(settings: Settings) -> object:
        seen.append(settings)
        return opened

    plugins = load(acme=plugin(jobqueue_brokers=lambda: [broker("a", open_it)]))
    assert plugins.broker("a").open(SETTINGS) is opened
    assert seen == [SETTINGS]


# What is active ------------------------------------------------------------------------------------------------------------------------


async def outer(ctx: Any, call_next: Any) -> object:
    return await call_next(ctx)


async def inner(ctx: Any, call_next: Any) -> object:
    return await call_next(ctx)


async def third(ctx: Any, call_next: Any) -> object:
    return await call_next(ctx)


def test_middleware_comes_in_the_order_of_the_plugins_names_unless_it_asks_otherwise() -> None:
    a, b = plugin(jobqueue_middleware=lambda: [outer, third]), plugin(jobqueue_middleware=lambda: [inner])
    assert load(b=b, a=a).middleware(SETTINGS) == [outer, third, inner]
    first = FakePlugin(jobqueue_middleware=hookimpl(tryfirst=True)(lambda: [inner]))
    assert load(a=a, b=first).middleware(SETTINGS) == [inner, outer, third]


def layer(name: str) -> Callable[..., object]:
    async def wrap(ctx: Any, call_next: Any) -> object:
        return await call_next(ctx)

    wrap.__name__ = name
    return wrap


@pytest.mark.parametrize("installed", ["abcdef", "fedcba", "dacfbe"])
def test_the_order_of_middleware_does_not_depend_on_the_order_of_installation(installed: str) -> None:
    """Of several that want to be first, or last, the names decide as among the others."""
    wishes = {"c": {"tryfirst": True}, "e": {"tryfirst": True}, "a": {"trylast": True}, "d": {"trylast": True}}
    plugins = load(**{name: FakePlugin(jobqueue_middleware=hookimpl(**wishes.get(name, {}))(lambda name=name: [layer(name)])) for name in installed})
    assert [one.__name__ for one in plugins.middleware(SETTINGS)] == ["c", "e", "b", "f", "a", "d"]


def test_middleware_is_disabled_by_plugin_or_one_by_one() -> None:
    plugins = load(a=plugin(jobqueue_middleware=lambda: [outer, third]), b=plugin(jobqueue_middleware=lambda: [inner]))
    assert plugins.disable(["a.third"]) == []
    assert plugins.middleware(SETTINGS) == [outer, inner]
    plugins.disable(["a"])
    assert plugins.middleware(SETTINGS) == [inner]


def test_what_is_disabled_is_not_even_asked() -> None:
    asked: list[str] = []

    def offer(what: str) -> Callable[[], list[object]]:
        def hook() -> list[object]:
            asked.append(what)
            return []

        return hook

    hooks = ("jobqueue_middleware", "jobqueue_observers", "jobqueue_checks")
    plugins = load(a=plugin(**{hook: offer(hook) for hook in hooks}))
    plugins.disable(["a"])
    ask_all(plugins)
    plugins.middleware(SETTINGS)
    assert asked == []


def test_a_middleware_that_is_disabled_by_a_name_nobody_has_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    plugins = load(a=plugin(jobqueue_middleware=lambda: [outer]), b=plugin(jobqueue_middleware=lambda: [inner]))
    plugins.disable(["a.outer", "a.oter", "b", "b.inner"])
    assert plugins.middleware(SETTINGS) == []
    assert [record.getMessage() for record in caplog.records] == ["[plugins] disable: plugin 'a' offers no middleware 'a.oter'"]


def test_a_plugin_whose_name_has_a_dot_is_disabled_like_any_other() -> None:
    plugins = load(**{"a.b": plugin(jobqueue_middleware=lambda: [outer, third])})
    assert plugins.disable(["a.b.third"]) == []
    assert plugins.middleware(SETTINGS) == [outer]


MIDDLEWARE_MODULE = """
    from jobqueue_core import hookimpl

    {code}

    @hookimpl
    def jobqueue_middleware():
        return [tenant]
"""
MISFITS = {
    "def tenant(ctx, call_next): return call_next(ctx)": (
        "middleware 'tenant' is not asynchronous: write 'async def tenant(ctx, call_next)' and 'return await call_next(ctx)'"
    ),
    "async def tenant(ctx): ...": "middleware 'tenant' takes (ctx), and is called with (ctx, call_next)",
    "async def tenant(ctx, call_next, *, tag): ...": "middleware 'tenant' takes (ctx, call_next, *, tag), and is called with (ctx, call_next)",
    "async def tenant(ctx, call_next): yield": "middleware 'tenant' yields: it is to 'return await call_next(ctx)'",
    "class tenant: ...": (
        "<class 'acme_queue_plugin.tenant'> is no middleware: that is an async function of (ctx, call_next), or an object whose __call__ is one"
    ),
    "tenant = 3": "hook jobqueue_middleware must return functions, and returned 3",
}


@pytest.mark.parametrize("code", MISFITS)
def test_a_middleware_that_cannot_be_called_as_one_is_named_when_a_worker_is_assembled(distribution: Callable[..., None], code: str) -> None:
    distribution("acme-queue", "acme_queue_plugin", MIDDLEWARE_MODULE.format(code=code), entry="acme")
    app = App(SETTINGS, Plugins.load())
    with pytest.raises(PluginError) as caught:
        app.middleware()
    assert str(caught.value) == f"plugin 'acme' (from acme-queue 1.2): {MISFITS[code]}"
    assert (caught.value.plugin, caught.value.distribution) == ("acme", "acme-queue 1.2")


def test_a_middleware_hook_that_raises_keeps_a_worker_from_being_assembled_and_the_cause_is_kept() -> None:
    plugins = load(acme=plugin(jobqueue_middleware=lambda: {}["x"]))
    with pytest.raises(PluginError, match=r"plugin 'acme': hook jobqueue_middleware raised KeyError: 'x'") as caught:
        plugins.middleware(SETTINGS)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("disable", ["acme", "acme.tenant"])
def test_a_middleware_that_is_wrong_can_be_disabled(distribution: Callable[..., None], disable: str) -> None:
    distribution("acme-queue", "acme_queue_plugin", MIDDLEWARE_MODULE.format(code="async def tenant(ctx): ..."), entry="acme")
    plugins = Plugins.load(disable=[disable])
    assert [one for one in plugins.middleware(SETTINGS) if one.__module__ == "acme_queue_plugin"] == []
    assert [fault for fault in plugins.faults if fault.origin.name == "acme"] == []


def test_a_hook_that_has_raised_once_is_at_fault_no_longer_when_it_answers() -> None:
    answers = iter([None, [outer]])
    plugins = load(acme=plugin(jobqueue_middleware=lambda: list(next(answers))))
    with pytest.raises(PluginError):
        plugins.middleware(SETTINGS)
    assert plugins.middleware(SETTINGS) == [outer]
    assert plugins.faults == ()


def test_installed_middleware_runs_in_the_order_that_the_inventory_shows(distribution: Callable[..., None]) -> None:
    module = """
        from jobqueue_core import hookimpl

        async def {name}(ctx, call_next):
            ctx.payload.append("{name}.{name}")
            return await call_next(ctx)

        class Last:
            async def __call__(self, ctx, call_next):
                ctx.payload.append("{name}.Last")
                return await call_next(ctx)

        @hookimpl({wish})
        def jobqueue_middleware():
            return [{name}, Last()]
    """

    @handler("acme.order")
    def order(payload: list[str]) -> list[str]:
        return payload

    for name, wish in (("zeta", "tryfirst=True"), ("alpha", "trylast=True"), ("mid", ""), ("beta", "")):
        distribution(f"acme-{name}", f"acme_{name}_plugin", module.format(name=name, wish=wish), entry=name)
    plugins = Plugins.load(disable=["beta.Last"])
    with Harness([order], middleware=plugins.middleware(SETTINGS)) as harness:
        called = harness.run("acme.order", []).result
    shown = {offer for info in inventory(plugins, SETTINGS) for offer in info.offers if offer.startswith("middleware ")}
    assert called == ["zeta.zeta", "zeta.Last", "beta.beta", "mid.mid", "mid.Last", "alpha.alpha", "alpha.Last"]
    assert shown == {f"middleware {place}: {name}" for place, name in enumerate(called, 1)}


def test_hooks_are_given_the_settings_when_they_ask_for_them() -> None:
    check = Check(name="x", run=lambda app, fix: [])
    observer = Observer()
    plugins = load(a=plugin(jobqueue_checks=lambda settings: [check] if settings is SETTINGS else [], jobqueue_observers=lambda: [observer]))
    assert check in plugins.checks(SETTINGS)
    assert observer in plugins.observers(SETTINGS)


def test_the_core_cannot_be_disabled_and_unknown_names_are_told() -> None:
    plugins = load(a=plugin(jobqueue_brokers=lambda: [broker("a")]))
    complaints = plugins.disable(["core", "core.measure", "b"])
    assert complaints[:2] == ["'core': the core cannot be disabled", "'core.measure': the core cannot be disabled"]
    assert complaints[2].startswith("nothing is installed under the name 'b'; there are a")
    assert set(plugins.brokers()) == {"a"}


def test_the_fault_of_a_disabled_plugin_is_no_warning() -> None:
    plugins = load(a=ModuleType("a"))
    plugins.disable(["a"])
    assert plugins.faults == ()


# Handler packages ----------------------------------------------------------------------------------------------------------------------


def test_a_handler_package_is_found_and_imported_only_when_asked(distribution: Callable[..., None]) -> None:
    distribution("acme-jobs", "acme_jobs_handlers", "x = 1\n", group="jobqueue.handlers", entry="acme")
    (source,) = [source for source in Plugins.load().handler_modules() if source.name == "acme"]
    assert (source.distribution, source.version, source.value, source.origin) == ("acme-jobs", "1.2", "acme_jobs_handlers", "acme-jobs 1.2")
    module = source.load()
    assert isinstance(module, ModuleType)
    assert module.x == 1


def test_a_handler_package_that_cannot_be_imported_names_all(distribution: Callable[..., None]) -> None:
    distribution("bad-jobs", "bad_jobs_handlers", "import nothing_of_this_name\n", group="jobqueue.handlers", entry="bad")
    (source,) = [source for source in Plugins.load().handler_modules() if source.name == "bad"]
    expected = (
        r"plugin 'bad' \(from bad-jobs 1.2\): bad_jobs_handlers cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name'"
    )
    with pytest.raises(PluginError, match=expected):
        source.load()


def test_a_disabled_handler_package_is_left_out(distribution: Callable[..., None]) -> None:
    distribution("acme-jobs", "acme_jobs_handlers", "x = 1\n", group="jobqueue.handlers", entry="acme")
    plugins = Plugins.load(disable=["acme"])
    assert "acme" not in {source.name for source in plugins.handler_modules()}


def test_handlers_may_come_from_a_plugin() -> None:
    @handler("acme.ping")
    def ping() -> str:
        return "pong"

    (source,) = [source for source in load(acme=plugin(jobqueue_handlers=lambda: [ping])).handler_modules() if source.name == "acme"]
    assert source.load() is ping
    assert source.origin == "acme"


# The inventory -------------------------------------------------------------------------------------------------------------------------


def test_the_inventory_says_what_each_offers_and_whether_it_is_in_use() -> None:
    chosen = plugin(jobqueue_brokers=lambda: [broker("a")], jobqueue_middleware=nothing)
    other = plugin(jobqueue_storages=lambda: [StoragePlugin(name="b", open=object, schemes=("b",))], jobqueue_settings=lambda: {"b": RunSection})
    plugins = load(chosen=chosen, other=other, off=plugin(jobqueue_checks=nothing_either), bad=ModuleType("bad"))
    plugins.disable(["off"])
    settings = Settings(broker=BrokerSection(plugin="a"), storage=StorageSection(plugin="c"))
    found = {info.name: info for info in inventory(plugins, settings) if info.name != "core"}
    assert {name: (info.status, info.offers) for name, info in found.items()} == {
        "bad": ("broken", ()),
        "chosen": ("active", ("broker a", "middleware")),
        "off": ("disabled", ("checks",)),
        "other": ("available", ("storage b", "section b")),
    }
    assert found["bad"].why == "it implements no hook (functions named as hooks and marked with @hookimpl)"
    assert found["off"].to_dict()["why"] == "[plugins] disable names it"


@pytest.mark.parametrize("hook", ["jobqueue_middleware", "jobqueue_observers", "jobqueue_checks"])
def test_the_inventory_shows_what_is_found_out_only_when_a_process_starts(hook: str) -> None:
    (info,) = [info for info in inventory(load(acme=plugin(**{hook: lambda: {}["x"]})), SETTINGS) if info.name == "acme"]
    assert (info.status, info.why) == ("broken", f"hook {hook} raised KeyError: 'x'")


def test_observers_that_cannot_be_had_are_a_warning_when_a_process_is_assembled(caplog: pytest.LogCaptureFixture) -> None:
    good = Observer()
    plugins = load(acme=plugin(jobqueue_observers=lambda: {}["x"]), good=plugin(jobqueue_observers=lambda: [good]))
    assert plugins.observers(SETTINGS) == [good]
    (record,) = caplog.records
    assert record.getMessage() == "plugin 'acme': hook jobqueue_observers raised KeyError: 'x'; its observers are told nothing"


def test_the_inventory_shows_why_a_handler_package_is_broken(distribution: Callable[..., None]) -> None:
    distribution("bad-jobs", "bad_jobs_handlers", "1 / 0\n", group="jobqueue.handlers", entry="bad")
    (info,) = [info for info in inventory(Plugins.load(), SETTINGS) if info.name == "bad"]
    assert (info.kind, info.distribution, info.status, info.offers) == ("handlers", "bad-jobs", "broken", ("handlers bad_jobs_handlers",))
    assert info.why == "ZeroDivisionError: division by zero"


# Documentation -------------------------------------------------------------------------------------------------------------------------


def signature(name: str) -> str:
    hook = inspect.signature(getattr(hookspecs, name))
    parameters = ", ".join(f"{one.name}: {one.annotation}" for one in hook.parameters.values())
    return f"{name}({parameters}) -> {hook.return_annotation}"


def documented() -> dict[str, str]:
    """Heading -> what stands below it."""
    page = (ROOT / "docs/plugin-hooks.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^### `(jobqueue_.*?)`$(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))


def test_the_page_of_hooks_has_each_hook_with_its_live_signature_in_order() -> None:
    assert list(documented()) == [signature(name) for name in ANSWERS]


@pytest.mark.parametrize("heading", documented(), ids=lambda heading: heading.partition("(")[0])
def test_the_example_of_each_hook_runs_and_offers_something(heading: str) -> None:
    name = heading.partition("(")[0]
    (example,) = re.findall(r"```python\n(.*?)```", documented()[heading], re.DOTALL)
    module = ModuleType("example")
    exec(compile(example, name, "exec"), module.__dict__)
    plugins = load(example=module)
    ask_all(plugins)
    assert causes(plugins) == []
    assert plugins.offers("example")
    assert getattr(module, name)(*[SETTINGS for _argument in inspect.signature(getattr(module, name)).parameters])


@pytest.mark.parametrize("heading", documented(), ids=lambda heading: heading.partition("(")[0])
def test_each_hook_says_when_it_is_called_what_it_gets_and_what_it_returns(heading: str) -> None:
    text = documented()[heading]
    assert "**When:**" in text
    assert "**Return:**" in text
    assert ("**Parameters:**" in text) == ("settings" in heading.partition("(")[2])
