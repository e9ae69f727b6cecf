"""The commands of ``jobqueue`` on a real broker and storage, in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from jobqueue_cli.plugin import jobqueue_commands
from jobqueue_cli.root import Root
from jobqueue_cli.session import Cli
from jobqueue_core.app import App
from jobqueue_core.broker import RunningJob
from jobqueue_core.errors import BrokerUnavailable, StorageUnavailable
from jobqueue_core.recorder import Recorder
from jobqueue_core.testing.factories import completed, died, log_line, report, worker_info

if TYPE_CHECKING:
    from jobqueue_core.job import Job

UNKNOWN = "0199a5d0-0000-7000-8000-000000000000"

Run = Callable[..., Result]


class _Kept(App):
    """Each command closes the app it was given; a test looks at it after many."""

    def close(self) -> None:
        pass


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    (tmp_path / "jobqueue.toml").write_text('[job]\nmax_payload = "1KiB"\n')
    app = _Kept.from_config(tmp_path / "jobqueue.toml", environ={})
    yield app
    App.close(app)


@pytest.fixture
def run(app: App) -> Run:
    def run(*arguments: str, **options: Any) -> Result:
        root = Root({one.name: one for one in jobqueue_commands()}, cli=Cli(open_app=lambda _path: app))
        return CliRunner().invoke(root, arguments, prog_name="jobqueue", **options)

    return run


@pytest.fixture
def answer(run: Run) -> Callable[..., Any]:
    """The JSON that a command answers with, once it has succeeded."""

    def answer(*arguments: str) -> Any:
        result = run(*arguments, "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        return json.loads(result.stdout)

    return answer


def take(app: App, *, queue: str = "default") -> Any:
    (lease,) = app.broker.lease([queue], 1, worker_id="w", lease_for=timedelta(seconds=30), wait=timedelta(0), suspects=1)
    return lease


def kill(app: App, job_type: str = "mail.send", **options: Any) -> Job:
    job = app.queue.enqueue(job_type, {"to": "a"}, **options)
    app.broker.settle([died(take(app, queue=job.queue))], worker_id="w")
    Recorder(broker=app.broker, storage=app.storage).record_waiting()
    return job


# Enqueue -------------------------------------------------------------------------------------------------------------------------------


def test_enqueue_passes_every_option_to_the_job(answer: Callable[..., Any]) -> None:
    words = "enqueue mail.send --queue mail --priority high --delay 1h --expires-in 2h --max-retries 7 --timeout 30s --unique-key k --unique-for 5m"
    job = answer(*words.split(), "--payload", '{"to": "a"}', "--metadata", "a=1", "--metadata", "b=2", "--id", UNKNOWN)
    wanted = {
        "id": UNKNOWN,
        "type": "mail.send",
        "payload": {"to": "a"},
        "queue": "mail",
        "priority": "high",
        "state": "scheduled",
        "max_retries": 7,
        "timeout": "30s",
        "unique_key": "k",
        "metadata": {"a": "1", "b": "2"},
    }
    assert {name: job[name] for name in wanted} == wanted
    assert job["expires_at"] > job["scheduled_at"] > job["created_at"]


def test_enqueue_at_a_time_takes_it_with_its_offset(answer: Callable[..., Any]) -> None:
    job = answer("enqueue", "mail.send", "--at", "2126-11-25 10:00+01:00", "--expires-at", "2126-11-26T00:00Z")
    assert (job["scheduled_at"], job["expires_at"]) == ("2126-11-25T09:00:00Z", "2126-11-26T00:00:00Z")
    assert job["payload"] is None


def test_enqueue_prints_the_id_alone_to_a_pipe(run: Run, app: App) -> None:
    result = run("enqueue", "mail.send", "--payload", "-", input="[1]")
    job = app.queue.get(result.stdout.strip())
    assert job is not None
    assert (job.payload, result.stderr) == ([1], "")


def test_a_duplicate_gives_back_the_job_that_is_there(answer: Callable[..., Any]) -> None:
    first, second = (answer("enqueue", "mail.send", "--unique-key", "k") for _ in range(2))
    assert first["id"] == second["id"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no type"], "is not a job type"),
        (["a", "--queue", "no queue"], "is not a queue name"),
        (["a", "--payload", "{"], "is not JSON"),
        (["a", "--payload", json.dumps("x" * 2000)], "at most 1KiB"),
        (["a", "--at", "2026-11-25 10:00"], "add 'Z' for UTC"),
        (["a", "--delay", "1h", "--at", "2026-11-25T10:00Z"], "cannot be given together"),
        (["a", "--unique-for", "1h"], "needs a unique_key"),
        (["a", "--metadata", "jobqueue.x=1"], "reserved"),
        (["a", "--id", "7"], "is not a UUID"),
        (["a", "--timeout", "0s"], "longer than zero"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_job_that_is_wrong_is_refused_with_status_2(run: Run, app: App, arguments: list[str], says: str) -> None:
    result = run("enqueue", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert app.broker.queues() == []


@pytest.mark.parametrize(("settle", "status", "state"), [(completed, 0, "completed"), (died, 1, "dead")])
def test_waiting_shows_the_finished_job_and_fails_unless_it_completed(
    run: Run, app: App, settle: Callable[..., Any], status: int, state: str
) -> None:
    job = app.queue.enqueue("mail.send")
    app.broker.settle([settle(take(app))], worker_id="w")
    for words in (["job", "wait", job.id], ["enqueue", "mail.send", "--id", job.id, "--wait"]):
        result = run(*words, "--json")
        assert (result.exit_code, json.loads(result.stdout)["state"]) == (status, state)
        assert result.stderr == ("" if status == 0 else f"job {job.id} is dead: ValueError: no\n")


@pytest.mark.parametrize("words", [["enqueue", "a", "--wait-timeout", "20ms"], ["job", "wait", "--timeout", "20ms"]], ids=" ".join)
def test_waiting_in_vain_fails_and_the_job_goes_on(run: Run, app: App, words: list[str]) -> None:
    job = app.queue.enqueue("a", id=UNKNOWN)
    result = run(*words, *(["--id", job.id] if words[0] == "enqueue" else [job.id]))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: job {job.id} is still queued")


# Jobs ----------------------------------------------------------------------------------------------------------------------------------


def test_a_job_is_shown_and_cancelled_once(answer: Callable[..., Any], run: Run, app: App) -> None:
    job = app.queue.enqueue("mail.send", {"to": "a"})
    assert answer("job", "show", job.id) == job.to_dict()
    assert run("job", "cancel", job.id).stdout == f"job {job.id} cancelled\n"
    again = run("job", "cancel", job.id, "--json")
    assert (again.exit_code, json.loads(again.stderr.splitlines()[-1])["code"]) == (1, "finished")


def test_a_running_job_is_asked_to_stop(run: Run, app: App) -> None:
    job = app.queue.enqueue("mail.send")
    take(app)
    assert run("job", "cancel", job.id).stdout == f"job {job.id} is running and was asked to stop\n"


def test_the_log_of_a_job_is_shown(answer: Callable[..., Any], app: App) -> None:
    job = app.queue.enqueue("mail.send")
    app.broker.report([report(take(app), lines=[log_line("hello", level="warning")])], worker_id="w")
    (line,) = answer("job", "logs", job.id)
    assert (line["run"], line["level"], line["message"], line["at"][-1]) == (1, "warning", "hello", "Z")


@pytest.mark.parametrize("words", ["job show", "job cancel", "job wait", "job logs", "dlq show", "dlq retry", "dlq delete"])
def test_what_nobody_knows_is_not_found(run: Run, words: str) -> None:
    result = run(*words.split(), UNKNOWN, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr.splitlines()[-1])["code"] == "not_found"


def test_jobs_are_listed_newest_first_and_filtered(answer: Callable[..., Any], app: App) -> None:
    jobs = [app.queue.enqueue("a", queue=queue, delay=delay) for queue, delay in (("x", None), ("y", None), ("x", "1h"))]
    assert {one["id"] for one in answer("jobs")} == {job.id for job in jobs}
    assert [one["id"] for one in answer("jobs", "--queue", "x", "--state", "scheduled")] == [jobs[2].id]
    assert answer("jobs", "--type", "b") == []
    assert len(answer("jobs", "--limit", "2")) == 2


def test_a_limit_beyond_one_page_is_walked(answer: Callable[..., Any], app: App) -> None:
    app.queue.enqueue_many([{"type": "a"}] * 520)
    assert len({one["id"] for one in answer("jobs", "--limit", "510")}) == 510


# Queues --------------------------------------------------------------------------------------------------------------------------------


def test_a_queue_is_paused_and_resumed(answer: Callable[..., Any], run: Run, app: App) -> None:
    app.queue.enqueue("a", queue="x")
    assert answer("queue", "pause", "x")["paused"] is True
    assert answer("queues")[0]["paused"] is True
    assert run("queue", "resume", "x").stdout == "queue x is not paused\n"
    assert answer("queues")[0]["paused"] is False


def test_a_queue_that_has_never_had_a_job_may_be_paused_and_resumed(answer: Callable[..., Any]) -> None:
    assert answer("queue", "pause", "x")["paused"] is True
    assert answer("queue", "resume", "x")["paused"] is False


def test_purge_cancels_what_waits_without_asking_where_nobody_can_answer(answer: Callable[..., Any], app: App) -> None:
    jobs = [app.queue.enqueue("a", delay=delay) for delay in (None, "1h")]
    assert answer("queue", "purge", "default") == {"queue": "default", "purged": 2}
    assert [app.queue.wait(job.id).state for job in jobs] == ["cancelled", "cancelled"]


@pytest.mark.parametrize(
    ("reply", "words", "purged"), [("y\n", [], 1), ("n\n", [], 0), ("", [], 0), ("", ["--yes"], 1)], ids=["yes", "no", "end of input", "--yes"]
)
def test_purge_asks_at_a_terminal(  # noqa: PLR0917 - fixtures and parameters
    run: Run, app: App, monkeypatch: pytest.MonkeyPatch, reply: str, words: list[str], purged: int
) -> None:
    monkeypatch.setattr(Cli, "confirm", _confirming_as_at_a_terminal)
    job = app.queue.enqueue("a")
    result = run("queue", "purge", "default", *words, input=reply)
    assert (result.exit_code, job_state(app, job)) == ((0, "cancelled") if purged else (1, "queued"))
    assert ("Cancel 1 job of queue default?" in result.stderr) is not bool(words)
    assert "Cancel" not in result.stdout


def _confirming_as_at_a_terminal(self: Cli, question: str, *, yes: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stdin, "isatty", lambda: True)
        CONFIRM(self, question, yes=yes)


CONFIRM = Cli.confirm


def job_state(app: App, job: Job) -> str:
    found = app.queue.get(job.id)
    assert found is not None
    return found.state.value


def test_purging_an_unknown_queue_fails(run: Run) -> None:
    assert run("queue", "purge", "x", "--yes").stderr == "error: no queue 'x'\n"


# Dead letters --------------------------------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_grouped_and_shown(answer: Callable[..., Any], app: App) -> None:
    mail, report_ = kill(app), kill(app, "report.make", queue="reports")
    assert [one["job_id"] for one in answer("dlq", "list")] == [report_.id, mail.id]
    assert [one["job_id"] for one in answer("dlq", "list", "--type", "mail.send")] == [mail.id]
    assert [one["job_id"] for one in answer("dlq", "list", "--queue", "reports")] == [report_.id]
    assert {one["type"]: one["count"] for one in answer("dlq", "groups")} == {"mail.send": 1, "report.make": 1}
    assert answer("dlq", "show", mail.id)["error"] == "ValueError: no"


def test_one_dead_letter_is_retried_as_it_was_or_with_another_payload(answer: Callable[..., Any], run: Run, app: App) -> None:
    first, second = kill(app), kill(app)
    assert answer("dlq", "retry", first.id)["payload"] == {"to": "a"}
    assert answer("dlq", "retry", second.id, "--payload", "null")["payload"] is None
    again = run("dlq", "retry", first.id, "--json")
    assert (again.exit_code, json.loads(again.stderr.splitlines()[-1])["code"]) == (1, "not_open")
    assert answer("dlq", "list") == []
    assert len(answer("dlq", "list", "--state", "all")) == 2


def test_several_dead_letters_are_retried_even_when_one_cannot_be(run: Run, app: App) -> None:
    first, second = kill(app), kill(app)
    result = run("dlq", "retry", first.id, UNKNOWN, second.id)
    assert result.exit_code == 1
    assert result.stdout == f"job {first.id} lives again\njob {second.id} lives again\n"
    assert result.stderr == f"error: no dead letter '{UNKNOWN}'\n"


def test_dead_letters_are_deleted_by_id(answer: Callable[..., Any], app: App) -> None:
    first, second, third = kill(app), kill(app), kill(app)
    assert answer("dlq", "delete", first.id)["state"] == "discarded"
    assert [one["job_id"] for one in answer("dlq", "delete", second.id, third.id)] == [second.id, third.id]
    assert answer("dlq", "list") == []


@pytest.mark.parametrize(("verb", "after"), [("retry", "requeued"), ("delete", "discarded")])
def test_a_bulk_action_takes_those_that_match_and_a_dry_run_only_counts(answer: Callable[..., Any], app: App, verb: str, after: str) -> None:
    chosen, other = kill(app), kill(app, "report.make")
    dry = answer("dlq", verb, "--all", "--type", "mail.send", "--dry-run")
    assert dry == {"matched": 1, "done": 0, "skipped": 0, "dry_run": True}
    assert len(answer("dlq", "list")) == 2
    assert answer("dlq", verb, "--all", "--type", "mail.send")["done"] == 1
    assert {one["job_id"]: one["state"] for one in answer("dlq", "list", "--state", "all")} == {chosen.id: after, other.id: "open"}


def test_a_group_is_retried_by_its_fingerprint(answer: Callable[..., Any], app: App) -> None:
    kill(app), kill(app), kill(app, "report.make")
    fingerprint = answer("dlq", "groups", "--type", "mail.send")[0]["fingerprint"]
    assert answer("dlq", "retry", "--all", "--fingerprint", fingerprint)["done"] == 2


@pytest.mark.parametrize(
    "words",
    [
        "retry",
        f"retry {UNKNOWN} --all",
        f"retry {UNKNOWN} --type a",
        f"retry {UNKNOWN} --dry-run",
        "retry --all --payload 1",
        "delete",
        "delete --type a",
    ],
)
def test_ids_and_filters_are_not_mixed(run: Run, words: str) -> None:
    assert run("dlq", *words.split()).exit_code == 2


@pytest.mark.parametrize("words", [["--all"], ["ID"]], ids=["all", "id"])
def test_deleting_dead_letters_asks_at_a_terminal(run: Run, app: App, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(Cli, "confirm", _confirming_as_at_a_terminal)
    job = kill(app)
    arguments = [job.id if word == "ID" else word for word in words]
    refused = run("dlq", "delete", *arguments, input="n\n")
    assert (refused.exit_code, app.operations.dead_letter(job.id).state) == (1, "open")
    assert "Discard 1 dead letter?" in refused.stderr
    assert run("dlq", "delete", *arguments, "--yes").exit_code == 0


# History, workers, statistics, installed ------------------------------------------------------------------------------------------------


def test_executions_are_listed_and_filtered(answer: Callable[..., Any], app: App) -> None:
    dead, other = kill(app), kill(app, "report.make")
    assert [one["job_id"] for one in answer("executions")] == [other.id, dead.id]
    assert [one["job_id"] for one in answer("executions", "--job", dead.id)] == [dead.id]
    assert [one["job_id"] for one in answer("executions", "--type", "report.make", "--state", "dead", "--queue", "default")] == [other.id]
    assert answer("executions", "--job", dead.id, "--state", "completed") == []
    assert answer("executions", "--job", UNKNOWN) == []


def test_workers_are_listed(answer: Callable[..., Any], app: App) -> None:
    app.broker.beat(worker_info("w-1", host="h"))
    assert [(one["id"], one["host"]) for one in answer("workers")] == [("w-1", "h")]


def running(*types: str) -> tuple[RunningJob, ...]:
    """Jobs that run, each for a minute less than the one before."""
    start = datetime(2026, 11, 24, 10, tzinfo=UTC)
    return tuple(RunningJob(f"job-{number}", name, start + number * timedelta(minutes=1)) for number, name in enumerate(types))


def test_a_workers_row_says_what_it_runs_and_stays_a_line_however_many(run: Run, app: App) -> None:
    app.broker.beat(worker_info("w-1", running=running("report", *["mail"] * 400, "sum", "fetch", "scan"), concurrency=500))
    app.broker.beat(worker_info("w-2"))
    busy, idle = (line.split("\t") for line in run("workers").stdout.splitlines())
    assert busy[5:8] == ["404/500", "report, mail x400, sum, 2 more types", "2026-11-24T10:00:00Z"]
    assert idle[5:8] == ["0/10", "-", "-"]


def test_the_running_jobs_of_all_workers_are_listed_the_longest_first(run: Run, answer: Callable[..., Any], app: App) -> None:
    first, second, third = running("a", "b", "c")
    app.broker.beat(worker_info("w-1", host="h1", running=(third, first)))
    app.broker.beat(worker_info("w-2", host="h2", running=(second,)))
    rows = answer("workers", "--running")
    assert [" ".join(row[name] for name in ("job_id", "worker_id", "host")) for row in rows] == ["job-0 w-1 h1", "job-1 w-2 h2", "job-2 w-1 h1"]
    assert run("workers", "--running").stdout.splitlines()[0].split("\t")[:5] == ["2026-11-24T10:00:00Z", "job-0", "a", "mill", "h1"]


def test_statistics_are_those_of_the_operations(answer: Callable[..., Any], app: App) -> None:
    kill(app)
    stats = answer("stats")
    assert (stats["dead_letter_count"], stats["executions_24h"]["dead"], stats["totals"]["enqueued"]) == (1, 1, 1)


def test_plugins_and_handlers_are_listed(answer: Callable[..., Any]) -> None:
    assert {"cli", "sqlite", "core"} <= {one["name"] for one in answer("plugins")}
    assert all({"type", "queue", "payload_schema", "origin"} <= set(one) for one in answer("handlers"))


@pytest.mark.parametrize(("command", "stamp"), [("dlq list", "died_at"), ("executions", "finished_at")])
def test_what_has_ended_can_be_narrowed_by_time(app: App, answer: Callable[..., Any], command: str, stamp: str) -> None:
    first, second, third = (kill(app).id for _ in range(3))
    listed = answer(*command.split())
    assert [one["job_id"] for one in listed] == [third, second, first]
    middle = listed[1][stamp]
    ids = lambda *words: [one["job_id"] for one in answer(*command.split(), *words)]  # noqa: E731 - shorter than a function with its types
    assert ids("--since", middle) == [third, second]
    assert ids("--until", middle) == ([second, first] if command == "dlq list" else [first])
    assert ids("--since", "1h") == [third, second, first]
    assert ids("--until", "1h") == []
    assert ids("--since", "1h", "--until", listed[0][stamp])[-1] == first


def test_a_bulk_retry_can_be_narrowed_by_time(app: App, answer: Callable[..., Any]) -> None:
    first, second = (kill(app) for _ in range(2))
    died_at = answer("dlq", "show", first.id)["died_at"]
    assert answer("dlq", "groups", "--until", died_at)[0]["count"] == 1
    assert answer("dlq", "retry", "--all", "--until", died_at)["done"] == 1
    assert [one["job_id"] for one in answer("dlq", "list")] == [second.id]


@pytest.mark.parametrize(
    ("error", "says"),
    [(KeyboardInterrupt(), "error: stopped before it was done"), (BrokerUnavailable("the broker is away"), "error: the broker is away")],
    ids=["interrupt", "broker"],
)
def test_a_bulk_retry_that_is_broken_off_says_how_far_it_came_and_exits_with_1(
    run: Run, app: App, monkeypatch: pytest.MonkeyPatch, error: BaseException, says: str
) -> None:
    for _ in range(3):
        kill(app)
    requeue, sent = app.broker.requeue, []

    def break_off(job: Job, **options: Any) -> Any:
        if len(sent) == 2:
            raise error
        sent.append(job)
        return requeue(job, **options)

    monkeypatch.setattr(app.broker, "requeue", break_off)
    result = run("dlq", "retry", "--all")
    assert (result.exit_code, result.stdout) == (1, "")
    said = [line for line in result.stderr.splitlines() if line]
    assert said[0].startswith("retried 2 of 3 dead letters before it was broken off; what was under way is settled within two minutes")
    assert said[1:] == [says]


def test_a_bulk_action_that_never_began_says_only_why(run: Run, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: Any) -> None:
        raise StorageUnavailable("storage is away")

    monkeypatch.setattr(app.storage, "count_dead_letters", away)
    for words in ("retry", "delete"):
        result = run("dlq", words, "--all")
        assert (result.exit_code, result.stdout, result.stderr.splitlines()) == (1, "", ["error: storage is away"])


@pytest.mark.parametrize("words", ["jobs", "queues", "dlq list", "dlq groups", "executions", "workers", "stats", "plugins", "handlers", "doctor"])
def test_plain_lines_have_as_many_cells_each(run: Run, app: App, words: str) -> None:
    kill(app)
    app.broker.beat(worker_info(queues=("default",)))
    lines = run(*words.split()).stdout.splitlines()
    assert lines or words == "handlers"
    assert len({line.count("\t") for line in lines}) <= 1


def test_what_is_done_is_logged_under_the_users_name(run: Run, app: App, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    with caplog.at_level("INFO", logger="jobqueue.operations"):
        run("queue", "pause", "x")
    assert [record.fields["actor"] for record in caplog.records] == ["cli:ada"]  # type: ignore[attr-defined]  # an extra
