"""Servers that tests start for themselves, and what stands between a test and them."""

from __future__ import annotations

from .programs import Program, chosen_redis, given_redis, set_redis_url_aside, wanted_redis
from .proxy import Proxy
from .redis_server import RedisServer

__all__ = ["Program", "Proxy", "RedisServer", "chosen_redis", "given_redis", "set_redis_url_aside", "wanted_redis"]
