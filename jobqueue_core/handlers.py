"""Handlers: declaring them, finding them, and calling them with the payload they ask for."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from types import ModuleType
from typing import Any, Final, Literal, TypeVar

import attrs
import msgspec

from jobqueue_core.context import JobContext
from jobqueue_core.durations import Duration, format_size, parse_size, to_timedelta
from jobqueue_core.errors import DuplicateHandler, HandlerError, InvalidJob, InvalidPayload
from jobqueue_core.job import Priority, check_job_type, check_queue
from jobqueue_core.retry import RetryPolicy

__all__ = ["HandlerSpec", "Isolation", "Lifespan", "Registry", "handler", "lifespan"]

Isolation = Literal["async", "thread", "process"]
Lifespan = Callable[[], contextlib.AbstractAsyncContextManager[object]]
ExceptionTypes = tuple[type[BaseException], ...]
F = TypeVar("F", bound=Callable[..., object])

DEFAULT_GRACE: Final = timedelta(seconds=2)
"""How long a handler that was asked to stop may take to do so, unless it says otherwise."""
_LEAST_MEMORY: Final = 48 << 20
"""An idle handler process takes some 30 MiB."""
_MARK: Final = "__jobqueue_handler__"
_LIFESPAN_MARK: Final = "__jobqueue_lifespan__"


@attrs.frozen(kw_only=True)
class Options:
    """What ``@handler`` was told; None leaves a choice to the configuration."""

    type: str
    queue: str | None = None
    priority: Priority | None = None
    max_retries: int | None = None
    timeout: timedelta | None = None
    retry: RetryPolicy | None = None
    discard_on: ExceptionTypes = ()
    grace: timedelta = DEFAULT_GRACE
    isolation: Isolation | None = None
    memory: int | None = None
    concurrency: int | None = None
    aliases: tuple[str, ...] = ()


def handler(
    type: str,
    *,
    queue: str | None = None,
    priority: Priority | str | None = None,
    max_retries: int | None = None,
    timeout: Duration | None = None,
    retry: RetryPolicy | None = None,
    discard_on: Sequence[type[BaseException]] = (),
    grace: Duration = DEFAULT_GRACE,
    isolation: Isolation | None = None,
    memory: int | str | None = None,
    concurrency: int | None = None,
    aliases: Sequence[str] = (),
) -> Callable[[F], F]:
    """Declare a function as the handler of one job type; the function itself is returned unchanged.

    Its first parameter is the payload, converted to the annotation (an attrs class, dataclass, msgspec.Struct, TypedDict or plain type; without
    one, the JSON value). A parameter annotated ``JobContext`` is optional. What it returns is the job's result.

    Args:
        type: The job type, as producers name it: ``email.send``.
        queue: Where its jobs go unless told otherwise at enqueue; None means ``default``.
        priority: Likewise; None means ``medium``.
        max_retries: How often a failed run is tried again; None leaves it to ``[job] default_max_retries``.
        timeout: How long one run may take; None leaves it to ``[job] default_timeout``.
        retry: How long to wait between attempts; None leaves it to ``[retry]``.
        discard_on: Exceptions after which trying again is no use: dead at once, as ``discarded``.
        grace: How long a handler that was asked to stop (by its timeout or a cancel) may take to do so, before it is ended by force: killed in a
            process, interrupted in a thread and given up when that does not help. At a shutdown it is one second, whatever is given here.
        isolation: Where it runs; None means ``async`` for an ``async def``, else ``thread``. ``process`` serves both kinds.
        memory: The most memory its process may take, as ``"512MiB"`` or a number of bytes; only with ``isolation="process"``.
        concurrency: Most runs of this type at once in one worker; None for no limit of its own.
        aliases: Former names under which jobs may still be waiting.

    Raises:
        HandlerError: An option is wrong.
    """
    try:
        options = Options(
            type=check_job_type(type),
            queue=None if queue is None else check_queue(queue),
            priority=None if priority is None else Priority(priority),
            max_retries=_at_least(0, max_retries, "max_retries"),
            timeout=None if timeout is None else _positive(to_timedelta(timeout)),
            retry=_policy(retry),
            discard_on=_exceptions(discard_on),
            grace=to_timedelta(grace),
            isolation=isolation,
            memory=_memory(memory, isolation),
            concurrency=_at_least(1, concurrency, "concurrency"),
            aliases=_aliases(aliases),
        )
    except (InvalidJob, ValueError, TypeError) as error:
        msg = f"@handler({type!r}): {error}"
        raise HandlerError(msg) from error
    if isolation not in (None, *typing.get_args(Isolation)):
        msg = f"@handler({type!r}): isolation must be one of {', '.join(typing.get_args(Isolation))}, not {isolation!r}"
        raise HandlerError(msg)

    def mark(function: F) -> F:
        if isolation == "async" and not inspect.iscoroutinefunction(function):
            msg = f"@handler({type!r}): isolation 'async' needs an 'async def'"
            raise HandlerError(msg)
        if isolation == "thread" and inspect.iscoroutinefunction(function):
            msg = f"@handler({type!r}): an 'async def' runs in an event loop; isolation 'thread' needs a plain 'def'"
            raise HandlerError(msg)
        if isolation == "process" and (reason := _unreachable(function)) is not None:
            msg = f"@handler({type!r}): isolation 'process' needs a function that another process can import: {reason}"
            raise HandlerError(msg)
        setattr(function, _MARK, options)
        return function

    return mark


def lifespan(function: Callable[[], AsyncIterator[object]]) -> Lifespan:
    """Declare a handler module's resources: an async generator that yields once.

    It is entered once a process before the first job and left after the last; what it yields is ``ctx.resources`` in the module's handlers.

    Raises:
        HandlerError: *function* is not an async generator function.
    """
    if not inspect.isasyncgenfunction(function):
        msg = f"@lifespan: {function!r} must be an async generator function: 'async def' with one 'yield'"
        raise HandlerError(msg)
    manager = contextlib.asynccontextmanager(function)
    setattr(manager, _LIFESPAN_MARK, True)
    return manager


def _at_least(least: int, value: int | None, name: str) -> int | None:
    if value is not None and (type(value) is not int or value < least):
        msg = f"{name} must be a whole number of at least {least}, not {value!r}"
        raise ValueError(msg)
    return value


def _policy(retry: object) -> RetryPolicy | None:
    if retry is not None and not isinstance(retry, RetryPolicy):
        msg = f"retry must be a RetryPolicy, not {retry!r}"
        raise TypeError(msg)
    return retry


def _exceptions(given: object) -> ExceptionTypes:
    if not isinstance(given, Sequence) or not all(isinstance(one, type) and issubclass(one, BaseException) for one in given):
        msg = f"discard_on must list exception classes, as in (ValueError,), not {given!r}"
        raise TypeError(msg)
    return tuple(given)


def _aliases(given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        msg = f"aliases must be a list of names, as in ({given!r},)"
        raise TypeError(msg)
    return tuple(check_job_type(alias, "aliases") for alias in given)


def _positive(duration: timedelta) -> timedelta:
    if not duration:
        msg = "timeout must be longer than zero"
        raise ValueError(msg)
    return duration


def _memory(given: int | str | None, isolation: Isolation | None) -> int | None:
    if given is None:
        return None
    if isolation != "process":
        msg = "memory can be capped only with isolation='process': threads and coroutines share their worker's"
        raise ValueError(msg)
    size = parse_size(given) if isinstance(given, str) else given
    if type(size) is not int or size < _LEAST_MEMORY:
        msg = f"memory must be a size such as '512MiB' or a whole number of bytes, at least {format_size(_LEAST_MEMORY)}, not {given!r}"
        raise ValueError(msg)
    return size


def _unreachable(function: Callable[..., object]) -> str | None:
    """Why no other process can import *function*, as far as can be told while its module is being imported; None when it can."""
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        return f"{function!r} has no name"
    if "<" in name:
        return f"{name} is made inside of a function; define it in its module"
    if function.__module__ == "__main__":
        return f"{name} is in the script that is being run; put it into a module"
    return None


def unrunnable(spec: HandlerSpec) -> str | None:
    """Why no worker can run a handler, now that its module has been imported; None when it can."""
    if spec.isolation != "process":
        return None
    found: object = sys.modules.get(spec.function.__module__)
    for name in spec.function.__qualname__.split("."):
        found = getattr(found, name, None)
    if found is spec.function:
        return None
    return f"handler {spec.origin}: isolation 'process' needs a function that another process can import, and under this name there is another"


# Found handlers ------------------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False)
class HandlerSpec:
    """One handler, found and checked, ready to be called."""

    options: Options
    function: Callable[..., Any]
    origin: str
    """Where it comes from, for people: ``handlers_example.handlers:send_email (jobqueue-handlers-example 0.1.0)``."""
    payload_type: Any
    takes_payload: bool
    context_parameter: str | None
    decode: Callable[[bytes], Any]
    lifespan: Lifespan | None = None
    found_in: str | None = None
    """The module that was searched for it; None when it was given as a function."""

    @property
    def type(self) -> str:
        """The job type it serves."""
        return self.options.type

    @property
    def isolation(self) -> Isolation:
        """Where it runs."""
        return self.options.isolation or ("async" if inspect.iscoroutinefunction(self.function) else "thread")

    @property
    def description(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def payload_schema(self) -> dict[str, Any] | None:
        """JSON Schema of its payload; None when its annotation says nothing or cannot be described."""
        if not self.takes_payload or self.payload_type is Any:
            return None
        try:
            return msgspec.json.schema(self.payload_type)
        except (TypeError, RuntimeError):
            return None

    def convert(self, payload_json: bytes) -> Any:
        """The payload as the handler wants it.

        Raises:
            InvalidPayload: It does not fit; the field is the path of what does not (``payload.to``).
        """
        try:
            return self.decode(payload_json)
        except msgspec.ValidationError as error:
            raise _misfit(error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidPayload("payload", f"is not JSON: {error}") from error

    def call(self, payload: object, context: JobContext) -> Any:
        """Call the function as its signature asks."""
        arguments = (payload,) if self.takes_payload else ()
        if self.context_parameter is None:
            return self.function(*arguments)
        return self.function(*arguments, **{self.context_parameter: context})


_PATH = re.compile(r"^(?P<text>.*?)(?: - at `(?:key in )?\$(?P<path>.*)`)?$", re.DOTALL)


def _misfit(error: msgspec.ValidationError) -> InvalidPayload:
    # msgspec writes "Expected `int`, got `str` - at `$.items[0].count`".
    match = _PATH.match(str(error))
    text, path = (match["text"], match["path"] or "") if match else (str(error), "")
    return InvalidPayload("payload" + path.replace("[...]", ".*"), text[:1].lower() + text[1:])


class Registry:
    """The handlers of one process, by job type and alias."""

    def __init__(self) -> None:
        self._by_name: dict[str, HandlerSpec] = {}
        self._specs: list[HandlerSpec] = []

    @classmethod
    def of(cls, *sources: ModuleType | Callable[..., object]) -> Registry:
        """A registry of every handler in some modules, and of single functions.

        Raises:
            HandlerError: As :meth:`add`.
        """
        registry = cls()
        for source in sources:
            registry.add(source)
        return registry

    def add(self, source: ModuleType | Callable[..., object], *, origin: str | None = None) -> None:
        """Add every ``@handler`` of a module, or one decorated function.

        Args:
            source: The module or function.
            origin: The distribution it comes from, for messages.

        Raises:
            HandlerError: A signature is wrong, or the module has two lifespans.
            DuplicateHandler: A type or alias has a handler already.
        """
        if not isinstance(source, ModuleType):
            self._add(source, origin=origin)
            return
        lifespans = [value for value in vars(source).values() if getattr(value, _LIFESPAN_MARK, False)]
        if len(lifespans) > 1:
            msg = f"module {source.__name__} has {len(lifespans)} @lifespan functions; one at most"
            raise HandlerError(msg)
        found = {id(value): value for value in vars(source).values() if isinstance(getattr(value, _MARK, None), Options)}
        for function in found.values():
            self._add(function, origin=origin, found_in=source.__name__, manager=lifespans[0] if lifespans else None)

    def _add(self, function: Callable[..., object], *, origin: str | None, found_in: str | None = None, manager: Lifespan | None = None) -> None:
        spec = attrs.evolve(inspect_handler(function, origin), lifespan=manager, found_in=found_in)
        for name in (spec.type, *spec.options.aliases):
            known = self._by_name.get(name)
            if known is not None and known.function is function:
                return
            if known is not None:
                raise DuplicateHandler(name, known.origin, spec.origin)
        for name in (spec.type, *spec.options.aliases):
            self._by_name[name] = spec
        self._specs.append(spec)

    def get(self, job_type: str) -> HandlerSpec | None:
        """The handler for a type or alias."""
        return self._by_name.get(job_type)

    def __iter__(self) -> Iterator[HandlerSpec]:
        return iter(sorted(self._specs, key=lambda spec: spec.type))

    def __len__(self) -> int:
        return len(self._specs)


def options_of(function: object) -> Options | None:
    """What ``@handler`` was told about *function*; None when it is not decorated."""
    options = getattr(function, _MARK, None)
    return options if isinstance(options, Options) else None


def inspect_handler(function: Callable[..., object], origin: str | None = None) -> HandlerSpec:
    """Read a decorated function's signature.

    Raises:
        HandlerError: It is not decorated, needs other arguments than payload and context, or its annotation cannot be a payload.
    """
    options = options_of(function)
    place = f"{function.__module__}:{getattr(function, '__qualname__', function)}"
    if options is None:
        msg = f"{place} is not decorated with @handler"
        raise HandlerError(msg)
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:  # annotations are a third party's code
        msg = f"handler {place}: its annotations cannot be read: {type(error).__name__}: {error}"
        raise HandlerError(msg) from error
    payload_parameter: inspect.Parameter | None = None
    context_parameter: str | None = None
    for position, parameter in enumerate(inspect.signature(function).parameters.values()):
        if JobContext in (hints.get(parameter.name), *typing.get_args(hints.get(parameter.name))):
            if context_parameter is not None or parameter.kind is parameter.POSITIONAL_ONLY:
                msg = f"handler {place}: {parameter.name!r} cannot be its JobContext: there is one, given by keyword"
                raise HandlerError(msg)
            context_parameter = parameter.name
        elif position == 0 and parameter.kind not in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            payload_parameter = parameter
        elif parameter.default is inspect.Parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            msg = f"handler {place}: it needs {parameter.name!r}, but is called with its payload, and a JobContext where one is annotated, only"
            raise HandlerError(msg)
    payload_type = hints.get(payload_parameter.name, Any) if payload_parameter else Any
    try:
        decode = msgspec.json.Decoder(payload_type).decode
    except (TypeError, RuntimeError) as error:
        msg = f"handler {place}: {payload_type!r} cannot be a payload: {error}"
        raise HandlerError(msg) from error
    return HandlerSpec(
        options=options,
        function=function,
        origin=f"{place} ({origin})" if origin else place,
        payload_type=payload_type,
        takes_payload=payload_parameter is not None,
        context_parameter=context_parameter,
        decode=decode,
    )
