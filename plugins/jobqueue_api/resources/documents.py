"""The API's description of itself: the OpenAPI document, and pages for people that need nothing from the network."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from jobqueue_api.http.body import JSON
from jobqueue_api.http.operation import Call, Document, Nothing, operation
from jobqueue_core.errors import PluginError

__all__ = ["YAML", "Described", "DocsAsset", "DocsPage", "JsonDocument", "YamlDocument", "as_yaml"]

YAML: Final = "application/yaml"
_HTML: Final = "text/html; charset=utf-8"
_SCRIPT: Final = "text/javascript; charset=utf-8"
_STYLE: Final = "text/css; charset=utf-8"
_KEPT: Final = "private, max-age=86400"

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>jobqueue: REST API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger.css">
</head>
<body>
<div id="api"></div>
<noscript>This page needs JavaScript; <a href="api/v1/openapi.yaml">openapi.yaml</a> says the same.</noscript>
<script src="docs/swagger.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START: Final = """\
SwaggerUIBundle({
  url: "api/v1/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  tryItOutEnabled: false,
  validatorUrl: null,
});
"""
# The page's own code sets styles on elements.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Described:
    """The document, made once.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self._make = make

    @cached_property
    def json(self) -> bytes:
        """The document as JSON."""
        return msgspec.json.encode(self._make())

    @cached_property
    def yaml(self) -> bytes:
        """The document as YAML."""
        return as_yaml(self._make())


def as_yaml(document: dict[str, Any]) -> bytes:
    """*document* as YAML that people can read."""
    # Through JSON: what occurs twice is then two things, and is written out instead of referred to.
    plain = msgspec.json.decode(msgspec.json.encode(document))
    written: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    return written.encode()


class JsonDocument:
    """The document as JSON."""

    def __init__(self, described: Described) -> None:
        self._described = described

    @operation("getOpenapiJson", "This description as JSON", tag="documents", role="read", answers={200: dict[str, Any]})
    def on_get(self, _call: Call[None, None]) -> Document:
        """The OpenAPI 3.1 document."""
        return Document(self._described.json, JSON)


class YamlDocument:
    """The document as YAML."""

    def __init__(self, described: Described) -> None:
        self._described = described

    @operation("getOpenapiYaml", "This description as YAML", tag="documents", role="read", answers={200: YAML})
    def on_get(self, _call: Call[None, None]) -> Document:
        """The OpenAPI 3.1 document."""
        return Document(self._described.yaml, YAML)


class DocsPage:
    """The page for people."""

    @operation("getDocs", "This description for people", tag="documents", role="read", answers={200: "text/html"})
    def on_get(self, call: Call[None, None]) -> Document | Nothing:
        """A page that shows this description, and tries operations out. It needs nothing from the network."""
        # What it needs it names relative to itself, wherever it is mounted: with a slash at its end it would look in the wrong place.
        if call.request.env["PATH_INFO"].endswith("/"):
            return Nothing(status=308, headers={"Location": "../docs"})
        return Document(_PAGE.encode(), _HTML, headers={"Content-Security-Policy": _POLICY})


class DocsAsset:
    """A file that the page needs; not an operation of the API.

    Args:
        name: Its name in the page.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @operation("getDocsAsset", "A file of the page", tag="documents", role="read", answers={200: "text/plain"})
    def on_get(self, _call: Call[None, None]) -> Document:
        """The file."""
        if self._name == "start.js":
            return Document(_START.encode(), _SCRIPT)
        file, kind = {"swagger.js": ("swagger_bundle.js", _SCRIPT), "swagger.css": ("swagger_style.css", _STYLE)}[self._name]
        return Document((_assets() / file).read_bytes(), kind, headers={"Cache-Control": _KEPT})


def _assets() -> Path:
    """Where Swagger UI lies: in the package offapi, which need not be imported for that (it would read everything it has)."""
    spec = find_spec("offapi")
    if spec is None or spec.origin is None:
        msg = "the page needs the package offapi, of the extra 'api': pip install 'jobqueue[api]'"
        raise PluginError(msg, plugin="api")
    return Path(spec.origin).parent
