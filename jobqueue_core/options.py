"""Options: the keys of a section of the config file, each declared once with its default, what is allowed, and what it is for.

A section is a frozen attrs class whose fields are made by :func:`option`::

    @attrs.frozen(kw_only=True)
    class ApiSection:
        port: int = option(8080, help="The port to listen on.", rule=between(1, 65_535), env="API_PORT")

Checking, error messages and the tables of docs/configuration.md all come from that declaration.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NewType, Union, get_args, get_origin, get_type_hints

import attrs

from jobqueue_core.durations import format_duration, format_size
from jobqueue_core.errors import InvalidJob

__all__ = ["Option", "OptionError", "Rule", "Size", "at_least", "between", "expectation", "matching", "option", "options_of"]

Size = NewType("Size", int)
"""A number of bytes, written as ``"1MiB"`` in the config file."""

_OPTION: Final = "jobqueue.option"


class OptionError(ValueError):
    """A section's values do not fit together; *key* is the one to change. For a section's ``__attrs_post_init__``."""

    def __init__(self, key: str, problem: str) -> None:
        self.key = key
        self.problem = problem
        super().__init__(f"{key}: {problem}")


@attrs.frozen
class Rule:
    """What is allowed beyond the type: *allowed* says it in words that follow the type's (``a whole number, 1 to 256``)."""

    allowed: str
    accepts: Callable[[Any], bool]


def between(lowest: int, highest: int) -> Rule:
    """Numbers from *lowest* to *highest*, both included."""
    return Rule(f"{lowest} to {highest}", lambda value: lowest <= value <= highest)


def at_least(lowest: timedelta | int) -> Rule:
    """Durations or numbers that are not below *lowest*."""
    return Rule(f"at least {_written(lowest)}", lambda value: value >= lowest)


def matching(pattern: str, allowed: str) -> Rule:
    """Text that matches *pattern* as a whole; *allowed* says so in words."""
    compiled = re.compile(pattern)
    return Rule(allowed, lambda value: compiled.fullmatch(value) is not None)


@attrs.frozen(kw_only=True)
class _Declaration:
    help: str
    rule: Rule | None
    env: str | None
    spellings: Mapping[str, str]
    secret: bool
    unique: bool
    check: Callable[[Any, str], object] | None


def option(
    default: Any = attrs.NOTHING,
    *,
    help: str,
    rule: Rule | None = None,
    env: str | None = None,
    spellings: Mapping[str, str] | None = None,
    secret: bool = False,
    unique: bool = False,
    check: Callable[[Any, str], object] | None = None,
    show: Callable[[Any], str] = repr,
) -> Any:
    """Declare one key of a section.

    Args:
        default: Its value when it is not given; without a default it must be given.
        help: What it is for, as a sentence in Markdown.
        rule: What is allowed beyond the type; not asked about None.
        env: The environment variable that overrides the config file.
        spellings: Other spellings that the environment variable may use -> the value they mean.
        secret: True: its value is never printed.
        unique: True: in an array of tables no two have the same.
        check: ``(value, key)``: raises InvalidJob for what is wrong with the value, where that takes more words than a rule has; likewise.
        show: Writes the value for the section's ``repr``, where a part of it is secret.
    """

    def validate(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if rule is not None and value is not None and not rule.accepts(value):
            raise OptionError(attribute.name, f"must be {rule.allowed}")
        if check is not None and value is not None:
            try:
                check(value, attribute.name)
            except InvalidJob as error:
                raise OptionError(error.field, error.problem) from error

    declaration = _Declaration(help=help, rule=rule, env=env, spellings=spellings or {}, secret=secret, unique=unique, check=check)
    return attrs.field(default=default, validator=validate, repr=False if secret else show, metadata={_OPTION: declaration})


@attrs.frozen(kw_only=True)
class Option:
    """One key of a section, as documentation and the loader see it."""

    key: str
    type: Any
    default: Any
    """``attrs.NOTHING`` when it must be given."""
    help: str
    rule: Rule | None
    env: str | None
    spellings: Mapping[str, str]
    secret: bool
    unique: bool
    check: Callable[[Any, str], object] | None

    @property
    def allowed(self) -> str:
        """What may be written, in words."""
        return expectation(self.type, self.rule)

    @property
    def written_default(self) -> str:
        """The default as it would be written in the config file; empty when there is none."""
        return "" if self.default is attrs.NOTHING or self.default is None else _written(self.default, self.type)


def options_of(section: type) -> Iterator[Option]:
    """The keys of a section class, in the order in which they are declared."""
    hints = get_type_hints(section, include_extras=True)
    for field in attrs.fields(section):
        declared = field.metadata.get(_OPTION) or _Declaration(help="", rule=None, env=None, spellings={}, secret=False, unique=False, check=None)
        yield Option(
            key=field.name,
            type=hints[field.name],
            default=field.default.factory() if isinstance(field.default, attrs.Factory) else field.default,  # type: ignore[arg-type]  # a class to mypy's plugin
            help=declared.help,
            rule=declared.rule,
            env=declared.env,
            spellings=declared.spellings,
            secret=declared.secret,
            unique=declared.unique,
            check=declared.check,
        )


_WORDS: Final[Mapping[object, str]] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    timedelta: 'a duration such as "500ms", "30s" or "1h30m"',
    datetime: "a date and time with its offset",
    Size: 'a size such as "512KiB" or "1MiB"',
}


def expectation(kind: Any, rule: Rule | None = None) -> str:
    """What may be written for a value of type *kind* under *rule*, in words that follow "must be"."""
    words = _type_words(kind)
    return f"{words}, {rule.allowed}" if rule else words


def _type_words(kind: Any) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        return " or ".join(_type_words(one) for one in arguments if one is not types.NoneType)
    if origin is Literal:
        *most, last = (f'"{one}"' for one in arguments)
        return f"{', '.join(most)} or {last}" if most else last
    if origin in (tuple, list):
        return "tables, as in [[...]]" if attrs.has(arguments[0]) else f"a list of {_type_words(arguments[0])}"
    if origin is dict and arguments == (str, str):
        return "a table of texts"
    return "a table" if attrs.has(kind) or dict in (kind, origin) else "a value"


def _written(value: Any, kind: Any = None) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case timedelta():
            return f'"{format_duration(value)}"' if kind is not None else format_duration(value)
        case int() if kind is Size or kind == Size | None:
            return f'"{format_size(value)}"'
        case str():
            return f'"{value}"'
        case tuple() | list():
            return f"[{', '.join(_written(one) for one in value)}]"
        case _:
            return str(value)
