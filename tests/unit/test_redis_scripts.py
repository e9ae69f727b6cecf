"""The Lua scripts as files: put together rightly, all used, and by the rules of the house."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

import jobqueue_redis
from jobqueue_redis.keys import NAMES, Shard
from jobqueue_redis.scripts import script

_LUA = files(jobqueue_redis) / "lua"
_SCRIPTS = sorted(one.name.removesuffix(".lua") for one in _LUA.iterdir() if one.name.endswith(".lua"))
_PARTS = sorted(one.name.removesuffix(".lua") for one in (_LUA / "lib").iterdir())
_PYTHON = "".join(one.read_text(encoding="utf-8") for one in files(jobqueue_redis).iterdir() if one.name.endswith(".py"))


def source(name: str) -> str:
    return (_LUA / f"{name}.lua").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", _SCRIPTS)
def test_a_script_is_called_by_its_name(name: str) -> None:
    assert f'"{name}"' in _PYTHON


@pytest.mark.parametrize("part", _PARTS)
def test_a_part_is_used(part: str) -> None:
    assert part == "clock" or any(
        re.search(rf"^-- use:.*\b{part}\b", source(name), re.MULTILINE) for name in [*_SCRIPTS, *(f"lib/{one}" for one in _PARTS)]
    )


@pytest.mark.parametrize("name", _SCRIPTS)
def test_a_script_begins_by_saying_what_it_does_and_takes(name: str) -> None:
    text = source(name)
    assert text.startswith("-- ")
    assert re.search(r"^-- ARGV: prefix", text, re.MULTILINE)


@pytest.mark.parametrize("name", [*_SCRIPTS, *(f"lib/{part}" for part in _PARTS)])
def test_every_key_is_one_of_those_in_keys_py(name: str) -> None:
    used = set(re.findall(r"\bK_([A-Z_]+)", source(name)))
    assert used <= NAMES.keys()


@pytest.mark.parametrize("name", [*_SCRIPTS, *(f"lib/{part}" for part in _PARTS)])
def test_no_script_names_a_global(name: str) -> None:
    for line in source(name).splitlines():
        assert not re.match(r"(function\s|[A-Za-z_]+\s*=[^=])", line), f"{name}: a global: {line}"


@pytest.mark.parametrize("name", [*_SCRIPTS, *(f"lib/{part}" for part in _PARTS)])
def test_no_script_takes_an_entry_from_its_owner_or_needs_a_newer_server(name: str) -> None:
    text = source(name).upper()
    for word in ("XAUTOCLAIM", "HPEXPIRE", "XACKDEL", "ZMPOP", "LMPOP", "XTRIM"):
        assert word not in text
    assert "XCLAIM" not in text or name in {"lease", "renew"}, "DESIGN R9: nobody claims for another"
    assert "XREADGROUP" not in text or name == "lease", "DESIGN R8: only the lease script takes entries"


def test_the_parts_a_script_uses_come_once_and_before_it() -> None:
    text = script("settle").text
    for function in ("stream_of", "ring", "put_in_stream", "finish", "release_key", "send_history"):
        assert text.count(f"local function {function}(") == 1
        assert text.index(f"local function {function}(") < text.index("local answers")
    assert "--" not in text.replace("-- ", "--").split("local answers", maxsplit=1)[0].split("\n")[0]


def test_the_sum_of_a_script_is_that_of_its_text() -> None:
    one = script("lease")
    assert re.fullmatch(r"[0-9a-f]{40}", one.sha)
    assert script("lease") is one


def test_keys_of_a_shard_begin_with_its_prefix() -> None:
    shard = Shard("acme:{mail}")
    assert shard.key("STREAM", "mail", "high") == "acme:{mail}stream:mail:high"
    assert shard.key("JOB", "x") == "acme:{mail}job:x"
    assert shard.route.startswith(shard.prefix)
    assert Shard("").key("HISTORY") == "outbox:history"
