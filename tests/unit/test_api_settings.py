"""The tables ``[api]`` and ``[[api.keys]]``: what may stand there, every problem named with its place, and who a key lets in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from jobqueue_api.section import ApiSection
from jobqueue_core import ConfigError
from jobqueue_core.keys import KeyRing, Principal, Role
from jobqueue_core.options import options_of
from jobqueue_core.plugins import Plugins
from jobqueue_core.settings import load_settings

SECRET = "f3c1a8d0-not-a-word"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
KEY = f'\n[[api.keys]]\nname = "ci"\nrole = "write"\nsha256 = "{DIGEST}"\n'


@cache
def installed() -> Plugins:
    return Plugins.load()


Load = Callable[..., ApiSection]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a config file with these lines; the section of it."""

    def load(text: str = "", **environ: str) -> ApiSection:
        path = tmp_path / "jobqueue.toml"
        path.write_text(text, encoding="utf-8")
        return load_settings(path, environ=environ, overrides=None, plugins=installed()).section("api")

    return load


def problems(load: Load, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return [one.partition("jobqueue.toml: ")[2] for one in caught.value.problems]


def test_the_defaults_are_those_of_the_contract(load: Load) -> None:
    section = load()
    assert (section.host, section.port, section.workers, section.threads, section.max_body) == ("127.0.0.1", 8080, 1, 8, 16 << 20)
    assert (section.allow_anonymous, section.trusted_proxies, section.cors_origins, section.path_prefix, section.keys) == (False, (), (), "", ())


def test_the_port_may_come_from_the_environment(load: Load) -> None:
    assert load("[api]\nport = 1\n", API_PORT="9000").port == 9000


def test_every_key_says_what_it_is_for() -> None:
    assert [one.key for one in options_of(ApiSection) if not one.help] == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_this_machine_needs_no_keys(load: Load, host: str) -> None:
    assert load(f'[api]\nhost = "{host}"\n').host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "api.example.com", "127.0.0.1.evil.example"])
def test_a_host_that_others_reach_is_refused_without_keys(load: Load, host: str) -> None:
    assert problems(load, f'[api]\nhost = "{host}"\n') == [
        f"api.host: {host} can be reached from other machines: add [[api.keys]], or say allow_anonymous = true"
    ]
    assert load(f'[api]\nhost = "{host}"\nallow_anonymous = true\n').host == host
    assert load(f'[api]\nhost = "{host}"{KEY}').host == host


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ("port = 65536", "api.port"),
        ("threads = 1", "api.threads"),
        ("workers = 0", "api.workers"),
        ('max_body = "1B"', "api.max_body"),
        ('host = "a b"', "api.host"),
        ('path_prefix = "jobs"', "api.path_prefix"),
        ('path_prefix = "/jobs/"', "api.path_prefix"),
        ('trusted_proxies = ["10.0.0.0/8", "proxy"]', "api.trusted_proxies[1]"),
        ('trusted_proxies = ["10.0.0.1/8"]', "api.trusted_proxies[0]"),
        ('cors_origins = ["ops.example.com"]', "api.cors_origins"),
        ('cors_origins = ["https://ops.example.com/"]', "api.cors_origins"),
        ("post = 1", "api.post"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(load: Load, lines: str, place: str) -> None:
    (problem,) = problems(load, f"[api]\n{lines}\n")
    assert problem.partition(" ")[0].rstrip(":") == place


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ('role = "read"\nkey = "k"', "api.keys[0].name"),
        ('name = "a"\nkey = "k"', "api.keys[0].role"),
        ('name = "a"\nrole = "root"\nkey = "k"', "api.keys[0].role"),
        ('name = "a"\nrole = "read"', "api.keys[0].key"),
        ('name = "a"\nrole = "read"\nkey = "k"\nkey_file = "f"', "api.keys[0].key"),
        ('name = "a"\nrole = "read"\nkey = "with space"', "api.keys[0].key"),
        ('name = "a"\nrole = "read"\nkey = ""', "api.keys[0].key"),
        ('name = "a"\nrole = "read"\nsha256 = "abc"', "api.keys[0].sha256"),
        ('name = "a b"\nrole = "read"\nkey = "k"', "api.keys[0].name"),
    ],
)
def test_a_wrong_key_is_named_with_its_place(load: Load, lines: str, place: str) -> None:
    (problem,) = problems(load, f"[[api.keys]]\n{lines}\n")
    assert problem.partition(" ")[0].rstrip(":") == place


def test_a_key_is_never_printed(load: Load) -> None:
    section = load(f'[[api.keys]]\nname = "a"\nrole = "read"\nkey = "{SECRET}"\n')
    assert SECRET not in repr(section)
    assert SECRET not in "".join(problems(load, f'[[api.keys]]\nname = "a"\nrole = "read"\nkey = "{SECRET} "\n'))


def test_two_keys_of_one_name_are_refused(load: Load) -> None:
    one = '[[api.keys]]\nname = "a"\nrole = "read"\nkey = "{}"\n'
    assert [text for text in problems(load, one.format("x") + one.format("y")) if text.startswith("api.keys[1].name ")]


@pytest.mark.parametrize("where", ["key", "key_file", "sha256"])
def test_the_holder_of_a_key_is_known_wherever_it_stands(load: Load, tmp_path: Path, where: str) -> None:
    (tmp_path / "ci.key").write_text(f"{SECRET}\n", encoding="utf-8")
    value = {"key": SECRET, "key_file": "ci.key", "sha256": DIGEST.upper()}[where]
    ring = KeyRing(load(f'[[api.keys]]\nname = "ci"\nrole = "write"\n{where} = "{value}"\n').keys, tmp_path)
    assert ring.holder(SECRET) == Principal(name="ci", role=Role.WRITE)
    assert [ring.holder(other) for other in (SECRET[:-1], SECRET + "x", "", DIGEST, SECRET.upper(), "\udcff")] == [None] * 6


@pytest.mark.parametrize("content", [None, "", "\n", "two words", "ümlaut"])
def test_a_key_file_that_holds_no_key_is_named(load: Load, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "ci.key").write_text(content, encoding="utf-8")
    keys = load('[[api.keys]]\nname = "ci"\nrole = "write"\nkey_file = "ci.key"\n').keys
    with pytest.raises(ConfigError, match=r"api\.keys 'ci'.*ci\.key"):
        KeyRing(keys, tmp_path)


def test_one_key_of_two_holders_is_refused(load: Load, tmp_path: Path) -> None:
    keys = load(f'{KEY}[[api.keys]]\nname = "b"\nrole = "read"\nkey = "{SECRET}"\n').keys
    with pytest.raises(ConfigError, match="'b' and 'ci' have the same key"):
        KeyRing(keys, tmp_path)


def test_each_role_may_do_what_those_below_it_may() -> None:
    allowed = {(role, needed) for role in Role for needed in Role if role.allows(needed)}
    assert allowed == {
        (Role.READ, Role.READ),
        (Role.WRITE, Role.READ),
        (Role.WRITE, Role.WRITE),
        (Role.ADMIN, Role.READ),
        (Role.ADMIN, Role.WRITE),
        (Role.ADMIN, Role.ADMIN),
    }
