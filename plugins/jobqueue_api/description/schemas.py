"""The schemas of what operations take and answer: as they are declared, and as generators of clients like them.

What msgspec makes of the types is right, and this says the same in other words: fields and values in the order of their declaration, what
describes a field beside it, a name for each object.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args, get_type_hints

import msgspec

from jobqueue_api.http.bodies import AS_SCHEMA

__all__ = ["REFERENCE", "Schemas"]

REFERENCE: Final = "#/components/schemas/"
_NULL: Final = {"type": "null"}
_SAID: Final = ("description", "examples")
"""What speaks of a field, whatever kinds of value it has."""
_NAMED: Final[Mapping[str, str]] = {
    "dependencies": "What answers, and where it is.",
    "headers": "What programs keep with a job: trace context, codec.",
    "metadata": "Text that is kept with a job.",
    "misfire": "What to do about ticks that were missed: fire the latest, none, or all of them.",
    "overlap": "Whether to fire while the last job has not ended.",
    "payload_schema": "JSON Schema of a payload.",
    "types_24h": "The last 24 hours, by job type.",
}
"""Fields that hold an open object or one of a few words: their type has no name in Python, and gets one, and this description."""


class Schemas:
    """The schemas of *types*.

    Args:
        types: Whatever operations declare.
    """

    def __init__(self, types: Iterable[Any]) -> None:
        self._types: list[Any] = []
        for one in types:
            if one not in self._types:
                self._types.append(one)
        schemas, components = msgspec.json.schema_components(self._types, ref_template=f"{REFERENCE}{{name}}")
        self._schemas = [_tidy(schema) for schema in schemas]
        declared = {one.__name__: one for one in _types_within(self._types)}
        self._components = {_short(name): _ordered(_tidy(schema), declared.get(name)) for name, schema in components.items()}
        for name, schema in list(self._components.items()):
            self._components[name] = self._with_names(name, schema)

    def components(self, *, without: Sequence[type]) -> dict[str, Any]:
        """All schemas that have names, by name.

        Args:
            without: Types that are described elsewhere.
        """
        left_out = {_short(kind.__name__) for kind in without}
        return {name: schema for name, schema in sorted(self._components.items()) if name not in left_out}

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of *kind*, which may be a reference."""
        schema: dict[str, Any] = self._schemas[self._types.index(kind)]
        return schema

    def fields(self, kind: type) -> Mapping[str, dict[str, Any]]:
        """The schemas of a type's fields, by name."""
        fields: dict[str, dict[str, Any]] = self._components[_short(kind.__name__)]["properties"]
        return fields

    def _with_names(self, owner: str, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema of an object whose fields refer to types by name: clients otherwise call them after where they stand."""
        if "properties" not in schema:
            return schema
        # What may be sent is narrower than what may be answered.
        prefix = owner if schema.get("additionalProperties") is False else ""
        return schema | {"properties": {field: self._named(field, prefix, one) for field, one in schema["properties"].items()}}

    def _named(self, field: str, prefix: str, schema: dict[str, Any]) -> dict[str, Any]:
        if "anyOf" in schema:
            return schema | {"anyOf": [self._named(field, prefix, one) for one in schema["anyOf"]]}
        if field not in _NAMED or not (schema.get("type") == "object" or "enum" in schema):
            return schema
        beside = {key: value for key, value in schema.items() if key in (*_SAID, "default")}
        shape = {"description": _NAMED[field]} | {key: value for key, value in schema.items() if key not in beside}
        name = ("" if "enum" in schema else prefix) + "".join(word.capitalize() for word in field.split("_"))
        if self._components.setdefault(name, shape) != shape:
            raise ValueError(f"two schemas would be called {name}")
        return {"$ref": REFERENCE + name} | beside


# Words ---------------------------------------------------------------------------------------------------------------------------------


def _tidy(schema: Any) -> Any:
    """*schema* in the words of OpenAPI's readers."""
    if isinstance(schema, list):
        return [_tidy(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _tidy(value) for key, value in schema.items() if not _is_noise(key, value)}
    if AS_SCHEMA in kept:
        kept = kept.pop(AS_SCHEMA) | {key: kept[key] for key in _SAID if key in kept}
    if isinstance(reference := kept.get("$ref"), str):
        kept["$ref"] = REFERENCE + _short(reference.removeprefix(REFERENCE))
    if isinstance(description := kept.get("description"), str):
        kept["description"] = _as_markdown(description)
    if "anyOf" in kept:
        kept = _flat(kept)
    if "enum" in kept and all(isinstance(one, str) for one in kept["enum"]):
        kept = {"type": "string"} | kept
    return kept


def _is_noise(key: str, value: object) -> bool:
    """Titles become names in clients; and a default of null says only that the field may be left out, which `required` says already."""
    return (key == "title" and isinstance(value, str)) or (key == "default" and value is None)


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """One ``anyOf`` of one, which says of the field what its only branch but null has said."""
    branches = schema["anyOf"]
    said: dict[str, Any] = {}
    if len([one for one in branches if one != _NULL]) == 1:
        (kind,) = (one for one in branches if one != _NULL)
        said = {key: kind[key] for key in _SAID if key in kind}
        kind = {key: value for key, value in kind.items() if key not in said}
        branches = [*(kind.get("anyOf") or [kind]), *(one for one in branches if one == _NULL)]
    if {"type": "number"} in branches:
        branches = [one for one in branches if one != {"type": "integer"}]
    return said | schema | {"anyOf": branches}


def _as_markdown(docstring: str) -> str:
    return re.sub(r"\*(\w+)\*", r"`\1`", inspect.cleandoc(docstring).replace("``", "`"))


# Order ---------------------------------------------------------------------------------------------------------------------------------


def _ordered(schema: dict[str, Any], declared: type | None) -> dict[str, Any]:
    """The schema with fields and values as they are declared: msgspec sorts those of a TypedDict and of an enum."""
    if declared is None:
        return schema
    if issubclass(declared, enum.Enum):
        return schema | {"enum": [one.value for one in declared]}
    names = [name for name in get_type_hints(declared) if name in schema["properties"]]
    return schema | {
        "properties": {name: schema["properties"][name] for name in names},
        "required": [name for name in names if name in schema["required"]],
    }


def _types_within(kinds: Iterable[Any]) -> Iterator[type]:
    """The types that have names of their own, in what was declared and within it."""
    seen: set[type] = set()
    left = list(kinds)
    while left:
        kind = left.pop()
        left += get_args(kind)
        if isinstance(kind, type) and kind not in seen and (issubclass(kind, enum.Enum | msgspec.Struct) or hasattr(kind, "__total__")):
            seen.add(kind)
            yield kind
            left += [] if issubclass(kind, enum.Enum) else get_type_hints(kind).values()


def _short(name: str) -> str:
    return name.removesuffix("Object")
