"""Reads the JSON files of a checkpoint and checks their fields, so that every complaint names the file and the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import ExportError, refuse_lfs_pointer

_REQUIRED = object()


class JsonObject:
    """A JSON object that knows which file it came from and where in it it stands."""

    def __init__(self, content: dict, path: Path, place: str = ""):
        self.content = content
        self.path = path
        self._place = place
        self._asked: set[str] = set()

    @classmethod
    def read(cls, path: Path, advice: str = "") -> JsonObject:
        refuse_lfs_pointer(path)
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise ExportError(f"{path}: no such file{advice}") from None
        except (ValueError, UnicodeDecodeError) as error:
            raise ExportError(f"{path}: not a JSON file: {error}") from None
        if not isinstance(content, dict):
            raise ExportError(f"{path}: expected a JSON object")
        return cls(content, path)

    def error(self, key: str, what: str) -> ExportError:
        return ExportError(f"{self.path}: {self.name(key)}: {what}")

    def name(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
        """The value of ``key``, of the given kind. A default makes both a missing key and null mean that default."""
        self._asked.add(key)
        value = self.content.get(key)
        if value is None:
            if default is _REQUIRED:
                raise self.error(key, "missing")
            return default
        # JSON's true and false are integers to Python, and whole numbers may be written without a point.
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(key, f"{json.dumps(value)[:80]} is not a {_kind_name(kind)}")
        return value

    def count(self, key: str, default: Any = _REQUIRED, least: int = 1) -> int:
        value = self.get(key, int, default)
        if value < least:
            raise self.error(key, f"is {value}, must be at least {least}")
        return value

    def strings(self, key: str, default: Any = _REQUIRED) -> list[str] | Any:
        value = self.get(key, list, default)
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise self.error(key, "is not a list of strings")
        return value

    def object(self, key: str, default: Any = _REQUIRED) -> JsonObject:
        return JsonObject(self.get(key, dict, default), self.path, self.name(key))

    def never_asked(self) -> list[str]:
        """The keys of the object whose value nobody wanted."""
        return [key for key in self.content if key not in self._asked]

    def objects(self, key: str) -> list[JsonObject]:
        found = []
        for index, item in enumerate(self.get(key, list)):
            if not isinstance(item, dict):
                raise self.error(f"{key}[{index}]", "is not an object")
            found.append(JsonObject(item, self.path, self.name(f"{key}[{index}]")))
        return found


def _kind_name(kind: type | tuple[type, ...]) -> str:
    names = {bool: "truth value", int: "whole number", float: "number", str: "string", list: "list", dict: "JSON object"}
    return names[kind] if isinstance(kind, type) else " or ".join(names[one] for one in kind)
