"""Check JSON records against a schema, as far as the schemas of this package go (JSON Schema 2020-12)."""

from __future__ import annotations

from typing import Any

TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}


def matches(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value matches a schema."""
    try:
        check(value, schema)
    except AssertionError:
        return False
    return True


def check(value: Any, schema: dict[str, Any], place: str = "") -> None:
    """Raise AssertionError where a value does not match a schema."""
    if "const" in schema:
        assert value == schema["const"], place
    if "enum" in schema:
        assert value in schema["enum"], place
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        assert any(isinstance(value, TYPES[name]) for name in names), f"{place}: {value!r}"
    if isinstance(value, (int, float)):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), place
    for name in schema.get("required", ()):
        assert name in value, f"{place}: no {name} in {value}"
    for name, inner in schema.get("properties", {}).items():
        if isinstance(value, dict) and name in value:
            check(value[name], inner, f"{place}/{name}")
    for item in value if "items" in schema else ():
        check(item, schema["items"], f"{place}/items")
    assert not schema.get("anyOf") or any(matches(value, option) for option in schema["anyOf"]), place
    for part in schema.get("allOf", ()):
        if matches(value, part["if"]):
            check(value, part["then"], place)
