"""How the API's server stops: what it ends, what it finishes, and whom it lets come in meanwhile."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys

import pytest
from api_processes import CONFIG, Clients, Start, open_start

start = pytest.fixture(open_start)


def is_closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("to_the_group", [False, True], ids=["term", "ctrl-c"])
def test_a_graceful_stop_finishes_what_runs_ends_streams_and_exits_0(start: Start, to_the_group: bool) -> None:
    api = start()
    slow, stream = api.connect(), api.connect()
    stream.request("GET", "/stream")
    streaming = stream.getresponse()
    assert streaming.readline() == b"began\n"
    slow.request("GET", "/slow")
    api.wait_for((api.home / "slow").exists, "the slow request")
    port = api.port

    if to_the_group:
        os.killpg(api.process.pid, signal.SIGINT)
    else:
        api.signal(signal.SIGTERM)

    assert streaming.read() == b"ended\n"
    api.wait_for(lambda: is_closed(port), "the address to be closed")
    (api.home / "enough").touch()
    assert slow.getresponse().status == 200
    assert api.exit_status() == 0
    assert not api.left_behind()


@pytest.mark.parametrize("anew", [False, True], ids=["kept-alive", "connecting-anew"])
def test_sigint_to_the_whole_group_drops_no_request(start: Start, anew: bool) -> None:
    api = start()
    clients = Clients(api, anew=anew)

    os.killpg(api.process.pid, signal.SIGINT)

    assert api.exit_status() == 0
    clients.stop()
    assert not clients.failures


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can have clients come later")
def test_who_comes_while_the_address_closes_is_told_to_come_later_and_nobody_is_reset(start: Start) -> None:
    api = start()
    api.pids()
    address = ("127.0.0.1", api.port)
    api.signal(signal.SIGTERM)

    later: list[socket.socket] = []
    errors: set[int] = set()
    while errno.ECONNREFUSED not in errors:
        client = socket.socket()
        client.settimeout(0)
        # With nothing between the two, a connection is there at once or refused at once; only one whose packets are dropped is on its way.
        error = client.connect_ex(address)
        if error == errno.EINPROGRESS and not select.select([], [client], [], 0.01)[1]:
            later.append(client)
            continue
        with client:
            errors.add(error := client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            client.settimeout(20)
            if not error:
                client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")

    assert later
    assert errors <= {0, errno.ECONNREFUSED}
    assert api.exit_status() == 0
    for client in later:
        with client:
            assert select.select([], [client], [], 20)[1]
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_a_request_that_outlasts_the_grace_is_cut_off_and_makes_status_3(start: Start) -> None:
    api = start(config=CONFIG.replace("20s", "300ms"))
    slow = api.connect()
    slow.request("GET", "/slow")
    api.wait_for((api.home / "slow").exists, "the slow request")

    api.signal(signal.SIGTERM)

    assert api.exit_status() == 3
    assert [line["requests"] for line in api.events("requests cut off")] == [1]


def test_a_second_signal_ends_requests_at_once_with_status_4(start: Start) -> None:
    api = start()
    slow = api.connect()
    slow.request("GET", "/slow")
    api.wait_for((api.home / "slow").exists, "the slow request")

    api.signal(signal.SIGTERM)
    api.wait_for(lambda: api.events("stopping"), "the first signal to be heard")
    api.signal(signal.SIGINT)

    assert api.exit_status() == 4
    assert not api.left_behind()
