"""Schedules: jobs at the times that an expression names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from msgspec import Meta

from jobqueue_api.http.bodies import NewSchedule, ScheduleChanges
from jobqueue_api.http.operation import Answer, Call, Nothing, operation
from jobqueue_api.http.querystring import Limit, Query
from jobqueue_core.errors import InvalidSchedule
from jobqueue_core.job import rfc3339
from jobqueue_core.objects import InstantText, JobObject, ScheduleObject, ScheduleRunObject

if TYPE_CHECKING:
    from jobqueue_core.storage import Schedule

__all__ = ["ScheduleNext", "ScheduleRun", "ScheduleRuns", "Schedules", "SingleSchedule"]


class RunsQuery(Query):
    """How many runs to list."""

    limit: Limit = 50


class NextQuery(Query):
    """How many ticks to tell."""

    count: Annotated[int, Meta(ge=1, le=500, description="At most so many.")] = 10


class TickObject(TypedDict):
    """When a schedule is due."""

    at: InstantText


class Schedules:
    """All schedules."""

    @operation("listSchedules", "List schedules", tag="schedules", role="read", answers={200: list[ScheduleObject]})
    def on_get(self, call: Call[None, None]) -> Answer:
        """All schedules, by name."""
        return Answer([schedule.to_dict() for schedule in call.operations.schedules.all()])

    @operation(
        "createSchedule",
        "Add a schedule",
        tag="schedules",
        role="admin",
        body=NewSchedule,
        answers={201: ScheduleObject},
        problems=(400, 409, 413, 415),
    )
    def on_post(self, call: Call[None, NewSchedule]) -> Answer:
        """Add a schedule; it is first due at its next tick. A name that is taken is a conflict."""
        schedule = call.operations.schedules.add(**call.body.arguments())
        location = f"{call.request.root_path}{call.request.path.rstrip('/')}/{schedule.name}"
        return Answer(schedule.to_dict(), status=201, headers={"Location": location})


class SingleSchedule:
    """One schedule."""

    @operation("getSchedule", "Get a schedule", tag="schedules", role="read", answers={200: ScheduleObject}, problems=(404,))
    def on_get(self, call: Call[None, None], name: str) -> Answer:
        """A schedule, with its next and its last run."""
        return Answer(call.operations.schedules.get(name).to_dict())

    @operation(
        "changeSchedule",
        "Change a schedule",
        tag="schedules",
        role="admin",
        body=ScheduleChanges,
        answers={200: ScheduleObject},
        problems=(400, 404, 409, 413, 415),
    )
    def on_patch(self, call: Call[None, ScheduleChanges], name: str) -> Answer:
        """Change what is given, or pause and resume it by `paused`. One that stands in a config file can only be paused and resumed here."""
        return Answer(_changed(call, name, call.body.given()).to_dict())

    @operation("deleteSchedule", "Delete a schedule", tag="schedules", role="admin", answers={204: None}, problems=(400, 404, 409))
    def on_delete(self, call: Call[None, None], name: str) -> Nothing:
        """Delete it; the jobs that it has made stay. One that stands in a config file is a conflict."""
        call.operations.schedules.remove(name)
        return Nothing()


class ScheduleRun:
    """Running a schedule by hand."""

    @operation("runSchedule", "Run a schedule now", tag="schedules", role="write", answers={201: JobObject}, problems=(400, 404, 409))
    def on_post(self, call: Call[None, None], name: str) -> Answer:
        """Make a job of it now, whatever its timetable says, and whether or not it is paused."""
        return Answer(call.operations.schedules.run(name).to_dict(), status=201)


class ScheduleRuns:
    """The jobs that a schedule has made."""

    @operation(
        "listScheduleRuns",
        "The jobs that a schedule has made",
        tag="schedules",
        role="read",
        query=RunsQuery,
        answers={200: list[ScheduleRunObject]},
        problems=(404,),
    )
    def on_get(self, call: Call[RunsQuery, None], name: str) -> Answer:
        """The latest jobs that it has made, newest first, and what became of them."""
        return Answer([run.to_dict() for run in call.operations.schedules.runs(name, call.query.limit)])


class ScheduleNext:
    """When a schedule is due."""

    @operation(
        "listScheduleTicks",
        "When a schedule is due next",
        tag="schedules",
        role="read",
        query=NextQuery,
        answers={200: list[TickObject]},
        problems=(404,),
    )
    def on_get(self, call: Call[NextQuery, None], name: str) -> Answer:
        """Its next ticks; fewer where it ends before. Of one that is paused: when it would be due."""
        return Answer([TickObject(at=rfc3339(tick)) for tick in call.operations.schedules.next_runs(name, call.query.count)])


def _changed(call: Call[None, ScheduleChanges], name: str, changes: dict[str, Any]) -> Schedule:
    schedules = call.operations.schedules
    if not changes:
        raise InvalidSchedule("body", "changes nothing: give at least one field")
    paused = changes.pop("paused", None)
    schedule = schedules.edit(name, changes) if changes else schedules.get(name)
    if paused is None:
        return schedule
    return schedules.pause(name) if paused else schedules.resume(name)
