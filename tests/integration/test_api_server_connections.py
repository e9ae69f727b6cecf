"""How the API's server receives requests: framing, sizes, and slow or broken clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import socket
import sys
import time
from pathlib import Path

import pytest
from api_processes import CONFIG, RUN_SHELL, Api, Start, open_api, open_start

start = pytest.fixture(open_start)
api = pytest.fixture(scope="module")(open_api)


def read_all(client: socket.socket) -> bytes:
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def is_open(client: socket.socket) -> bool:
    client.settimeout(0)
    try:
        return bool(client.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def send_until_cut_off(client: socket.socket, piece: bytes, *, most: int) -> int:
    """Send until an answer comes; says how much that was."""
    sent = 0
    while sent < most and not select.select([client], [], [], 0)[0]:
        client.sendall(piece)
        sent += len(piece)
    return sent


def resident(pid: int) -> int:
    """How much memory a process has, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_requests_in_one_packet_are_answered_in_order_on_one_connection(api: Api) -> None:
    post = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    unread = b"POST /unread HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n"
    last = b"GET /large?bytes=2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

    answers = read_all(api.raw(post + unread + post + last))

    assert [body.rpartition(b"\r\n\r\n")[2] for body in answers.split(b"HTTP/1.1 200 OK")[1:]] == [
        b'{"length": 3, "sum": 294}',
        b'{"read": 0}',
        b'{"length": 3, "sum": 294}',
        b"xx",
    ]


def test_a_connection_is_kept_and_says_nothing_of_versions(api: Api) -> None:
    connection = api.connect()
    connection.request("GET", "/")
    first = connection.getresponse()
    first.read()
    sock = connection.sock
    connection.request("GET", "/")
    second = connection.getresponse()
    second.read()

    assert (first.headers["Connection"], connection.sock) == ("keep-alive", sock)
    assert not re.search(r"\d", first.headers["Server"])


@pytest.mark.parametrize("size", [0, 1, 70_000, 2 << 20])
def test_bodies_arrive_whole_by_either_framing(api: Api, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"a" * (size % 256)
    for body in (data, iter([data[:1000], data[1000:]] if size > 1000 else [data] if data else [])):
        connection = api.connect()
        connection.request("POST", "/", body)
        assert json.loads(connection.getresponse().read()) == {"length": size, "sum": sum(data)}


def test_a_client_that_waits_to_be_told_is_told_to_send_a_body_that_is_wanted(api: Api) -> None:
    wanted = api.raw(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert wanted.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    wanted.sendall(b"abc")
    assert wanted.recv(1000).startswith(b"HTTP/1.1 200 OK")

    unwanted = api.raw(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n")
    assert unwanted.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_giant_body_is_refused_before_it_is_read_and_costs_no_memory(api: Api) -> None:
    (pid,) = api.pids()
    before = resident(pid)
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for head, piece in ((b"Content-Length: 1000000000", b"x" * 65536), (b"Transfer-Encoding: chunked", chunk)):
        for _ in range(5):
            client = api.raw(b"POST / HTTP/1.1\r\nHost: h\r\n" + head + b"\r\n\r\n")
            sent = send_until_cut_off(client, piece, most=100 << 20)
            assert sent < 60 << 20
            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
            api.close_clients()

    assert resident(pid) - before < 40 << 20


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.0\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000, 431),
    ],
)
def test_what_is_no_request_is_refused_in_the_shape_of_errors(api: Api, request_: bytes, status: int) -> None:
    answer = read_all(api.raw(request_))

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert set(json.loads(body)) == {"error", "code", "details"}


def test_an_answer_that_breaks_off_is_cut_off_and_logged(api: Api) -> None:
    connection = api.connect()
    connection.request("GET", "/broken")

    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    api.wait_for(lambda: api.events("a request failed"), "a line in the log")


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\nX: ",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000,
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
        b"GET /large?bytes=4000000 HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
    ids=["heads", "bodies", "large bodies", "chunks", "readers"],
)
def test_slow_clients_hold_no_threads(api: Api, opening: bytes) -> None:
    slow = [api.raw(opening) for _ in range(12 if b"large" in opening else 200)]

    durations = []
    for _ in range(200):
        began = time.perf_counter()
        assert api.get()[0] == 200
        durations.append(time.perf_counter() - began)

    assert sorted(durations)[180] < 0.1
    # They are still waited for.
    assert len(slow) == sum(is_open(one) for one in slow)
    api.close_clients()


def test_large_bodies_that_stall_are_bounded_and_hold_no_threads(start: Start) -> None:
    api = start(config=CONFIG.replace("2MiB", "16MiB"))
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 15000000\r\n\r\n"
    stalled = [api.raw(head) for _ in range(12)]
    refused = []
    for one in stalled:
        with contextlib.suppress(OSError):
            # One that is refused is answered in the middle of it, and closed.
            one.sendall(b" " * 10_000_000)
        one.settimeout(0.3)
        with contextlib.suppress(OSError):
            refused.append(one.recv(4096))

    assert 4 <= len(refused) <= 8
    assert {answer.split(b" ")[1] for answer in refused} == {b"503"}
    assert all(b"\r\nRetry-After: " in answer for answer in refused)
    assert api.get()[0] == 200


def test_when_there_are_too_many_connections_the_one_that_waited_longest_makes_room(start: Start) -> None:
    api = start("-c", f"ulimit -n 100; exec {sys.executable} -m jobqueue_core.run -c jobqueue.toml small", command=("-c", RUN_SHELL))
    waiting = [api.raw() for _ in range(120)]

    assert api.get()[0] == 200
    api.wait_for(lambda: not is_open(waiting[0]), "the first to be closed")
    assert is_open(waiting[-1])


@pytest.mark.slow
@pytest.mark.parametrize("opening", [b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"], ids=["head", "body"])
def test_a_byte_a_second_is_waited_for_ten_seconds(api: Api, opening: bytes) -> None:
    client = api.raw(opening)
    client.settimeout(1)
    began = time.monotonic()
    answer = b""
    while not answer and time.monotonic() - began < 20:
        client.sendall(b"x")
        with contextlib.suppress(TimeoutError):
            answer = client.recv(1000)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 9 < time.monotonic() - began < 14
