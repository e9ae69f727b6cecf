"""The Lua scripts in ``lua/``: one a transition, each put together from its own file, the parts in ``lua/lib/`` that it names, and the keys.

A script's file begins with comments; ``-- use: a, b`` names the parts it needs, and what those need comes along.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Final

import attrs

from .keys import lua_constants

__all__ = ["Script", "script"]

_USE: Final = re.compile(r"^-- use: (.+)$", re.MULTILINE)
_COMMENT: Final = re.compile(r"^\s*--.*\n", re.MULTILINE)


@attrs.frozen
class Script:
    """A script as it is sent."""

    name: str
    text: str
    sha: str
    """What EVALSHA knows it by."""


@cache
def script(name: str) -> Script:
    """The script in ``lua/<name>.lua``, complete."""
    body = _read(name)
    parts: list[str] = []
    _gather(body, parts)
    source = "".join(_read(f"lib/{part}") for part in parts) + body
    text = _COMMENT.sub("", f"local P = ARGV[1]\n{lua_constants(source)}\n{_read('lib/clock')}{source}")
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _gather(source: str, parts: list[str]) -> None:
    for line in _USE.findall(source):
        for part in map(str.strip, line.split(",")):
            if part not in parts:
                _gather(_read(f"lib/{part}"), parts)
                parts.append(part)


def _read(name: str) -> str:
    return files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
