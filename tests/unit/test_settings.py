"""Settings: where values come from, what is refused and in which words, and that the documentation tells the truth."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue_core import ConfigError, hookimpl
from jobqueue_core.broker import BrokerPlugin
from jobqueue_core.durations import format_duration
from jobqueue_core.options import OptionError, Size, between, option, options_of
from jobqueue_core.plugins import Plugins
from jobqueue_core.retry import RetryPolicy
from jobqueue_core.service import ServicePlugin
from jobqueue_core.settings import Settings, load_settings
from jobqueue_core.settings.configfile import CONFIG_VARIABLE
from jobqueue_core.settings.sections import CORE_SECTIONS, BrokerSection, RetrySection, WorkerSection
from jobqueue_core.storage import StoragePlugin
from jobqueue_core.urls import redact

ROOT = Path(__file__).parents[2]


@attrs.frozen(kw_only=True)
class Key:
    name: str = option(help="Whose it is.")
    role: Literal["read", "write"] = option("read", help="What it may do.")
    key: str | None = option(None, secret=True, help="The key itself.")


@attrs.frozen(kw_only=True)
class ApiSection:
    port: int = option(8080, rule=between(1, 65_535), env="API_PORT", help="The port.")
    ratio: float = option(0.5, help="A number.")
    verbose: bool = option(default=False, env="API_VERBOSE", help="A switch.")
    max_body: Size = option(Size(16 << 20), help="A size.")
    token: str | None = option(None, secret=True, rule=between(0, 0), env="API_TOKEN", help="A secret.")
    labels: dict[str, str] = option(attrs.Factory(dict), help="A table.")
    keys: tuple[Key, ...] = option((), help="Tables.")


@attrs.frozen(kw_only=True)
class CronEntry:
    name: str = option(help="Its name.")
    payload: Any = option(None, help="Any value.")


class Backends:
    """A plugin with two brokers, two storages, one role and two sections."""

    @hookimpl
    def jobqueue_brokers(self) -> list[BrokerPlugin]:
        return [
            BrokerPlugin(name="sqlite", open=object, default_url="sqlite:///jobqueue.db", schemes=("sqlite",)),
            BrokerPlugin(name="redis", open=object, default_url="redis://localhost:6379/0", schemes=("redis", "rediss"), url_variable="REDIS_URL"),
        ]

    @hookimpl
    def jobqueue_storages(self) -> list[StoragePlugin]:
        return [
            StoragePlugin(name="sqlite", open=object, default_url="sqlite:///jobqueue.db", schemes=("sqlite",)),
            StoragePlugin(name="postgres", open=object, schemes=("postgresql",), url_aliases={"postgres": "postgresql"}, url_variable="DATABASE_URL"),
        ]

    @hookimpl
    def jobqueue_services(self) -> list[ServicePlugin]:
        return [ServicePlugin(name="reporter", summary="reports", open=lambda app: app)]

    @hookimpl
    def jobqueue_settings(self) -> dict[str, Any]:
        return {"api": ApiSection, "cron": list[CronEntry]}


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "jobqueue.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def load(path: Path | None = None, *, environ: dict[str, str] | None = None, overrides: dict[str, object] | None = None) -> Settings:
    plugins = Plugins.load(extra=[("backends", Backends())], installed=False)
    return load_settings(path, environ=environ or {}, overrides=overrides, plugins=plugins)


def problems(path: Path | None = None, *, environ: dict[str, str] | None = None, overrides: dict[str, object] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ, overrides=overrides)
    # The folder is left out, so that expectations can be written down.
    return [problem.replace(f"{path}", "FILE") for problem in caught.value.problems]


# Where values come from ----------------------------------------------------------------------------------------------------------------


def test_without_a_file_the_defaults_apply_and_sqlite_lies_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobqueue.toml").write_text("[worker]\nconcurrency = 99\n", encoding="utf-8")
    settings = load()
    assert settings.broker.url == settings.storage.url == f"sqlite:///{tmp_path}/jobqueue.db"
    assert settings.worker == WorkerSection()
    assert settings.source is None
    assert settings.warnings == ()


def test_settings_can_be_made_without_loading_anything() -> None:
    settings = Settings()
    assert settings.worker.queues == ("critical", "default", "low")
    assert settings.worker.lease == timedelta(seconds=30)
    assert settings.job.max_payload == 1024 * 1024
    assert settings.history.max_pending == 1_000_000


def test_a_file_is_read_into_its_types(config: Callable[[str], Path]) -> None:
    path = config(
        '[worker]\nqueues = ["mail", "*"]\nlease = "1m30s"\nmax_rss = "512MiB"\n[retry]\nbase = "1s"\njitter = "none"\n[run]\nroles = ["reporter"]\n'
    )
    settings = load(path)
    assert settings.worker.queues == ("mail", "*")
    assert settings.worker.lease == timedelta(seconds=90)
    assert settings.worker.max_rss == 512 << 20
    assert settings.retry_policy() == RetryPolicy(base=timedelta(seconds=1), jitter="none")
    assert settings.run.roles == ("reporter",)
    assert settings.source == path


def test_the_command_line_beats_the_environment_which_beats_the_file(config: Callable[[str], Path]) -> None:
    path = config("[worker]\nconcurrency = 2\nprocesses = 2\n[log]\nlevel = 'error'\n")
    settings = load(path, environ={"WORKER_CONCURRENCY": "3", "LOG_LEVEL": "warn"}, overrides={"worker.concurrency": 4})
    assert (settings.worker.concurrency, settings.worker.processes, settings.log.level) == (4, 2, "warning")


def test_environment_variables_are_read_as_their_key_wants(config: Callable[[str], Path]) -> None:
    environ = {
        "WORKER_QUEUES": "a, b,*",
        "WORKER_POLL_INTERVAL": "5s",
        "LOG_LEVEL": "DEBUG",
        "API_VERBOSE": "true",
        "API_PORT": "81",
        "LOG_FORMAT": "",
    }
    settings = load(environ=environ)
    assert settings.worker.queues == ("a", "b", "*")
    assert settings.worker.poll_interval == timedelta(seconds=5)
    assert (settings.log.level, settings.log.format) == ("debug", "json")
    assert settings.section("api").verbose is True
    assert settings.section("api").port == 81


def test_the_environment_can_name_the_config_file(config: Callable[[str], Path]) -> None:
    path = config("[worker]\nconcurrency = 7\n")
    assert load(environ={CONFIG_VARIABLE: str(path)}).worker.concurrency == 7


def test_a_file_on_the_command_line_beats_the_one_that_the_environment_names(config: Callable[[str], Path], tmp_path: Path) -> None:
    path = config("[worker]\nconcurrency = 7\n")
    assert load(path, environ={CONFIG_VARIABLE: str(tmp_path / "missing.toml")}).worker.concurrency == 7


def test_sections_of_plugins_come_with_defaults_and_arrays_of_tables(config: Callable[[str], Path]) -> None:
    settings = load(config('[[cron]]\nname = "a"\npayload = {x = 1}\n[[cron]]\nname = "b"\n[[api.keys]]\nname = "ci"\nrole = "write"\nkey = "k"\n'))
    assert settings.section("cron") == [CronEntry(name="a", payload={"x": 1}), CronEntry(name="b")]
    assert settings.section("api").keys == (Key(name="ci", role="write", key="k"),)
    assert load().section("cron") == []
    assert settings.section("worker") is settings.worker
    with pytest.raises(LookupError, match=r"there is no section \[mcp\]"):
        settings.section("mcp")


# Which broker and storage --------------------------------------------------------------------------------------------------------------


def test_a_sqlite_path_is_relative_to_the_config_file(config: Callable[[str], Path], tmp_path: Path) -> None:
    assert load(config('[broker]\nurl = "sqlite:///data/../q.db"\n')).broker.url == f"sqlite:///{tmp_path}/q.db"
    assert load(config('[broker]\nurl = "sqlite:////srv/q.db"\n')).broker.url == "sqlite:////srv/q.db"


def test_storage_lies_in_the_file_of_the_sqlite_broker(config: Callable[[str], Path], tmp_path: Path) -> None:
    assert load(config('[broker]\nurl = "sqlite:///q.db"\n')).storage.url == f"sqlite:///{tmp_path}/q.db"
    settings = load(config('[broker]\nplugin = "redis"\n'))
    assert settings.broker.url == "redis://localhost:6379/0"
    assert settings.storage.url == f"sqlite:///{tmp_path}/jobqueue.db"


def test_a_url_variable_chooses_its_plugin_where_nothing_else_does() -> None:
    settings = load(environ={"REDIS_URL": "redis://r/1", "DATABASE_URL": "postgres://u:p@h/db?sslmode=require"})
    assert (settings.broker.plugin, settings.broker.url) == ("redis", "redis://r/1")
    assert (settings.storage.plugin, settings.storage.url) == ("postgres", "postgresql://u:p@h/db?sslmode=require")
    assert settings.warnings == ()


def test_a_url_variable_replaces_the_url_of_its_chosen_plugin(config: Callable[[str], Path]) -> None:
    path = config('[broker]\nplugin = "redis"\nurl = "redis://file"\n')
    assert load(path, environ={"REDIS_URL": "redis://env"}).broker.url == "redis://env"
    assert load(path, environ={"REDIS_URL": "redis://env"}, overrides={"broker.url": "redis://flag"}).broker.url == "redis://flag"


def test_a_url_variable_is_ignored_with_a_warning_when_another_plugin_is_chosen(config: Callable[[str], Path]) -> None:
    path = config('[broker]\nplugin = "sqlite"\n')
    settings = load(path, environ={"REDIS_URL": "redis://:hunter2@r"})
    assert settings.broker.plugin == "sqlite"
    assert settings.warnings == (f"environment variable REDIS_URL is ignored: {path} chooses broker.plugin = 'sqlite'",)


def test_the_url_variable_of_a_plugin_that_is_not_installed_is_ignored() -> None:
    settings = load(environ={"AMQP_URL": "amqp://h"})
    assert settings.broker.plugin == "sqlite"
    assert settings.warnings == ()


def test_what_is_disabled_cannot_be_chosen_and_its_table_may_stay(config: Callable[[str], Path]) -> None:
    path = config('[plugins]\ndisable = ["backends", "gone"]\n[api]\nport = 81\n')
    assert problems(path)[0] == ("""FILE: broker.plugin = "sqlite": plugin 'backends': offers the broker 'sqlite', but [plugins] disable names it""")
    assert not any("api" in problem for problem in problems(path))


def test_disabling_what_is_not_installed_is_a_warning(config: Callable[[str], Path]) -> None:
    path = config('[plugins]\ndisable = ["gone"]\n')
    (warning,) = load(path).warnings
    assert warning.startswith(f"{path}: plugins.disable: nothing is installed under the name 'gone'; there are backends")


# What is refused, and in which words ---------------------------------------------------------------------------------------------------

REFUSED = {
    "[broker]\nplugn = 'x'": ["FILE: broker.plugn: unknown key; did you mean 'plugin'?; allowed: plugin, url, allow_eviction, wait_replicas"],
    "[worker]\nconcurrency = '8'": ['FILE: worker.concurrency = "8": must be a whole number, 1 to 10000'],
    "[worker]\nconcurrency = 0": ["FILE: worker.concurrency = 0: must be a whole number, 1 to 10000"],
    "[worker]\nconcurrency = 10001": ["FILE: worker.concurrency = 10001: must be a whole number, 1 to 10000"],
    "[worker]\nconcurrency = true": ["FILE: worker.concurrency = true: must be a whole number, 1 to 10000"],
    "[worker]\nprocesses = 257": ["FILE: worker.processes = 257: must be a whole number, 1 to 256"],
    "[worker]\nlease = '999ms'": ['FILE: worker.lease = "999ms": must be a duration such as "500ms", "30s" or "1h30m", at least 1s'],
    "[worker]\nlease = 30": ['FILE: worker.lease = 30: must be a duration such as "500ms", "30s" or "1h30m", at least 1s'],
    "[worker]\nmax_rss = 1": ['FILE: worker.max_rss = 1: must be a size such as "512KiB" or "1MiB", at least 1MiB'],
    "[worker]\nqueues = ['a', 3]": ["FILE: worker.queues[1] = 3: must be text"],
    "[job]\nresult_ttl = '59s'": ['FILE: job.result_ttl = "59s": must be a duration such as "500ms", "30s" or "1h30m", at least 1m'],
    "[retry]\nbase = '2h'": ["FILE: retry.max: is 1h, and must not be below retry.base, which is 2h"],
    "[retry]\njitter = 'some'": ['FILE: retry.jitter = "some": must be "full", "equal", "decorrelated" or "none"'],
    "[broker]\nallow_eviction = 1": ["FILE: broker.allow_eviction = 1: must be true or false"],
    "worker = 3": ["FILE: worker: must be a table"],
    "concurrency = 3": ["FILE: concurrency: this key stands outside of any table; it belongs into [worker]"],
    "[broker]\nplugin = 'redis'\nurl = 'http://h'": [
        "FILE: broker.url = \"http://h\": must be a url that the broker 'redis' takes: redis://, rediss://"
    ],
    "[broker]\nurl = 'redis://h'": [
        'FILE: broker.url = "redis://h": must be a url that the broker \'sqlite\' takes: sqlite://; broker.plugin = "redis" takes this one'
    ],
    "[broker]\nurl = 'sqlite://'": [
        'FILE: broker.url = "sqlite://": must name a file, as "sqlite:///jobqueue.db" or, with an absolute path, "sqlite:////srv/jobqueue.db"'
    ],
    "[broker]\nplugin = 'kafka'": ['FILE: broker.plugin = "kafka": no installed plugin offers a broker of this name; installed: redis, sqlite'],
    "[storage]\nplugin = 'postgres'": [
        "FILE: storage.url: is required for the storage 'postgres': give it in the config file, or set DATABASE_URL",
    ],
    "[run]\nroles = ['reporter', 'reporter']": ['FILE: run.roles = ["reporter", "reporter"]: must be a list of text, each once'],
    "[[cron]]\npayload = 1": ["FILE: cron[0].name: is required"],
    "[cron]\nname = 'a'": ["FILE: cron: must be tables, as in [[...]]"],
    "[[api.keys]]\nname = 'a'\nrole = 'root'": ['FILE: api.keys[0].role = "root": must be "read" or "write"'],
    "[api]\nratio = 'x'": ['FILE: api.ratio = "x": must be a number'],
    "[api]\nlabels = {a = 1}": ["FILE: api.labels = a table: must be a table of texts"],
}


@pytest.mark.parametrize(("text", "expected"), REFUSED.items(), ids=[text.replace("\n", " ") for text in REFUSED])
def test_a_config_file_is_refused_in_words_that_help(config: Callable[[str], Path], text: str, expected: list[str]) -> None:
    assert problems(config(text)) == expected


@pytest.mark.parametrize("queues", ["[]", '["a", "a"]', '["*", "a"]', '["a b"]', '[""]', '"abc"'])
def test_queues_must_be_valid_names_without_duplicates_and_the_star_last(config: Callable[[str], Path], queues: str) -> None:
    (problem,) = problems(config(f"[worker]\nqueues = {queues}\n"))
    assert problem.startswith("FILE: worker.queues = ")
    assert problem.endswith('must be a list of text, at least one and each once, valid queue names; "*" (all others) only last')


def test_an_unknown_table_is_refused_with_the_tables_that_there_are(config: Callable[[str], Path]) -> None:
    (problem,) = problems(config("[wroker]\nx = 1\n"))
    assert problem.startswith("FILE: wroker: unknown table; did you mean 'worker'?")
    assert "installed: api, cron" in problem


def test_a_role_that_nothing_offers_is_refused_with_those_that_are_installed(config: Callable[[str], Path]) -> None:
    (problem,) = problems(config('[run]\nroles = ["repoter"]\n'))
    assert problem.startswith('FILE: run.roles[0] = "repoter": no installed plugin offers a role of this name; installed: ')
    assert "reporter" in problem


def test_a_role_that_nobody_can_ask_for_is_refused_and_not_listed(config: Callable[[str], Path]) -> None:
    assert problems(config('[run]\nroles = ["recorder"]\n')) == ['FILE: run.roles[0] = "recorder": runs by itself where it is needed; leave it out']
    (problem,) = problems(config('[run]\nroles = ["x"]\n'))
    assert "recorder" not in problem


def test_all_problems_of_all_sources_are_reported_at_once(config: Callable[[str], Path]) -> None:
    path = config('[broker]\nplugin = "kafka"\n[worker]\nlease = "5mm"\ntypo = 1\n[wroker]\n')
    found = problems(path, environ={"WORKER_CONCURRENCY": "many"}, overrides={"job.max_crashes": 0, "job.maxcrashes": 1})
    assert [problem.partition(" = ")[0].partition(": unknown")[0] for problem in found] == [
        "command line: job.maxcrashes: there is no such key; did you mean 'job.max_crashes'?",
        "FILE: wroker",
        "FILE: broker.plugin",
        "environment variable WORKER_CONCURRENCY: worker.concurrency",
        "FILE: worker.lease",
        "FILE: worker.typo",
        "command line: job.max_crashes",
    ]


def test_a_problem_of_two_keys_names_where_they_came_from() -> None:
    assert problems(environ={"JOB_RETRY_BASE_DELAY": "2h"}) == [
        "environment variable JOB_RETRY_BASE_DELAY: retry.max: is 1h, and must not be below retry.base, which is 2h"
    ]


def test_a_file_that_cannot_be_read_is_named(config: Callable[[str], Path], tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert problems(missing) == ["FILE: cannot be read: No such file or directory"]
    assert problems(environ={CONFIG_VARIABLE: str(missing)}) == [
        f"{missing}: cannot be read (named by environment variable JOBQUEUE_CONFIG): No such file or directory"
    ]
    assert problems(tmp_path) == ["FILE: cannot be read: Is a directory"]


def test_a_file_that_is_not_toml_is_named_with_the_place(config: Callable[[str], Path], tmp_path: Path) -> None:
    (problem,) = problems(config("[worker\n"))
    assert problem.startswith("FILE: is not TOML: ")
    assert "line 1" in problem
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert problems(binary) == ["FILE: is not UTF-8 text: byte 0 cannot be read"]


# Secrets -------------------------------------------------------------------------------------------------------------------------------

SECRET = "hunter2"  # a value that must not be printed


@pytest.mark.parametrize("name", ["password", "pasword", "pw", "credentials", "sentinel_pasword", "x"])
def test_no_value_of_a_mistyped_option_survives_redaction(name: str) -> None:
    shown = redact(f"redis://host:6379/0?db=3&{name}=c4n4ry&tls=true")
    assert shown == f"redis://host:6379/0?db=3&{name}=***&tls=true"


@pytest.mark.parametrize(
    "text",
    [
        f"[broker]\nplugin = 'redis'\nurl = 'http://u:{SECRET}@h'",
        f"[broker]\nplugin = 'redis'\nurl = 'http://:{SECRET}@@/?x@h'",
        f"[broker]\nurl = 'redis://h?password={SECRET}'",
        f"[broker]\nplugin = 'postgres://u:{SECRET}@h'",
        f"[broker]\npasword = '{SECRET}'",
        f"[broker]\nurl = ['redis://u:{SECRET}@h']",
        f"[brokr]\nurl = '{SECRET}'",
        f"[api]\ntoken = '{SECRET}'",
        f"[api]\ntoken = ['{SECRET}']",
        f"[[api.keys]]\nname = 'a'\nkey = {{x = '{SECRET}'}}",
        f"[api]\nkeys = [{{key = '{SECRET}'}}, '{SECRET}://']",
        f"[api.keys]\nkey = '{SECRET}'",
        f"[worker]\nname = 'postgres://u:{SECRET}@h/db'",
    ],
)
def test_secrets_are_never_printed(config: Callable[[str], Path], text: str) -> None:
    found = problems(config(text))
    assert found
    assert not any(SECRET in problem for problem in found)


def test_secrets_of_the_environment_are_never_printed() -> None:
    found = problems(environ={"REDIS_URL": f"http://:{SECRET}@h", "API_TOKEN": SECRET})
    assert [problem.partition(":")[0] for problem in found] == ["environment variable REDIS_URL", "environment variable API_TOKEN"]
    assert not any(SECRET in problem for problem in found)


def test_secrets_do_not_show_in_the_repr_of_settings() -> None:
    settings = Settings(broker=BrokerSection(url=f"redis://u:{SECRET}@h"), offered={"api": Key(name="a", key=SECRET)})
    assert SECRET not in repr(settings)
    assert "redis://***@h" in repr(settings)


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), min_size=1).map(lambda text: f"<{text}>"))
def test_no_password_survives_redaction(password: str) -> None:
    assert password not in redact(f"redis://user:{password}@host:6379/0")


@pytest.mark.parametrize(
    "url",
    ["redis:/u:s3cr3t@h", "redis:u:s3cr3t@h", "u:s3cr3t@h:6379", "redis//:s3cr3t@h", "//u:s3cr3t@h", "redis://h/0?auth=s3cr3t", "x://h?pwd=s3cr3t"],
)
def test_no_password_of_a_mistyped_url_is_printed(tmp_path: Path, url: str) -> None:
    (tmp_path / "jobqueue.toml").write_text(f'[broker]\nurl = "{url}"\n[storage]\nurl = "{url}"\n')
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "jobqueue.toml", environ={})
    assert "broker.url" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


# Sections made in code -----------------------------------------------------------------------------------------------------------------


def test_a_section_made_in_code_is_checked_too() -> None:
    with pytest.raises(OptionError, match="concurrency: must be 1 to 10000"):
        WorkerSection(concurrency=0)
    with pytest.raises(OptionError, match="max: is 1s"):
        RetrySection(base=timedelta(seconds=2), max=timedelta(seconds=1))


@given(
    st.integers(1, 10_000),
    st.timedeltas(timedelta(seconds=1), timedelta(days=30)),
    st.lists(st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True), min_size=1, unique=True),
)
def test_what_is_allowed_is_read_back_as_it_was_written(concurrency: int, lease: timedelta, queues: list[str]) -> None:
    rounded = timedelta(milliseconds=lease // timedelta(milliseconds=1))
    settings = load(overrides={"worker.concurrency": concurrency, "worker.lease": format_duration(rounded), "worker.queues": queues})
    assert (settings.worker.concurrency, settings.worker.lease, settings.worker.queues) == (concurrency, rounded, tuple(queues))


# Documentation -------------------------------------------------------------------------------------------------------------------------


def bundled_sections() -> dict[str, Any]:
    return dict(bundled_plugins().sections())


def bundled_plugins() -> Plugins:
    """The plugins of this project and no others, installed or not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    modules = project["entry-points"]["jobqueue.plugins"]
    plugins = Plugins.load(extra=[(name, pytest.importorskip(module)) for name, module in modules.items()], installed=False)
    assert plugins.faults == ()
    return plugins


def documented_rows(page: str) -> dict[str, list[str]]:
    """Table name -> the rows of its table on the page, its arrays of tables included."""
    sections: dict[str, list[str]] = {}
    for heading, body in re.findall(r"^### `\[+([a-z_.]+)\]+`$(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL):
        sections[heading] = [line for line in body.splitlines() if line.startswith("| `")]
    return sections


def expected_rows(section: Any) -> list[str]:
    rows = []
    for one in options_of(section):
        default = f"`{one.written_default}`" if one.written_default else "not given"
        variable = f"`{one.env}`" if one.env else ""
        rows.append(" | ".join([f"| `{one.key}`", default, one.allowed, variable, one.help]).replace("|  |", "| |") + " |")
    return rows


def test_the_configuration_page_says_of_every_core_key_what_the_code_says() -> None:
    documented = documented_rows((ROOT / "docs/configuration.md").read_text(encoding="utf-8"))
    assert {name: documented.get(name) for name in CORE_SECTIONS} == {name: expected_rows(section) for name, section in CORE_SECTIONS.items()}


def test_the_configuration_page_names_every_table_that_there_is_and_no_other() -> None:
    documented = documented_rows((ROOT / "docs/configuration.md").read_text(encoding="utf-8"))
    assert {name for name in documented if "." not in name} == set(bundled_sections())


def test_every_key_says_what_it_is_for() -> None:
    for name, section in CORE_SECTIONS.items():
        for one in options_of(section):
            assert one.help.endswith((".", "`")), f"{name}.{one.key}"


def test_the_example_environment_lists_every_variable_and_no_other_each_with_a_comment() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    listed = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    plugins = bundled_plugins()
    parts = [*plugins.brokers().values(), *plugins.storages().values()]
    tables = [section for section in plugins.sections().values() if attrs.has(section)]
    variables = {one.env for section in tables for one in options_of(section) if one.env} | {part.url_variable for part in parts if part.url_variable}
    assert sorted(listed) == sorted(variables | {CONFIG_VARIABLE})
    for before, line in itertools.pairwise(lines):
        if line and not line.startswith("#"):
            assert before.startswith("# "), f"{line} has no comment above it"


def test_the_values_of_the_example_environment_are_the_defaults() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    environ = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    del environ[CONFIG_VARIABLE]
    settings = load(environ=environ)
    assert attrs.evolve(settings, offered={}, broker=BrokerSection(), storage=Settings().storage) == Settings()
