"""The smallest JSON value that a schema allows, as far as schemas for answers go."""

from collections.abc import Mapping
from typing import Any

__all__ = ["smallest_instance"]


def smallest_instance(schema: Mapping[str, Any]) -> Any:
    """A value that the schema allows: of enumerations the first, of numbers the least, of lists the shortest.

    Understood are type, enum, const, properties, required, items, minItems, minimum and anyOf.
    """
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for option in schema.get("anyOf", ()):
        return smallest_instance(option)
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        return {
            name: smallest_instance(properties.get(name, {})) for name in schema.get("required", properties)
        }
    if kind == "array":
        return [smallest_instance(schema.get("items", {})) for _ in range(schema.get("minItems", 0))]
    plain = {"string": "", "boolean": False, "null": None}
    return plain[kind] if kind in plain else schema.get("minimum", 0)
