"""Makes what a worker needs for each of its handlers: a plan, and for some a process."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from jobqueue_core.errors import HandlerError
from jobqueue_core.handlers import unrunnable
from jobqueue_core.worker.isolation.messages import HandlerAddress, Setup
from jobqueue_core.worker.plan import JobDefaults, Plan

if TYPE_CHECKING:
    from jobqueue_core.attempt import Outcome
    from jobqueue_core.context import JobContext
    from jobqueue_core.handlers import HandlerSpec, Lifespan, Registry
    from jobqueue_core.middleware import Middleware
    from jobqueue_core.worker.options import HandlerProcessOptions

__all__ = ["lifespans", "make_plans", "process_setup"]


def make_plans(
    registry: Registry,
    *,
    bundled: Sequence[Middleware],
    middleware: Sequence[Middleware],
    defaults: JobDefaults,
    elsewhere: Callable[[Plan, JobContext], Outcome] | None,
) -> dict[str, Plan]:
    """A plan for each handler, by type and alias.

    Args:
        registry: The handlers.
        bundled: The worker's own middleware, outside of all other.
        middleware: The others; of a handler with a process of its own they are in that process.
        defaults: What counts for a job when neither it nor its handler says otherwise.
        elsewhere: Runs a handler in a process of its own; None when no handler asks for one.

    Raises:
        HandlerError: A handler cannot be run.
    """
    plans: dict[str, Plan] = {}
    for spec in registry:
        if (reason := unrunnable(spec)) is not None:
            raise HandlerError(reason)
        if spec.isolation == "process":
            plan = Plan(spec, middleware=bundled, defaults=defaults, elsewhere=elsewhere)
        else:
            plan = Plan(spec, middleware=(*bundled, *middleware), defaults=defaults)
        for name in (spec.type, *spec.options.aliases):
            plans[name] = plan
    return plans


def process_setup(registry: Registry, *, defaults: JobDefaults, worker_id: str, options: HandlerProcessOptions) -> Setup | None:
    """What handler processes are told; None when no handler asks for one.

    Raises:
        HandlerError: Something of it cannot be sent to another process.
    """
    addresses = tuple(_address(spec) for spec in registry if spec.isolation == "process")
    if not addresses:
        return None
    setup = Setup(
        handlers=addresses,
        middleware=options.middleware,
        defaults=defaults,
        worker_id=worker_id,
        log=options.log,
        log_level=logging.getLogger("jobqueue.job").getEffectiveLevel(),
    )
    try:
        pickle.dumps(setup)
    except Exception as error:
        msg = (
            f"handlers with isolation='process' ({', '.join(one.type for one in addresses)}) cannot be run beside this middleware, "
            f"which cannot be sent to their processes: {error}; middleware must be functions of a module"
        )
        raise HandlerError(msg) from error
    return setup


def _address(spec: HandlerSpec) -> HandlerAddress:
    if spec.found_in is not None:
        return HandlerAddress(type=spec.type, module=spec.found_in)
    return HandlerAddress(type=spec.type, module=spec.function.__module__, function=spec.function.__qualname__)


def lifespans(plans: Iterable[Plan]) -> list[tuple[Lifespan, list[Plan]]]:
    """The lifespans of *plans*, each with the plans of its module."""
    found: dict[int, tuple[Lifespan, list[Plan]]] = {}
    for plan in plans:
        if plan.spec.lifespan is not None:
            found.setdefault(id(plan.spec.lifespan), (plan.spec.lifespan, []))[1].append(plan)
    return list(found.values())
