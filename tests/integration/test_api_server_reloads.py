"""How the API's server takes a new configuration, outlives its own processes, and finds its address."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from api_processes import CONFIG, Clients, Start, open_start
from servers.ports import free_port

start = pytest.fixture(open_start)


def test_a_reload_under_load_fails_no_request_and_takes_a_new_key(start: Start) -> None:
    api = start()
    former = api.pids()
    clients = Clients(api)
    api.configure("threads = 4", 'threads = 4\nkeys = [{name = "new", role = "read", key = "a-new-key"}]')

    api.signal(signal.SIGHUP)

    api.wait_for(lambda: len([pid for pid in clients.answers[-50:] if pid not in former]) >= 50, "other processes to answer")
    api.wait_for(lambda: set(api.left_behind()).isdisjoint(former), "the former ones to end")
    clients.stop()
    assert not clients.failures
    assert api.get()[1]["keys"] == ["new"]
    assert "a-new-key" not in api.log


def test_a_config_that_has_become_wrong_is_named_and_the_former_one_serves_on(start: Start) -> None:
    api = start()
    former = api.pids()
    api.configure("threads = 4", "threads = 1\nprot = 8080")

    api.signal(signal.SIGHUP)

    api.wait_for(lambda: len(api.events("cannot reload")) == 2, "both problems")
    problems = " ".join(line["problem"] for line in api.events("cannot reload"))
    assert "api.threads" in problems
    assert "prot" in problems
    os.kill(min(former), signal.SIGKILL)
    assert api.pids(without=former)


def test_a_key_file_that_is_gone_at_a_reload_keeps_the_former_keys(start: Start) -> None:
    api = start()
    api.pids()
    api.configure("threads = 4", 'threads = 4\nkeys = [{name = "new", role = "read", key_file = "missing"}]')

    api.signal(signal.SIGHUP)

    api.wait_for(lambda: "missing" in str(api.events("cannot reload")), "the problem")
    assert api.get()[1]["keys"] == []


def test_a_reload_takes_no_keys_away_where_others_reach_it(start: Start) -> None:
    api = start(config=CONFIG.replace('host = "127.0.0.1"', 'host = "0.0.0.0"\nkeys = [{name = "only", role = "read", key = "k"}]'))
    api.pids()
    api.configure('host = "0.0.0.0"\nkeys = [{name = "only", role = "read", key = "k"}]', 'host = "127.0.0.1"')

    api.signal(signal.SIGHUP)

    api.wait_for(lambda: "no keys any more" in str(api.events("cannot reload")), "the problem")
    assert api.get()[1]["keys"] == ["only"]


def test_processes_that_cannot_start_after_a_reload_leave_the_former_ones_alone(start: Start) -> None:
    api = start()
    former = api.pids()
    (api.home / "unbootable").touch()

    api.signal(signal.SIGHUP)

    api.wait_for(lambda: len(api.events("cannot serve")) >= 2, "two attempts")
    assert api.get()[1]["pid"] in former
    (api.home / "unbootable").unlink()
    assert api.pids(without=former)


def test_processes_that_are_killed_are_replaced(start: Start) -> None:
    api = start(config=CONFIG + "workers = 2\n")
    former = api.pids(2)

    for pid in former:
        os.kill(pid, signal.SIGKILL)

    assert api.pids(2, without=former)


def test_when_the_arbiter_is_killed_its_processes_let_go_and_the_next_one_listens_on_the_same_port(start: Start) -> None:
    port = free_port()
    api = start(config=CONFIG.replace("port = 0", f"port = {port}"))
    former = api.pids()
    slow = api.connect()
    slow.request("GET", "/slow")
    api.wait_for((api.home / "slow").exists, "the slow request")
    (arbiter,) = {line["pid"] for line in api.events("process started")}

    os.kill(arbiter, signal.SIGKILL)

    assert api.wait_for(lambda: len(api.events("listening")) == 2, "the next one")
    assert api.pids(without=former)
    (api.home / "enough").touch()
    assert slow.getresponse().status == 200
    api.wait_for(lambda: set(api.left_behind()).isdisjoint(former), "the former ones to end")


def test_an_address_in_use_is_named_and_makes_status_2(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        api = start(config=CONFIG.replace("port = 0", f"port = {port}"))

        assert api.exit_status() == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in api.log


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_listened_on(start: Start, host: str) -> None:
    api = start(config=CONFIG.replace("127.0.0.1", host))

    with socket.create_connection(("::1", api.port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.0 200 OK\r\n")


def test_a_socket_for_both_kinds_of_addresses_shows_those_of_ipv4_as_such(start: Start) -> None:
    api = start(config=CONFIG.replace('"127.0.0.1"', '"::"\nallow_anonymous = true'))

    assert api.get()[1]["client"] == "127.0.0.1"
