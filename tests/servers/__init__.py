"""Servers that tests start for themselves, and what stands between a test and them."""

from __future__ import annotations

from .pgbouncer import PgBouncer, find_pgbouncer
from .places import PostgresPlace, RedisPlace, joined_config
from .postgres_server import PostgresServer
from .programs import Program, chosen_postgres, chosen_redis, given_postgres, given_redis, set_urls_aside, wanted_postgres, wanted_redis
from .proxy import Proxy
from .redis_server import RedisServer
from .transaction_pooler import TransactionPooler

__all__ = [
    "PgBouncer",
    "PostgresPlace",
    "PostgresServer",
    "Program",
    "Proxy",
    "RedisPlace",
    "RedisServer",
    "TransactionPooler",
    "chosen_postgres",
    "chosen_redis",
    "find_pgbouncer",
    "given_postgres",
    "given_redis",
    "joined_config",
    "set_urls_aside",
    "wanted_postgres",
    "wanted_redis",
]
