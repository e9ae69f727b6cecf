"""Read options from environment variables: text becomes what would stand in the config file."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, Union, get_args, get_origin

from jobqueue_core.options import Option, options_of

__all__ = ["from_environment"]

_WHOLE: Final = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_WORDS: Final[Mapping[str, bool]] = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def from_environment(sections: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[tuple[str, Option, object]]:
    """The options that environment variables set: table name, option, and value. An empty variable counts as not set."""
    for name, section in sections.items():
        if get_origin(section) is list:
            continue
        for option in options_of(section):
            text = environ.get(option.env, "").strip() if option.env else ""
            if text:
                yield name, option, _read(text, option)


def _read(text: str, option: Option) -> object:
    """What *text* means for *option*; text that means nothing stays as it is, for the section to refuse."""
    kind = option.type
    if get_origin(kind) in (types.UnionType, Union):
        kind = next(one for one in get_args(kind) if one is not types.NoneType)
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if get_origin(kind) is Literal:
        word = text.lower()
        return option.spellings.get(word, word if word in get_args(kind) else text)
    if kind is int and _WHOLE.fullmatch(text):
        return int(text)
    if kind is bool:
        return _WORDS.get(text.lower(), text)
    return text
