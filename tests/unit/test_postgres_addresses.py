"""Urls of PostgreSQL: what is wrong with one is said before anything connects, and never with its secrets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from jobqueue_core.errors import ConfigError
from jobqueue_core.plugins import Plugins
from jobqueue_core.settings import Settings, load_settings
from jobqueue_postgres.addresses import described, url_problems

SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql://h",
        "postgresql://h:/db",
        "postgresql://u@h:5432/db",
        "postgresql://u:p%40%2F%3Aw@h/db",
        "postgresql:///db?host=/run/postgresql&port=5433",
        "postgresql://%2Frun%2Fpostgresql/db",
        "postgresql://[::1]:5432/db",
        "postgresql://[fe80::1%25eth0]/db",
        "postgresql://a:1,b:2,[::1]:3/db?target_session_attrs=read-write&load_balance_hosts=random",
        "postgresql://h/db?sslmode=verify-full&sslrootcert=/etc/ca.pem&sslcert=c&sslkey=k&sslpassword=p",
        "postgresql://h/db?ssl=true",
        "postgresql://h/db?connect_timeout=3&application_name=my%20app&options=-c%20search_path%3Dx",
        "postgresql://h/db?",
    ],
)
def test_what_libpq_reads_is_accepted(url: str) -> None:
    assert list(url_problems(url)) == []
    conninfo_to_dict(url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://h/db?sslmod=require", "unknown option 'sslmod': did you mean 'sslmode'?"),
        ("postgresql://h/db?qqqqqqqq=1", "unknown option 'qqqqqqqq'"),
        ("postgresql://h/db?replication=database", "unknown option 'replication'"),
        ("postgresql://h/db?sslmode=requre", "sslmode = 'requre': it is disable or allow or prefer or require or verify-ca or verify-full"),
        ("postgresql://h/db?ssl=false", "ssl = 'false': it is true"),
        ("postgresql://h/db?target_session_attrs=master", "target_session_attrs = 'master'"),
        ("postgresql://h/db?connect_timeout=5s", "connect_timeout = '5s': it is a whole number"),
        ("postgresql://h/db?connect_timeout=٣", "it is a whole number"),
        ("postgresql://h/db?port=x", "port = 'x': it is a number from 1 to 65535"),
        ("postgresql://h/db?sslmode", "not written as name=value"),
        ("postgresql://h/db?a=b=c", "not written as name=value"),
        ("postgresql://h:x/db", "no number from 1 to 65535"),
        ("postgresql://h:0/db", "no number from 1 to 65535"),
        ("postgresql://a:1,b:99999/db", "no number from 1 to 65535"),
        ("postgresql://::1/db", "IPv6"),
        ("postgresql://[::1/db", "IPv6"),
        ("postgresql://u:100%@h/db", "'%25'"),
        ("postgresql://u:a%00b@h/db", "'%'"),
        ("postgresql://u:a%ffb@h/db", "UTF-8"),
        ("postgresql://u\udcff@h/db", "UTF-8"),
        ("postgresql://u:a\0b@h/db", "NUL"),
        ("postgresql://u:a b@h/db", "percent-encode"),
        ("postgresql://u:a@b@h/db", "percent-encoded"),
        ("postgresql://u:a/b@h/db", "percent-encoded"),
        ("postgresql://u:a?b@h/db", "percent-encoded"),
        ("postgresql://u:a#b@h/db", "percent-encoded"),
    ],
)
def test_what_is_wrong_is_said(url: str, problem: str) -> None:
    assert any(problem in one for one in url_problems(url)), url_problems(url)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    assert len(url_problems("postgresql://a:x,b:y/db?sslmode=no&conect_timeout=1")) == 4


@pytest.mark.parametrize("password", [SECRET, *(f"{SECRET}{mark}{SECRET}" for mark in "@/?#&:[]% =,"), f"{SECRET}@{SECRET}?{SECRET}=x"])
@pytest.mark.parametrize("rest", ["h:x/db?sslmode=no&foo=1", "h/db", ""])
def test_neither_a_problem_nor_a_description_shows_a_password_not_even_one_that_should_have_been_encoded(password: str, rest: str) -> None:
    url = f"postgresql://u:{password}@{rest}"
    assert SECRET not in f"{list(url_problems(url))} {described(url)}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://u:{SECRET}@h:1,b/db?sslpassword={SECRET}", "postgresql://h:1,b/db"),
        (f"postgresql:///db?password={SECRET}", "postgresql:///db"),
        ("postgresql://h", "postgresql://h"),
    ],
)
def test_a_url_is_described_by_host_and_database(url: str, shown: str) -> None:
    assert described(url) == shown


@given(user=st.text(min_size=1), password=st.text(min_size=1), database=st.text(min_size=1))
def test_any_user_name_password_and_database_get_through_when_they_are_encoded(user: str, password: str, database: str) -> None:
    url = f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@h/{quote(database, safe='')}"
    if "\0" in user + password + database:
        assert url_problems(url), "libpq cannot hold NUL"
    else:
        assert list(url_problems(url)) == []
        assert conninfo_to_dict(url) == {"user": user, "password": password, "host": "h", "dbname": database}


_PIECES = (
    *"uh:@/?#[]&=,;%'\\ ",
    "::1",
    "5432",
    "0",
    "99999",
    "%40",
    "%",
    "%ff",
    "%00",
    "sslmode",
    "require",
    "password",
    "port",
    "options",
    "ssl",
    "é",
)


@given(st.lists(st.sampled_from(_PIECES) | st.characters(), max_size=9).map("".join))
def test_whatever_follows_the_scheme_is_refused_or_can_be_read_by_libpq(rest: str) -> None:
    url = f"postgresql://{rest}"
    if not url_problems(url):
        conninfo_to_dict(url)


def test_every_option_is_known_that_this_libpq_knows() -> None:
    known = {one.keyword.decode() for one in pq.Conninfo.get_defaults()} - {"replication"}
    refused = {name for name in known if any("unknown" in one for one in url_problems(f"postgresql://h?{name}=1"))}
    assert refused == set()


def test_a_url_is_checked_without_importing_the_driver() -> None:
    script = "import sys, jobqueue_postgres.plugin as p; p.url_problems('postgresql://h?x=1'); sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# In the config file --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Settings]:
    """Load settings whose section ``[storage]`` is as given."""

    def load(storage: str) -> Settings:
        path = tmp_path / "jobqueue.toml"
        path.write_text(f'[storage]\nplugin = "postgres"\n{storage}\n')
        return load_settings(path, plugins=Plugins.load(), environ={})

    return load


def test_the_url_for_migrations_may_be_written_like_the_other(load: Callable[[str], Settings]) -> None:
    settings = load('url = "postgres://pooler/db"\nmigrate_url = "postgres://h/db"\npooled = true')
    assert (settings.storage.url, settings.storage.migrate_url) == ("postgresql://pooler/db", "postgresql://h/db")


@pytest.mark.parametrize(
    ("migrate_url", "problem"),
    [
        (f"mysql://u:{SECRET}@h/db", "must be a url that the storage 'postgres' takes: postgresql://, postgres://"),
        (f"sqlite:///{SECRET}?password={SECRET}", 'storage.plugin = "sqlite" takes this one'),
        (f"postgresql://u:{SECRET}@h/db?sslmod=require", "did you mean 'sslmode'?"),
    ],
)
def test_the_url_for_migrations_is_checked_like_the_other(load: Callable[[str], Settings], migrate_url: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f'url = "postgresql://h/db"\nmigrate_url = "{migrate_url}"')
    (said,) = caught.value.problems
    assert "storage.migrate_url" in said
    assert problem in said
    assert f"u:{SECRET}" not in said


def test_both_urls_that_are_wrong_are_said_at_once(load: Callable[[str], Settings]) -> None:
    with pytest.raises(ConfigError) as caught:
        load('url = "postgresql://h:x/db"\nmigrate_url = "postgresql://h:y/db"')
    assert [one.split(" = ")[0].rsplit(" ", 1)[-1] for one in caught.value.problems] == ["storage.url", "storage.migrate_url"]
