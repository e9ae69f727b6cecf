"""Jobs are taken in: what was accepted is there, as it was given, once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from jobqueue_core.job import Idempotency, JobState, NewJob, Priority, new_job_id
from jobqueue_core.lifecycle import accept
from jobqueue_core.testing.broker_suite.arrangement import SECOND, BrokerArrangement, OpenBroker
from jobqueue_core.testing.factories import completed, died, new_job, new_jobs

if TYPE_CHECKING:
    from jobqueue_core.broker import Broker
    from jobqueue_core.testing.clock import Clock

_ODD_PAYLOAD = (
    b'{"z": 1, "a":  [1.10, 1e3, -0.0],"big":123456789012345678901234567890123,"nul":"\\u0000\\ud83d\\ude00","raw":"\xf0\x9f\x98\x80 \\/","b":null}'
)


class EnqueueContract(BrokerArrangement):
    """``Producer.enqueue``, but for keys."""

    def test_an_accepted_job_is_what_the_life_cycle_makes_of_the_request(self, broker: Broker, other: Broker) -> None:
        now = broker.now()
        instant = now.replace(microsecond=123_000)
        new = new_job(
            queue="mail",
            type="email.send:v2",
            payload_json=_ODD_PAYLOAD,
            priority=Priority.HIGH,
            scheduled_at=instant + timedelta(hours=1),
            expires_at=instant + timedelta(hours=2),
            max_retries=7,
            timeout=timedelta(milliseconds=1500),
            unique_key="welcome:42 ü/😀",
            unique_for=timedelta(minutes=5),
            metadata={"tenant": "zürich", "empty": "", "quotes": "'\"\\\n\u0000"},
            headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
        )
        job = self.put(broker, new)
        assert job == accept(new, job.created_at)
        assert now <= job.created_at <= broker.now()
        assert broker.get([new.id]) == other.get([new.id]) == [job]

    @pytest.mark.parametrize(
        "payload",
        [_ODD_PAYLOAD, b"null", b"[]", b'""', b'"\\u0000"', b"0.1e-7", b'{"b":1,"a":2,"b":3}', b" {} \n", b'"' + b"x" * (1 << 20) + b'"'],
        ids=lambda one: repr(one[:20]),
    )
    def test_a_payload_reaches_the_worker_byte_for_byte(self, broker: Broker, other: Broker, payload: bytes) -> None:
        job = self.put(broker, payload_json=payload)
        assert job.payload_json == payload
        assert self.take_one(other).job.payload_json == payload

    def test_a_job_without_options_leaves_them_unset_for_the_worker(self, broker: Broker) -> None:
        job = self.begin(broker).job
        assert (job.max_retries, job.timeout, job.scheduled_at, job.expires_at, job.unique_key) == (None, None, None, None, None)
        assert (job.retry_count, job.attempt, job.crashes, job.deaths) == (0, 1, 0, 0)

    def test_a_delay_and_an_expiry_count_from_acceptance(self, broker: Broker) -> None:
        job = self.put(broker, delay=timedelta(minutes=1), expires_in=timedelta(minutes=2))
        assert job.state is JobState.SCHEDULED
        assert job.scheduled_at == job.created_at + timedelta(minutes=1)
        assert job.expires_at == job.created_at + timedelta(minutes=2)

    def test_a_job_scheduled_in_the_past_is_due_at_once(self, broker: Broker) -> None:
        past = broker.now().replace(microsecond=0) - timedelta(hours=1)
        job = self.put(broker, scheduled_at=past)
        assert (job.state, job.scheduled_at) == (JobState.QUEUED, past)
        assert self.take_one(broker).job.id == job.id

    def test_enqueueing_an_id_again_answers_with_the_job_that_is_there(self, broker: Broker, other: Broker) -> None:
        new = new_job(payload_json=b"1")
        job = self.put(broker, new)
        (again,) = other.enqueue([replace(new, payload_json=b"2", priority=Priority.LOW)])
        assert (again.status, again.job, again.problem) == ("existing", job, None)
        assert [lease.job.id for lease in self.take(broker)] == [job.id]

    def test_enqueueing_an_id_again_makes_no_second_job_of_one_that_runs_or_has_ended(self, broker: Broker) -> None:
        new = new_job()
        self.put(broker, new)
        lease = self.take_one(broker)
        (running,) = broker.enqueue([new])
        assert running.job is not None
        assert (running.status, running.job.state) == ("existing", JobState.PROCESSING)
        self.end(broker, completed(lease, b"42"))
        (ended,) = broker.enqueue([new])
        assert ended.job is not None
        assert (ended.status, ended.job.state, ended.job.result_json) == ("existing", JobState.COMPLETED, b"42")
        assert self.take(broker) == []

    def test_enqueueing_the_id_of_a_dead_job_does_not_revive_it(self, broker: Broker) -> None:
        new = new_job()
        self.put(broker, new)
        self.end(broker, died(self.take_one(broker)))
        (again,) = broker.enqueue([new])
        assert again.job is not None
        assert (again.status, again.job.state) == ("existing", JobState.DEAD)
        assert self.take(broker) == []

    @pytest.mark.parametrize("other_job", [{"type": "another.type"}, {"queue": "another"}], ids=["type", "queue"])
    def test_an_id_of_another_type_or_queue_is_refused_and_changes_nothing(self, broker: Broker, other_job: dict[str, str]) -> None:
        if "queue" in other_job and not self.one_id_space:
            pytest.skip("this broker knows an id within its queue only")
        new = new_job()
        job = self.put(broker, new)
        (answer,) = broker.enqueue([replace(new, **other_job)])
        assert (answer.status, answer.problem) == ("refused", "id_conflict")
        assert broker.get([new.id]) == [job]
        assert [lease.job.id for lease in self.take(broker, queues=["default", "another"])] == [job.id]

    def test_an_id_twice_in_one_call_makes_one_job(self, broker: Broker) -> None:
        new = new_job()
        first, second = broker.enqueue([new, new])
        assert (first.status, second.status) == ("created", "existing")
        assert first.job == second.job
        assert len(self.take(broker)) == 1

    def test_a_batch_is_answered_in_its_order(self, broker: Broker) -> None:
        old, mixed = self.put(broker), new_jobs(2)
        conflict = new_job(id=old.id, type="another.type")
        answers = broker.enqueue([mixed[0], new_job(id=old.id), conflict, mixed[1]])
        assert [one.status for one in answers] == ["created", "existing", "refused", "created"]
        assert [one.job.id for one in answers if one.job is not None and one.status != "refused"] == [mixed[0].id, old.id, mixed[1].id]

    def test_five_hundred_jobs_go_in_one_call_over_several_queues(self, broker: Broker) -> None:
        jobs = [new_job(queue=f"queue-{number % 3}") for number in range(500)]
        answers = broker.enqueue(jobs)
        assert [one.job.id for one in answers if one.job is not None] == [one.id for one in jobs]
        assert sum(one.waiting for one in broker.queues()) == 500

    def test_an_empty_batch_is_answered_with_nothing(self, broker: Broker) -> None:
        assert broker.enqueue([]) == []

    def test_a_job_that_comes_too_late_is_refused(self, broker: Broker) -> None:
        new = new_job()
        (answer,) = broker.enqueue([new], not_after=broker.now() - SECOND)
        assert (answer.status, answer.problem) == ("refused", "late")
        assert broker.get([new.id]) == [None]
        assert self.take(broker) == []

    def test_a_job_that_comes_in_time_is_accepted(self, broker: Broker) -> None:
        (answer,) = broker.enqueue([new_job()], not_after=broker.now() + timedelta(minutes=1))
        assert answer.status == "created"

    def test_fifty_callers_with_one_id_make_one_job(self, broker: Broker, other: Broker) -> None:
        new = new_job()
        with self.thread() as pool:
            calls = [pool.submit((broker, other)[number % 2].enqueue, [new]) for number in range(50)]
            statuses = [self.result(call)[0].status for call in calls]
        assert sorted(statuses) == ["created"] + ["existing"] * 49
        assert len(self.take(broker)) == 1

    def test_an_accepted_job_survives_the_closing_of_its_broker(self, open_broker: OpenBroker) -> None:
        first = open_broker()
        job = self.put(first)
        first.close()
        second = open_broker()
        assert second.get([job.id]) == [job]
        second.close()

    def test_a_broker_says_what_it_is_and_which_protocol_it_speaks(self, broker: Broker) -> None:
        assert broker.PROTOCOL == 1
        assert broker.describe()
        assert broker.now().utcoffset() == timedelta(0)


class IdempotencyContract(BrokerArrangement):
    """The header ``Idempotency-Key``."""

    def keyed(self, key: str = "key", fingerprint: str = "body-1", **options: object) -> NewJob:
        """A job under an idempotency key."""
        return new_job(idempotency=Idempotency(key=key, fingerprint=fingerprint), **options)

    def test_the_same_key_and_body_answer_with_the_first_job(self, broker: Broker, other: Broker) -> None:
        job = self.put(broker, self.keyed())
        repeated = self.keyed()
        (again,) = other.enqueue([repeated])
        assert (again.status, again.job) == ("existing", job)
        assert broker.get([repeated.id]) == [None]
        assert len(self.take(broker)) == 1

    def test_the_same_key_with_another_body_is_refused(self, broker: Broker) -> None:
        job = self.put(broker, self.keyed())
        (answer,) = broker.enqueue([self.keyed(fingerprint="body-2")])
        assert (answer.status, answer.problem) == ("refused", "idempotency_conflict")
        assert answer.job == job
        assert len(self.take(broker)) == 1

    def test_keys_count_within_one_call_too(self, broker: Broker) -> None:
        answers = broker.enqueue([self.keyed(), self.keyed(), self.keyed(fingerprint="body-2"), self.keyed(key="another")])
        assert [one.status for one in answers] == ["created", "existing", "refused", "created"]

    def test_a_key_outlasts_the_end_of_its_job(self, broker: Broker) -> None:
        job = self.put(broker, self.keyed())
        self.end(broker, completed(self.take_one(broker)))
        (again,) = broker.enqueue([self.keyed()])
        assert again.job is not None
        assert (again.status, again.job.id, again.job.state) == ("existing", job.id, JobState.COMPLETED)

    def test_a_key_is_forgotten_after_a_day(self, broker: Broker, clock: Clock) -> None:
        self.needs(clock, timedelta(hours=25))
        self.put(broker, self.keyed())
        clock.advance(timedelta(hours=23))
        assert broker.enqueue([self.keyed()])[0].status == "existing"
        clock.advance(timedelta(hours=2))
        assert broker.enqueue([self.keyed(fingerprint="body-2")])[0].status == "created"

    def test_idempotency_and_unique_keys_do_not_meet(self, broker: Broker) -> None:
        self.put(broker, self.keyed(key="same"))
        self.put(broker, unique_key="same")

    def test_a_job_refused_for_one_key_takes_no_other(self, broker: Broker) -> None:
        self.put(broker, self.keyed())
        (refused,) = broker.enqueue([self.keyed(fingerprint="body-2", unique_key="free")])
        assert refused.status == "refused"
        self.put(broker, unique_key="free")

    def test_a_repeat_of_the_same_request_is_the_same_job(self, broker: Broker) -> None:
        new = self.keyed(id=new_job_id("default"))
        job = self.put(broker, new)
        (again,) = broker.enqueue([new])
        assert (again.status, again.job) == ("existing", job)
