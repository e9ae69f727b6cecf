"""Turn a table of the config file into a section: strictly, and with every problem found, not just the first.

Nothing is coerced: ``"8"`` is not a number and ``1`` is not true. cattrs builds the objects; what it says of failures becomes
:class:`Problem`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, get_args, get_origin

import attrs
import cattrs
from cattrs import BaseConverter
from cattrs.cols import list_structure_factory
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from jobqueue_core.durations import parse_duration, parse_size
from jobqueue_core.errors import InvalidJob
from jobqueue_core.options import Option, OptionError, Rule, Size, expectation, options_of

__all__ = ["KeyPath", "Problem", "did_you_mean", "make_converter", "structure", "value_at"]

KeyPath = tuple[str | int, ...]
"""Where a value stands: ``("api", "keys", 0, "role")`` is ``api.keys[0].role``."""


@attrs.frozen(kw_only=True)
class Problem:
    """One thing that is wrong, where, and whether the value that stands there may be printed."""

    path: KeyPath
    text: str
    shows_value: bool = True


class _Refused(ValueError):
    """A value does not fit its type or rule."""

    def __init__(self, text: str, *, shows_value: bool = True) -> None:
        self.text = text
        self.shows_value = shows_value
        super().__init__(text)


class _Wrong(_Refused):
    """A value fails its option's own check, at *field*, which may lie deep inside of it."""

    def __init__(self, error: InvalidJob) -> None:
        self.field = error.field
        super().__init__(error.problem, shows_value=False)


class _Repeated(_Refused):
    """A table of an array has a value that another one has."""

    def __init__(self, index: int, key: str, text: str, *, shows_value: bool) -> None:
        self.index = index
        self.key = key
        super().__init__(text, shows_value=shows_value)


Hook = Callable[[Any, Any], Any]


def structure(value: object, kind: Any, path: KeyPath, converter: cattrs.Converter) -> tuple[Any, list[Problem]]:
    """Make a *kind* of *value*; the result is None when there are problems."""
    try:
        return converter.structure(value, kind), []
    except (_Refused, OptionError, ClassValidationError, IterableValidationError) as error:
        return None, list(_problems(error, path))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'queues'?`` when a known word is close to *word*, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def make_converter() -> cattrs.Converter:
    """A converter that refuses whatever is not exactly what a section declares."""
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in (str, int, float, bool):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook(datetime, _aware)
    converter.register_structure_hook(timedelta, _duration)
    converter.register_structure_hook_func(lambda kind: kind is Size, _size)
    converter.register_structure_hook_func(lambda kind: _origin(kind) is Literal, _choice)
    converter.register_structure_hook_factory(lambda kind: _origin(kind) in (tuple, list), _list_hook)
    converter.register_structure_hook_factory(lambda kind: _origin(kind) is dict, _table_hook)
    converter.register_structure_hook_factory(attrs.has, _section_hook)
    return converter


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


# Values --------------------------------------------------------------------------------------------------------------------------------


def _must_be(kind: object) -> _Refused:
    return _Refused(f"must be {expectation(kind)}")


def _exactly(value: object, kind: Any) -> object:
    if type(value) is kind:
        return value
    if kind is float and type(value) is int:
        return float(value)
    raise _must_be(kind)


def _aware(value: object, kind: Any) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    raise _must_be(kind)


def _duration(value: object, kind: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise _must_be(kind)
    try:
        return parse_duration(value)
    except ValueError as error:
        raise _must_be(kind) from error


def _size(value: object, kind: Any) -> int:
    if not isinstance(value, str):
        raise _must_be(kind)
    try:
        return parse_size(value)
    except ValueError as error:
        raise _must_be(kind) from error


def _choice(value: object, kind: Any) -> object:
    if isinstance(value, str) and value in get_args(kind):
        return value
    raise _must_be(kind)


def _list_hook(kind: Any, converter: BaseConverter) -> Hook:
    elements = list_structure_factory(kind, converter)
    collect = tuple if get_origin(kind) is tuple else list
    tables = attrs.has(get_args(kind)[0])

    def hook(value: object, _kind: object) -> object:
        if not isinstance(value, list | tuple):
            raise _Refused(f"must be {expectation(kind)}", shows_value=not tables)
        made = elements(value, kind)
        if tables:
            _refuse_repeated(get_args(kind)[0], made)
        return collect(made)

    return hook


def _refuse_repeated(section: type, tables: Iterable[object]) -> None:
    for option in options_of(section):
        seen: dict[object, int] = {}
        for index, table in enumerate(tables if option.unique else ()):
            value = getattr(table, option.key)
            first = seen.setdefault(value, index)
            if first != index:
                raise _Repeated(index, option.key, f"must be there only once; table {first} has it too", shows_value=not option.secret)


def _table_hook(kind: Any, _converter: BaseConverter) -> Hook:
    arguments = get_args(kind)
    texts = arguments == (str, str)

    def hook(value: object, _kind: object) -> object:
        if not isinstance(value, dict) or (texts and not all(isinstance(one, str) for one in value.values())):
            raise _must_be(kind)
        return dict(value)

    return hook


# Sections ------------------------------------------------------------------------------------------------------------------------------


def _section_hook(section: Any, converter: BaseConverter) -> Hook:
    overrides: dict[str, Any] = {option.key: override(struct_hook=_option_hook(option, converter)) for option in options_of(section)}
    make = make_dict_structure_fn(section, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, **overrides)

    def hook(value: object, _kind: object) -> object:
        if not isinstance(value, dict):
            # What stands where a table belongs may be one of the table's secrets.
            raise _Refused(f"must be {expectation(section)}", shows_value=False)
        return make(value, section)

    return hook


def _option_hook(option: Option, converter: BaseConverter) -> Hook:
    inner = converter.get_structure_hook(option.type)
    rule: Rule | None = option.rule

    def hook(value: object, _kind: object) -> object:
        try:
            made = inner(value, option.type)
        except _Repeated:
            # It knows its place, and says more than what is allowed there.
            raise
        except _Refused as error:
            raise _Refused(f"must be {option.allowed}", shows_value=error.shows_value and not option.secret) from error
        if rule is not None and made is not None and not rule.accepts(made):
            raise _Refused(f"must be {option.allowed}", shows_value=not option.secret)
        if option.check is not None and made is not None:
            try:
                option.check(made, option.key)
            except InvalidJob as error:
                raise _Wrong(error) from error
        return made

    return hook


# Failures ------------------------------------------------------------------------------------------------------------------------------


def _problems(error: BaseException, path: KeyPath) -> Iterator[Problem]:
    match error:
        case ClassValidationError():
            keyed, others = error.group_exceptions()
            inner = [*((one, (*path, note.name)) for one, note in keyed), *((one, path) for one in others)]
        case IterableValidationError():
            elements, others = error.group_exceptions()
            inner = [*((one, (*path, note.index)) for one, note in elements), *((one, path) for one in others)]
        case _:
            yield from _problem(error, path)
            return
    for one, place in inner:
        yield from _problems(one, place)


def _problem(error: BaseException, path: KeyPath) -> Iterator[Problem]:
    match error:
        case ForbiddenExtraKeysError():
            known = [option.key for option in options_of(error.cl)]
            for key in sorted(error.extra_fields):
                yield Problem(path=(*path, key), text=f"unknown key{did_you_mean(key, known)}; allowed: {', '.join(known)}", shows_value=False)
        case KeyError():
            yield Problem(path=path, text="is required", shows_value=False)
        case OptionError():
            yield Problem(path=(*path, error.key), text=error.problem, shows_value=False)
        case _Wrong():
            yield Problem(path=(*path[:-1], error.field), text=error.text, shows_value=False)
        case _Repeated():
            yield Problem(path=(*path, error.index, error.key), text=error.text, shows_value=error.shows_value)
        case _Refused():
            yield Problem(path=path, text=error.text, shows_value=error.shows_value)
        case _:
            # A section's own check: it says what is wrong, with the value if that may be shown.
            yield Problem(path=path, text=str(error) or type(error).__name__, shows_value=False)


def value_at(tables: Mapping[str, Any], path: KeyPath) -> Any:
    """What stands at *path*; None when nothing does."""
    value: Any = tables
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value
