"""What any test may ask for: a place on a running server, a server of its own, a network between, a config for one backend or another.

What PostgreSQL adds is in ``servers/postgres_fixtures.py``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from servers import PostgresPlace, Program, Proxy, RedisPlace, RedisServer, given_redis, set_urls_aside, wanted_postgres, wanted_redis

StartRedis = Callable[..., RedisServer]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "redis: asks for a Redis (given by itself)")
    config.addinivalue_line("markers", "postgres: asks for a PostgreSQL (given by itself)")
    config.addinivalue_line("markers", "slow: left out of a usual run; run only by: pytest -m slow")
    config.pluginmanager.import_plugin("servers.postgres_fixtures")
    set_urls_aside()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, unless it is asked for."""
    if "slow" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("slow")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let ``-m redis`` and ``-m postgres`` choose what asks for one."""
    for fixture, marker in (("redis_program", "redis"), ("postgres_program", "postgres")):
        if fixture in getattr(item, "fixturenames", ()):
            item.add_marker(marker)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a server on each that is wanted."""
    for fixture, wanted in (("redis_program", wanted_redis), ("postgres_program", wanted_postgres)):
        if fixture in metafunc.fixturenames and len(wanted()) > 1:
            metafunc.parametrize(fixture, wanted(), ids=str, indirect=True, scope="session")


# Places on servers that are shared -------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_namespace() -> str:
    """The test's namespace, on whichever servers it has a place."""
    return _new_namespace()


@pytest.fixture(scope="module")
def module_namespace() -> str:
    """The same for what a whole module shares."""
    return _new_namespace()


def _new_namespace() -> str:
    return f"test_{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def redis_program(request: pytest.FixtureRequest) -> Program | None:
    """Which server is started; None: the one that is chosen."""
    return getattr(request, "param", None)


@pytest.fixture(scope="session")
def shared_redis(redis_program: Program | None) -> Iterator[str]:
    """The server in ``REDIS_URL``, or one that this process has started. Ask for ``redis_url`` instead."""
    if given := given_redis():
        yield given
        return
    with RedisServer(redis_program, appendonly=False) as server:
        yield server.url


@contextmanager
def _redis_place(url: str, namespace: str) -> Iterator[RedisPlace]:
    yield RedisPlace(url, namespace)
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"{namespace}:*", count=1000):
            client.unlink(key)
        if given_redis() is None:
            stray = [key for key in client.scan_iter(count=1000) if not key.startswith((b"test_", b"test-"))]
            assert not stray, f"not in the test's namespace: {stray[:20]}"


@pytest.fixture
def redis_place(shared_redis: str, own_namespace: str) -> Iterator[RedisPlace]:
    """A place on the shared server that no other test uses. The test may do nothing to the server."""
    with _redis_place(shared_redis, own_namespace) as place:
        yield place


@pytest.fixture(scope="module")
def module_redis_place(shared_redis: str, module_namespace: str) -> Iterator[RedisPlace]:
    """The same for what a whole module shares."""
    with _redis_place(shared_redis, module_namespace) as place:
        yield place


@pytest.fixture
def redis_url(redis_place: RedisPlace) -> str:
    """The url of the shared server; the test must keep to ``redis_namespace``."""
    return redis_place.url


@pytest.fixture
def redis_namespace(redis_place: RedisPlace) -> str:
    """The test's own namespace on ``redis_url``."""
    return redis_place.namespace


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of ``redis_url``; replies are bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def shared_redis_cluster(redis_program: Program | None) -> Iterator[RedisServer]:
    """A Redis Cluster of one node, with all slots and all the rules of a cluster. Ask for ``redis_cluster_url`` instead."""
    with RedisServer(redis_program, appendonly=False, options={"cluster-enabled": "yes"}) as server:
        server.be_a_cluster()
        yield server


@pytest.fixture
def redis_cluster_url(shared_redis_cluster: RedisServer) -> str:
    """The url of a cluster that others use too, each with a namespace of its own."""
    return f"redis+cluster://127.0.0.1:{shared_redis_cluster.port}"


# Servers of the test's own ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def start_redis(redis_program: Program | None) -> Iterator[StartRedis]:
    """Start servers of the test's own; options as those of ``RedisServer``."""
    started: list[RedisServer] = []

    def start_redis(**options: Any) -> RedisServer:
        started.append(RedisServer(redis_program, **options))
        return started[-1]

    yield start_redis
    for server in started:
        server.close()


@pytest.fixture
def redis_server(start_redis: StartRedis) -> RedisServer:
    """A server of the test's own, which keeps its data over a restart."""
    return start_redis()


@pytest.fixture
def redis_proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """A network before ``redis_server`` that can fail."""
    with Proxy(redis_server.port) as proxy:
        yield proxy


# The same test on several backends -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "redis"])
def broker_config(request: pytest.FixtureRequest) -> str:
    """The lines of a config file that choose a broker; none for the embedded one. What asks for it runs on each."""
    return _broker_config(request, "redis_place")


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def module_broker_config(request: pytest.FixtureRequest) -> str:
    """The same for what a whole module shares."""
    return _broker_config(request, "module_redis_place")


def _broker_config(request: pytest.FixtureRequest, place: str) -> str:
    match request.param:
        case "sqlite":
            return ""
        case _:
            found: RedisPlace = request.getfixturevalue(place)
            return found.config


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def storage_config(request: pytest.FixtureRequest) -> str:
    """The lines of a config file that choose a storage; none for the embedded one. ``joined_config`` puts them to those of a broker."""
    return _storage_config(request, "postgres_place")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def module_storage_config(request: pytest.FixtureRequest) -> str:
    """The same for what a whole module shares."""
    return _storage_config(request, "module_postgres_place")


def _storage_config(request: pytest.FixtureRequest, place: str) -> str:
    match request.param:
        case "sqlite":
            return ""
        case _:
            found: PostgresPlace = request.getfixturevalue(place)
            return found.config
