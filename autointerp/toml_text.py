"""Plain values -> TOML, which the standard library reads but does not write."""

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["toml_text"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
"""Keys that need no quotation marks."""


def toml_text(content: Mapping[str, Any]) -> str:
    """The content as TOML that reads back equal; tables hold values, tables, lists, lists of tables."""
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    lists = {key: value for key, value in content.items() if _is_list_of_tables(value)}
    lines = _pairs({key: value for key, value in content.items() if key not in tables and key not in lists})
    for key, table in tables.items():
        nested = {inner: value for inner, value in table.items() if _is_list_of_tables(value)}
        lines += ["", f"[{_key(key)}]", *_pairs({k: v for k, v in table.items() if k not in nested})]
        for inner, rows in nested.items():
            lines += [line for row in rows for line in ("", f"[[{_key(key)}.{_key(inner)}]]", *_pairs(row))]
    for key, rows in lists.items():
        lines += [line for row in rows for line in ("", f"[[{_key(key)}]]", *_pairs(row))]
    return "\n".join(lines) + "\n"


def _is_list_of_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], dict)


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_toml_value(value)}" for key, value in table.items()]


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _toml_string(key)


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _toml_string(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(_pairs(value))}}}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)


def _toml_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
