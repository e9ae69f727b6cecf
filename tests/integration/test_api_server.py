"""The API itself, served by ``jobqueue-run`` and by gunicorn alone."""

from __future__ import annotations

import contextlib
import json
import signal
import time

import pytest
from api_processes import CONFIG, Api, Start, open_api, open_start
from servers import RedisServer

start = pytest.fixture(open_start)
api = pytest.fixture(scope="module")(open_api)


def test_while_the_broker_is_away_the_api_serves_and_it_recovers_by_itself(start: Start, redis_server: RedisServer) -> None:
    redis_server.kill()
    api = start("api", config=f'[broker]\nplugin = "redis"\nurl = "{redis_server.url}"\n{CONFIG}')

    assert api.get("/health")[0] == 200
    status, body = api.get("/ready")
    assert (status, [one["field"] for one in body["details"]]) == (503, ["broker"])
    redis_server.start()
    api.wait_for(lambda: api.get("/ready")[0] == 200, "the broker's return")
    assert api.get("/api/v1/queues") == (200, [])


def test_what_listens_is_logged_in_our_format_and_gunicorn_is_quiet(api: Api) -> None:
    (listening,) = api.events("listening")

    assert (listening["logger"], listening["level"]) == ("jobqueue.api", "info")
    assert listening["url"] == f"http://127.0.0.1:{api.port}"
    assert all(line.startswith("{") for line in api.log.splitlines())
    assert "gunicorn" not in api.log.lower().replace("jobqueue_api.gunicorn", "")


GUNICORN = ("-m", "gunicorn", "--no-control-socket", "--graceful-timeout", "15")


THREADS = ("-k", "gthread", "--threads", "4")


@pytest.mark.parametrize("flags", [pytest.param(THREADS, marks=pytest.mark.slow), (*THREADS, "--preload"), ("-k", "sync")])
def test_under_plain_gunicorn_streams_end_at_sigterm(start: Start, flags: tuple[str, ...]) -> None:
    api = start(*flags, "--bind", "127.0.0.1:0", "small_wsgi:app", command=GUNICORN)
    stream = api.connect()
    stream.request("GET", "/stream")
    streaming = stream.getresponse()
    assert streaming.readline() == b"began\n"
    began = time.monotonic()

    api.signal(signal.SIGTERM)

    assert streaming.read() == b"ended\n"
    assert api.exit_status() == 0
    assert time.monotonic() - began < 10


def test_under_plain_gunicorn_the_api_is_served_and_logged_in_our_format(start: Start) -> None:
    api = start("-k", "gthread", "--threads", "4", "--bind", "127.0.0.1:0", "jobqueue_api.wsgi:app", command=GUNICORN)

    assert api.get("/ready")[0] == 200
    api.wait_for(lambda: api.events("request"), "a line of ours")


@pytest.mark.parametrize("preload", [False, True])
def test_under_plain_gunicorn_other_machines_need_a_key(start: Start, preload: bool) -> None:
    api = start(*(["--preload"] if preload else []), "-k", "gthread", "--bind", "0.0.0.0:0", "small_wsgi:app", command=GUNICORN)

    if preload:
        with contextlib.suppress(json.JSONDecodeError):
            assert api.get()[0] == 500
    else:
        assert api.exit_status() != 0
    assert "0.0.0.0 can be reached from other machines: add [[api.keys]]" in api.log
