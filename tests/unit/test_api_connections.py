"""How far a request has come, how long a client is waited for, and where the API listens: without a server."""

from __future__ import annotations

import errno
import select
import socket
import sys
import threading

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import LimitRequestHeaders, ParseException, UnsupportedTransferCoding
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import given
from hypothesis import strategies as st

from jobqueue_api.server.closing import Closing
from jobqueue_api.server.connection import ClientSocket, Connection, Patience
from jobqueue_api.server.listening import ask_to_come_later, listen, shown
from jobqueue_api.server.loop import Loop
from jobqueue_api.server.received import HEAD_LIMIT, Progress, Received
from jobqueue_api.server.refusing import answer_to

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0\r\n\r\n56789\r\n0\r\n\r\n"
TRAILED = b"POST /d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nDigest: x\r\n\r\n"
WHOLE = {"get": GET, "post": POST, "chunked": CHUNKED, "trailed": TRAILED}


def received(max_body: int = 1000) -> Received:
    return Received(max_body)


# Received ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", WHOLE.values(), ids=WHOLE)
@given(data=st.data())
def test_a_request_is_whole_with_its_last_byte_however_it_is_cut(request_: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(request_) - 1), max_size=8)))
    one = received()

    found = [one.add(request_[a:b]) for a, b in zip([0, *cuts], [*cuts, len(request_)], strict=True)]

    assert found[-1] is Progress.WHOLE
    assert set(found[:-1]) <= {Progress.HEAD, Progress.BODY}


@pytest.mark.parametrize("request_", WHOLE.values(), ids=WHOLE)
def test_gunicorns_parser_and_ours_find_the_same_end(request_: bytes) -> None:
    one = received()
    assert one.add(request_ + GET) is Progress.WHOLE
    unreader = IterUnreader(iter([one.take(1 << 20)]))
    parsed = Request(Config(), unreader, ("127.0.0.1", 1), 1)

    parsed.body.read()

    left = unreader.take_buffered()
    assert left == GET
    assert one.proceed(left) is Progress.WHOLE
    assert one.take(1 << 20) == GET


def test_when_the_parser_finds_another_end_the_connection_is_of_no_more_use() -> None:
    one = received()
    one.add(POST + GET)
    one.take(1 << 20)

    assert one.proceed(GET[1:]) is None


def test_what_comes_behind_a_request_is_kept_for_the_next() -> None:
    one = received()
    one.add(POST + GET[:-2])
    one.take(len(POST))

    assert one.proceed(b"") is Progress.HEAD
    assert one.add(GET[-2:]) is Progress.WHOLE


def test_a_body_that_is_too_large_by_its_own_account_is_not_waited_for() -> None:
    one = received()

    assert one.add(b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n") is Progress.WHOLE
    assert not one.whole
    assert one.proceed(b"") is None


@pytest.mark.parametrize(
    "body",
    [b"3E9\r\n", b"3E8\r\n" + b"x" * 1000 + b"\r\n1\r\n", b"FFFFFFFFFFFFFFF\r\n", (b"1;" + b"e" * 4000 + b"\r\nx\r\n") * 20],
    ids=["one chunk", "together", "endless", "extensions"],
)
def test_a_chunked_body_is_too_large_as_soon_as_its_chunks_say_so(body: bytes) -> None:
    assert received().add(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body) is Progress.BODY_TOO_LARGE


@pytest.mark.parametrize("body", [b"x\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"\r\n", b"1_0\r\n", b"1" * 9000, b"0\r\nX: " + b"y" * 9000])
def test_what_is_no_chunk_is_malformed(body: bytes) -> None:
    assert received().add(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body) is Progress.MALFORMED


def test_a_head_without_end_is_too_large() -> None:
    one = received()

    found = [one.add(b"X-Y: " + b"z" * 1000 + b"\r\n") for _ in range(80)]

    assert found[0] is Progress.HEAD
    assert found[-1] is Progress.HEAD_TOO_LARGE
    assert found.index(Progress.HEAD_TOO_LARGE) == HEAD_LIMIT // 1007


def test_a_head_that_ends_with_bare_line_feeds_is_malformed_at_once() -> None:
    assert received().add(b"GET / HTTP/1.0\n\n") is Progress.MALFORMED


@pytest.mark.parametrize(
    ("head", "expects"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nEXPECT: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", False),
        (POST, False),
    ],
)
def test_a_client_is_told_to_go_on_only_where_a_body_is_wanted(head: bytes, expects: bool) -> None:
    one = received()
    one.add(head)

    assert one.expects is expects


# Patience ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("jobqueue_api.server.connection.time.monotonic", lambda: now[0])
    return now


def test_a_byte_a_second_ends_patience_after_ten_seconds(clock: list[float]) -> None:
    patience = Patience()
    for _ in range(10):
        clock[0] += 1
        patience.moved(1)

    assert patience.left < 0.01


def test_a_steady_pace_is_waited_for_and_a_burst_only_for_a_while(clock: list[float]) -> None:
    patience = Patience()
    for _ in range(600):
        clock[0] += 1
        patience.moved(100_000)
        assert patience.left > 9

    patience.moved(1 << 30)

    assert 29 < patience.left <= 30


# Sockets -------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> tuple[ClientSocket, socket.socket]:
    ours, theirs = socket.socketpair()
    sock = ClientSocket(ours.family, ours.type, ours.proto, fileno=ours.detach())
    sock.settimeout(0)
    theirs.settimeout(10)
    return sock, theirs


def test_what_a_client_does_not_read_is_kept_and_sent_later(pair: tuple[ClientSocket, socket.socket]) -> None:
    sock, theirs = pair
    data = bytes(range(256)) * 20_000

    with sock, theirs:
        sock.send_or_keep(data, may_keep=lambda _count: True)
        assert 0 < len(sock.unsent) < len(data)
        got = bytearray()
        while len(got) < len(data):
            got += theirs.recv(1 << 20)
            if sock.unsent:
                sock.send_unsent()

    assert got == data
    assert not sock.unsent


@pytest.mark.parametrize("send", ["sendall", "send_or_keep"])
def test_what_may_not_be_kept_is_sent_as_the_client_reads(pair: tuple[ClientSocket, socket.socket], send: str) -> None:
    sock, theirs = pair
    data = bytes(range(256)) * 20_000
    got = bytearray()

    def read() -> None:
        while piece := theirs.recv(1 << 20):
            got.extend(piece)

    with theirs:
        reader = threading.Thread(target=read)
        reader.start()
        with sock:
            sock.sendall(data) if send == "sendall" else sock.send_or_keep(data, may_keep=lambda _count: False)
            assert not sock.unsent
        reader.join(10)

    assert got == data


def test_a_client_that_reads_nothing_is_given_up(pair: tuple[ClientSocket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "_FIRST", 0.05)
    monkeypatch.setattr(Patience, "_MOST", 0.05)
    sock, theirs = pair

    with sock, theirs, pytest.raises(TimeoutError):
        sock.sendall(b"x" * 10_000_000)


def test_no_thread_waits_for_a_request_that_is_not_whole(pair: tuple[ClientSocket, socket.socket]) -> None:
    sock, theirs = pair

    with sock, theirs:
        connection = Connection(sock, ("127.0.0.1", 1), ("127.0.0.1", 2), max_body=1000)
        connection.add(POST[:-2])
        request = connection.request(Config())
        with pytest.raises(ParseException):
            request.body.read()
        assert connection.proceed(request) is None


# Refusing ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (LimitRequestHeaders("too many"), 431),
        (Progress.HEAD_TOO_LARGE, 431),
        (Progress.BODY_TOO_LARGE, 413),
        (Progress.MALFORMED, 400),
        (UnsupportedTransferCoding("x"), 400),
        (TimeoutError(), 408),
        (RuntimeError("secret"), 500),
    ],
)
def test_what_is_no_request_is_answered_in_the_shape_of_errors(problem: Progress | Exception, status: int) -> None:
    head, _, body = answer_to(problem).encode().partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.startswith(b'{"error":"')
    assert body.endswith(b'"details":[]}')
    assert b"secret" not in body


# Listening -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:"), ("[::1]", "http://[::1]:")])
def test_any_free_port_is_found_and_shown(host: str, url: str) -> None:
    (listener,) = listen(host, 0)

    with listener:
        assert shown(listener) == f"{url}{listener.getsockname()[1]}"
        assert listener.getsockname()[1] > 0


def test_a_name_listens_on_all_its_addresses_and_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)), (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))]
    monkeypatch.setattr("jobqueue_api.server.listening.socket.getaddrinfo", lambda *args, **options: both)

    listeners = listen("here", 0)

    for one in listeners:
        one.close()
    assert len(listeners) == 2


def test_an_address_that_this_machine_lacks_is_left_out_beside_one_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "192.0.2.1")]
    monkeypatch.setattr("jobqueue_api.server.listening.socket.getaddrinfo", lambda *args, **options: some)

    (listener,) = listen("here", 0)
    listener.close()

    some.pop(0)
    with pytest.raises(OSError, match="address") as caught:
        listen("here", 0)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_an_address_in_use_is_an_error_and_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use") as caught:
        listen("127.0.0.1", other.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do this")
def test_who_has_connected_before_the_address_closes_is_accepted_and_who_comes_later_is_refused() -> None:
    (listener,) = listen("127.0.0.1", 0)
    address = listener.getsockname()
    with listener, socket.create_connection(address, timeout=20) as early, socket.socket() as late:
        late.settimeout(0)

        ask_to_come_later(listener)

        assert late.connect_ex(address) == errno.EINPROGRESS
        accepted, _client = listener.accept()
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.close()
        with accepted:
            early.sendall(b"hello")
            accepted.settimeout(20)
            assert accepted.recv(5) == b"hello"
        # As nobody was told that it is connected, nobody is reset: TCP asks again after a second, and hears that nobody is there.
        assert select.select([], [late], [], 20)[1] == [late]
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


# The loop ------------------------------------------------------------------------------------------------------------------------------


def test_a_request_that_comes_when_its_connection_has_idled_long_enough_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue_api.server.loop._LAST_REQUEST", 0.0)
    whole: list[Connection] = []
    (listener,) = listen("127.0.0.1", 0)
    loop = Loop([listener], whole.append, max_body=1000)
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_connection(listener.getsockname(), timeout=20) as client:
        loop.listen(ours.fileno(), lambda: client.sendall(GET))
        loop.accept_no_more()
        theirs.send(b"x")

        # It comes between the look for what has come and the look at the clock.
        assert loop.turn(0.01)
        loop.ignore(ours.fileno())
        loop.turn(0.01)

        assert [connection.requests for connection in whole] == [0]
        loop.forget(whole[0])


# Closing -------------------------------------------------------------------------------------------------------------------------------


def test_closing_begins_once_and_tells_everybody() -> None:
    closing = Closing()
    told: list[str] = []
    closing.listen(lambda: told.append("before"))
    assert not closing.begun
    assert not closing.wait(0)

    waiter = threading.Thread(target=closing.wait, args=(10,))
    waiter.start()
    closing.begin()
    closing.begin()
    closing.listen(lambda: told.append("after"))
    waiter.join(5)

    assert closing.begun
    assert closing.wait(0)
    assert not waiter.is_alive()
    assert told == ["before", "after"]


def test_a_body_in_a_great_many_tiny_chunks_is_refused_long_before_it_is_large() -> None:
    request = Received(16 << 20)
    assert request.add(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n") is Progress.BODY
    progress = Progress.BODY
    pieces = 0
    while progress is Progress.BODY and pieces < 100:
        progress = request.add(b"1\r\n \r\n" * 1_000)
        pieces += 1
    assert (progress, pieces) == (Progress.BODY_TOO_LARGE, 11)


def test_a_large_body_in_chunks_of_a_fair_size_is_taken() -> None:
    request = Received(16 << 20)
    request.add(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert request.add(b"64\r\n" + b" " * 100 + b"\r\n") is Progress.BODY
    assert request.add((b"64\r\n" + b" " * 100 + b"\r\n") * 20_000 + b"0\r\n\r\n") is Progress.WHOLE


@pytest.mark.parametrize(("length", "progress"), [(b"0" * 30 + b"5", Progress.BODY), (b"9" * 30, Progress.WHOLE), (b"0" * 5_000, Progress.WHOLE)])
def test_a_length_of_many_digits_is_a_length(length: bytes, progress: Progress) -> None:
    request = received()
    assert request.add(b"POST / HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n") is progress
    assert request.whole is (progress is Progress.WHOLE and length.startswith(b"0"))
