"""Declaring handlers, finding them, and giving them the payload they ask for."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, NotRequired, TypedDict
from uuid import UUID

import attrs
import msgspec
import pytest

from jobqueue_core import HandlerError, InvalidPayload, Job, JobContext, JobState, Priority, Registry, RetryPolicy, handler, lifespan
from jobqueue_core.errors import DuplicateHandler
from jobqueue_core.handlers import HandlerSpec, inspect_handler, options_of, unrunnable


@attrs.define
class AttrsPayload:
    to: str
    count: int = 1


@dataclasses.dataclass
class DataPayload:
    to: str
    count: int = 1


class StructPayload(msgspec.Struct):
    to: str
    count: int = 1


class DictPayload(TypedDict):
    to: str
    count: NotRequired[int]


@attrs.define
class Order:
    items: list[StructPayload]
    by_name: dict[str, StructPayload] = attrs.field(factory=dict)


@attrs.define
class Even:
    n: int = attrs.field(validator=attrs.validators.in_((0, 2, 4)))


class Color(enum.Enum):
    RED = "red"


def in_module(payload: object) -> None: ...


async def waiting_in_module(payload: object) -> None: ...


def job(payload_json: bytes = b"{}") -> Job:
    return Job(
        id="01890a5d-ac96-774b-bcce-b302099a8057",
        type="t",
        payload_json=payload_json,
        queue="default",
        priority=Priority.MEDIUM,
        state=JobState.PROCESSING,
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
        run=1,
    )


def spec(function: Callable[..., object], **options: Any) -> HandlerSpec:
    return inspect_handler(handler("t", **options)(function))


def taking(kind: Any) -> HandlerSpec:
    def take(payload: Any) -> Any:
        return payload

    take.__annotations__ = {"payload": kind}
    return spec(take)


def module(name: str, **members: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


# Declaring -----------------------------------------------------------------------------------------------------------------------------


def test_the_decorator_returns_the_function_unchanged() -> None:
    def send(payload: object) -> object:
        return payload

    assert handler("email.send")(send) is send
    assert send(3) == 3


def test_options_that_are_not_given_stay_open() -> None:
    def send(payload: object) -> None: ...

    options = options_of(handler("email.send")(send))
    assert options is not None
    assert (options.queue, options.priority, options.max_retries, options.timeout, options.retry, options.isolation) == (None,) * 6


def test_options_are_read_as_people_write_them() -> None:
    def send(payload: object) -> None: ...

    policy = RetryPolicy(base="1s")
    options = options_of(
        handler(
            "email.send", queue="mail", priority="high", max_retries=0, timeout="1m30s", retry=policy, discard_on=[KeyError], aliases=["mail.send"]
        )(send)
    )
    assert options is not None
    assert (options.queue, options.priority, options.max_retries, options.timeout) == ("mail", Priority.HIGH, 0, timedelta(seconds=90))
    assert (options.retry, options.discard_on, options.aliases) == (policy, (KeyError,), ("mail.send",))


@pytest.mark.parametrize(
    "options",
    [
        {"type": ""},
        {"type": "no spaces"},
        {"queue": "a:b"},
        {"priority": "urgent"},
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": True},
        {"timeout": "0s"},
        {"timeout": "soon"},
        {"timeout": timedelta(seconds=-1)},
        {"timeout": 30},
        {"concurrency": 0},
        {"isolation": "fiber"},
        {"retry": "10s"},
        {"discard_on": ValueError},
        {"discard_on": ("ValueError",)},
        {"discard_on": (ValueError("x"),)},
        {"aliases": "mail.send"},
        {"aliases": ("not a type",)},
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_where_it_is_declared_and_names_the_type(options: dict[str, Any]) -> None:
    with pytest.raises(HandlerError, match="@handler") as caught:
        handler(**{"type": "email.send", **options})
    assert repr(options.get("type", "email.send")) in str(caught.value)


def test_a_function_runs_where_its_kind_belongs_unless_told_otherwise() -> None:
    def plain(payload: object) -> None: ...

    async def waiting(payload: object) -> None: ...

    assert (spec(plain).isolation, spec(waiting).isolation) == ("thread", "async")
    assert {spec(function, isolation="process").isolation for function in (in_module, waiting_in_module)} == {"process"}


def test_an_async_def_cannot_run_in_a_thread() -> None:
    async def waiting(payload: object) -> None: ...

    with pytest.raises(HandlerError, match="async def"):
        handler("t", isolation="thread")(waiting)


def test_a_function_that_no_other_process_can_import_is_refused_for_one() -> None:
    def local(payload: object) -> None: ...

    with pytest.raises(HandlerError, match=r"'process' needs a function that another process can import: .*local is made inside"):
        handler("t", isolation="process")(local)
    with pytest.raises(HandlerError, match="lambda"):
        handler("t", isolation="process")(lambda payload: payload)
    script = eval("lambda payload: payload", {"__name__": "__main__"})
    script.__qualname__ = "run"
    with pytest.raises(HandlerError, match="in the script that is being run; put it into a module"):
        handler("t", isolation="process")(script)


def test_a_name_that_leads_another_process_to_another_function_is_refused() -> None:
    def wrapped(payload: object) -> None: ...

    wrapped.__qualname__ = "in_module"
    reason = unrunnable(spec(wrapped, isolation="process"))
    assert reason is not None
    assert "in_module" in reason
    assert unrunnable(spec(in_module, isolation="process")) is None


@pytest.mark.parametrize("isolation", [None, "thread"])
def test_memory_can_be_capped_in_a_process_only(isolation: Any) -> None:
    with pytest.raises(HandlerError, match=r"memory can be capped only with isolation='process'"):
        handler("t", memory="64MiB", isolation=isolation)
    assert handler("t", memory="64MiB", isolation="process")(in_module).__dict__["__jobqueue_handler__"].memory == 64 << 20


@pytest.mark.parametrize("memory", ["much", "1 MB", "1MiB", 0, -1, 1.5, True])
def test_a_memory_cap_that_is_no_size_is_refused(memory: Any) -> None:
    with pytest.raises(HandlerError, match=r"@handler\('t'\): .*(size|memory)"):
        handler("t", memory=memory, isolation="process")


@pytest.mark.parametrize("grace", ["soon", -1, "-1s"])
def test_a_grace_that_is_no_duration_is_refused(grace: Any) -> None:
    with pytest.raises(HandlerError, match=r"@handler\('t'\): "):
        handler("t", grace=grace)


def test_a_plain_def_cannot_run_in_the_event_loop() -> None:
    def plain(payload: object) -> None: ...

    with pytest.raises(HandlerError, match="needs an 'async def'"):
        handler("t", isolation="async")(plain)


# Signatures ----------------------------------------------------------------------------------------------------------------------------


def nothing() -> str:
    return "nothing"


def only_payload(payload):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - a handler without annotations
    return payload


def only_context(ctx: JobContext) -> object:
    return ctx.run


def context_last(payload: dict[str, int], ctx: JobContext) -> object:
    return payload, ctx.run


def context_by_keyword(payload: dict[str, int], *, ctx: JobContext) -> object:
    return payload, ctx.run


def context_after_a_default(payload: dict[str, int], dry_run: bool = False, *more: object, ctx: JobContext, **rest: object) -> object:  # noqa: FBT002 - a handler's own parameter
    return payload, ctx.run, dry_run, more, rest


def context_under_another_name(payload: dict[str, int], this_run: JobContext) -> object:
    return payload, this_run.run


def context_that_may_be_missing(payload: dict[str, int], ctx: JobContext | None = None) -> object:
    return payload, ctx and ctx.run


def context_as_text(payload: "dict[str, int]", ctx: "JobContext") -> object:  # noqa: UP037 - what is tested
    return payload, ctx.run


def positional_only(payload: dict[str, int], /) -> object:
    return payload


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (nothing, "nothing"),
        (only_payload, {"a": 1}),
        (only_context, 1),
        (context_last, ({"a": 1}, 1)),
        (context_by_keyword, ({"a": 1}, 1)),
        (context_after_a_default, ({"a": 1}, 1, False, (), {})),
        (context_under_another_name, ({"a": 1}, 1)),
        (context_that_may_be_missing, ({"a": 1}, 1)),
        (context_as_text, ({"a": 1}, 1)),
        (positional_only, {"a": 1}),
    ],
)
def test_a_handler_is_called_as_its_signature_asks(function: Callable[..., object], answer: object) -> None:
    found = spec(function)
    payload = found.convert(b'{"a":1}')
    assert found.call(payload, JobContext(job())) == answer


def too_many(payload: object, other: object) -> None: ...


def context_first(ctx: JobContext, payload: object) -> None: ...


def two_contexts(payload: object, ctx: JobContext, other: JobContext) -> None: ...


def context_by_position_only(ctx: JobContext, /) -> None: ...


def payload_by_keyword_only(*, payload: object) -> None: ...


def unknown_annotation(payload: NotThere) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - what is tested


def no_payload(payload: StructPayload | AttrsPayload) -> None: ...


@pytest.mark.parametrize(
    ("function", "culprit"),
    [
        (too_many, "'other'"),
        (context_first, "'payload'"),
        (two_contexts, "'other'"),
        (context_by_position_only, "'ctx'"),
        (payload_by_keyword_only, "'payload'"),
        (unknown_annotation, "NotThere"),
        (no_payload, "cannot be a payload"),
    ],
)
def test_a_signature_that_cannot_be_served_is_refused_and_names_handler_and_culprit(function: Callable[..., object], culprit: str) -> None:
    with pytest.raises(HandlerError) as caught:
        spec(function)
    assert culprit in str(caught.value)
    assert function.__name__ in str(caught.value)


def test_a_function_without_the_decorator_is_no_handler() -> None:
    with pytest.raises(HandlerError, match="not decorated"):
        inspect_handler(lambda payload: payload)


# Conversion ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AttrsPayload, DataPayload, StructPayload])
def test_a_payload_becomes_an_instance_of_its_class(kind: Any) -> None:
    assert taking(kind).convert(b'{"to":"a@b.c","count":2}') == kind("a@b.c", 2)
    assert taking(kind).convert(b'{"to":"a@b.c","later":1}') == kind("a@b.c", 1), "what a newer producer has added is ignored"


@pytest.mark.parametrize(
    ("kind", "payload", "value"),
    [
        (DictPayload, b'{"to":"a"}', {"to": "a"}),
        (int, b"3", 3),
        (str, b'"x"', "x"),
        (float, b"3", 3.0),
        (list[int], b"[1,2]", [1, 2]),
        (tuple[int, str], b'[1,"a"]', (1, "a")),
        (dict[int, str], b'{"1":"a"}', {1: "a"}),
        (set[int], b"[1,1]", {1}),
        (int | None, b"null", None),
        (Color, b'"red"', Color.RED),
        (datetime, b'"2030-01-01T00:00:00Z"', datetime(2030, 1, 1, tzinfo=UTC)),
        (UUID, b'"01890a5d-ac96-774b-bcce-b302099a8057"', UUID("01890a5d-ac96-774b-bcce-b302099a8057")),
        (bytes, b'"eA=="', b"x"),
        (Any, b'{"a":[1]}', {"a": [1]}),
        (object, b"null", None),
    ],
)
def test_a_payload_is_converted_to_its_annotation(kind: Any, payload: bytes, value: object) -> None:
    assert taking(kind).convert(payload) == value


@pytest.mark.parametrize(
    ("kind", "payload", "field"),
    [
        (AttrsPayload, b'{"to":1}', "payload.to"),
        (DataPayload, b'{"to":"a","count":"2"}', "payload.count"),
        (StructPayload, b'{"to":null}', "payload.to"),
        (StructPayload, b"{}", "payload"),
        (DictPayload, b'{"to":[]}', "payload.to"),
        (Order, b'{"items":[{"to":"a"},{"to":2}]}', "payload.items.*.to"),
        (Order, b'{"items":[],"by_name":{"x":{"to":2}}}', "payload.by_name.*.to"),
        (int, b'"3"', "payload"),
        (int, b"3.5", "payload"),
        (Color, b'"blue"', "payload"),
        (Even, b'{"n":3}', "payload"),
        (dict[int, str], b'{"a":"b"}', "payload"),
        (object, b"{", "payload"),
        (object, b"", "payload"),
        (object, b'"\xff"', "payload"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_with_the_path_of_what_does_not(kind: Any, payload: bytes, field: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        taking(kind).convert(payload)
    assert caught.value.field.replace("[1]", ".*").startswith(field)
    assert str(caught.value).startswith(f"{caught.value.field}: ")


def test_text_that_looks_like_a_path_confuses_no_error() -> None:
    with pytest.raises(InvalidPayload) as caught:
        taking(dict[str, int]).convert(b'{"a - at `$.b`":"x"}')
    assert caught.value.field.startswith("payload")


def test_a_deep_payload_is_refused_and_no_recursion_error() -> None:
    with pytest.raises(InvalidPayload):
        taking(Any).convert(b"[" * 200_000 + b"]" * 200_000)


def test_the_schema_describes_the_payload() -> None:
    schema = taking(StructPayload).payload_schema()
    assert schema is not None
    assert schema["$defs"]["StructPayload"]["required"] == ["to"]
    assert taking(Any).payload_schema() is None
    assert spec(nothing).payload_schema() is None


def test_the_description_is_the_first_line_of_the_docstring() -> None:
    def send(payload: object) -> None:
        """Send a mail.

        And more.
        """

    assert spec(send).description == "Send a mail."
    assert spec(nothing).description == ""


# The registry --------------------------------------------------------------------------------------------------------------------------


def make(name: str, **options: Any) -> Callable[..., object]:
    def run(payload: object) -> None: ...

    run.__qualname__ = f"run_{name.replace('.', '_')}"
    return handler(name, **options)(run)


def test_every_handler_of_a_module_is_found_by_type_and_alias() -> None:
    registry = Registry.of(module("m", b=make("b"), a=make("a", aliases=["old.a"]), other=3, also=len))
    assert [one.type for one in registry] == ["a", "b"]
    assert registry.get("old.a") is registry.get("a")
    assert registry.get("c") is None
    assert len(registry) == 2


def test_a_handler_under_two_names_or_in_two_modules_counts_once() -> None:
    one = make("a", aliases=["b"])
    assert len(Registry.of(module("m", one=one, same=one), module("n", one=one), one)) == 1


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (make("a"), make("a"), "a"),
        (make("a"), make("b", aliases=["a"]), "a"),
        (make("a", aliases=["b"]), make("b"), "b"),
        (make("a", aliases=["x"]), make("b", aliases=["x"]), "x"),
    ],
)
def test_two_handlers_for_one_type_are_an_error_that_names_both(first: Callable[..., object], second: Callable[..., object], clash: str) -> None:
    registry = Registry()
    registry.add(first, origin="package-one 1.0")
    with pytest.raises(DuplicateHandler) as caught:
        registry.add(second, origin="package-two 2.0")
    assert caught.value.job_type == clash
    assert "package-one 1.0" in str(caught.value)
    assert "package-two 2.0" in str(caught.value)


def test_a_module_has_one_lifespan_at_most() -> None:
    async def resources() -> AsyncIterator[object]:
        yield 1

    with pytest.raises(HandlerError, match="2 @lifespan"):
        Registry.of(module("m", one=lifespan(resources), two=lifespan(resources), a=make("a")))


def test_the_handlers_of_a_module_have_its_lifespan() -> None:
    async def resources() -> AsyncIterator[object]:
        yield 1

    managed = lifespan(resources)
    registry = Registry.of(module("m", managed=managed, a=make("a")), make("b"))
    found, other = registry.get("a"), registry.get("b")
    assert found is not None
    assert other is not None
    assert (found.lifespan, other.lifespan) == (managed, None)


def test_a_lifespan_must_be_an_async_generator_function() -> None:
    async def no_generator() -> None: ...

    def plain() -> None: ...

    for wrong in (no_generator, plain):
        with pytest.raises(HandlerError, match="async generator"):
            lifespan(wrong)  # type: ignore[arg-type]  # what is tested
