"""What a test may use of a server that others use too."""

from __future__ import annotations

import re
from typing import Self

import attrs

__all__ = ["PostgresPlace", "RedisPlace", "joined_config"]


@attrs.frozen
class RedisPlace:
    """The keys in *namespace*."""

    url: str
    namespace: str

    @property
    def config(self) -> str:
        """The lines of a config file that choose it."""
        return f'[broker]\nplugin = "redis"\nurl = "{self.url}"\n[run]\nnamespace = "{self.namespace}"\n'


@attrs.frozen
class PostgresPlace:
    """The schema *namespace*. Also on a server of the test's own, or with the url of what stands before one."""

    url: str
    namespace: str
    direct_url: str = ""
    """Of the server, if *url* leads through a transaction pooler."""

    @property
    def config(self) -> str:
        """The lines of a config file that choose it."""
        pooled = f'pooled = true\nmigrate_url = "{self.direct_url}"\n' if self.direct_url else ""
        return f'[storage]\nplugin = "postgres"\nurl = "{self.url}"\n{pooled}[run]\nnamespace = "{self.namespace}"\n'

    def migrate(self) -> Self:
        """Bring the schema up to date; itself."""
        from jobqueue_postgres.migrating import migrate

        migrate(self.direct_url or self.url, namespace=self.namespace)
        return self


def joined_config(*configs: str) -> str:
    """One config of several that are for the same test: of sections in which they agree, such as the namespace, one is left."""
    sections = [section for config in configs for section in re.split(r"(?m)^(?=\[)", config) if section.strip()]
    return "".join(dict.fromkeys(sections))
