"""Read untrusted JSON files and check the types of their values."""

import hashlib
import json
import math
import os
import typing
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, NotRequired, Union, get_args, get_origin, get_type_hints

from nnjax.storage.atomic_write import finite
from nnjax.storage.paths import open_regular

MOST_BYTES = 64 * 2**20
WORDS = {str: "text", bool: "true or false", int: "an integer", float: "a finite number", NoneType: "null"}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that contains an object.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the file is not a regular file, is larger than 64 MiB, is not valid JSON, is nested too deeply,
        contains duplicate names, NaN or infinities, or does not contain an object.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise ValueError(f"{path} has {size:,} bytes, expected at most {MOST_BYTES:,}")
        text = file.read()
    try:
        content = json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite_float
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: expected an object, got {_shorten(content)}")
    return content


def json_digest(content: Any) -> str:
    """Return the SHA-256 of plain values. NaN and infinities count as null; the order of names does not matter.

    >>> from nnjax.storage.json_file import json_digest
    >>> json_digest({"a": 1, "b": [2.5]}) == json_digest({"b": [2.5], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(finite(content), sort_keys=True, allow_nan=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the bytes of a regular file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_kind(place: str, value: Any, kind: Any) -> Any:
    """Check a value from a JSON file against a type annotation, and return it.

    Args:
      place: name of the value, for error messages.
      value: the value.
      kind: `str`, `bool`, `int`, `float` (finite), `Any`, a `Literal` of strings, a union such as `int | None`,
        `list[…]`, `dict[str, …]`, a `TypedDict`, or a `NamedTuple`, which is built from an object or from a list of its
        fields.

    Raises:
      ValueError: if a value has a different type, or if an object has unknown or missing entries; the message names the
        first such value.

    >>> from nnjax.storage.json_file import check_kind
    >>> check_kind("mean", [1.5, "2"], list[float])
    Traceback (most recent call last):
    ...
    ValueError: mean[1] must be a finite number, got '2'
    """
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return _check_union(place, value, kind)
    if origin is NotRequired:
        return check_kind(place, value, arguments[0])
    if origin is list and isinstance(value, list):
        return [check_kind(f"{place}[{i}]", item, arguments[0]) for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {name: check_kind(f"{place}.{name}", item, arguments[1]) for name, item in value.items()}
    names = getattr(origin, "_fields", None)  # None unless it is a NamedTuple
    if names is not None and isinstance(value, list) and len(value) <= len(names):
        value = dict(zip(names, value, strict=False))
    if isinstance(value, dict) and (names is not None or typing.is_typeddict(origin)):
        return _check_fields(place, value, origin)
    if not _is_plain(value, kind):
        raise ValueError(f"{place} must be {_words(kind)}, got {_shorten(value)}")
    return value


def _check_union(place: str, value: Any, kind: Any) -> Any:
    """Check a value against a union of types. If none matches, raise the most specific error."""
    problems = []
    for alternative in get_args(kind):
        try:
            return check_kind(place, value, alternative)
        except ValueError as error:
            problems.append(str(error))
    inner = [problem for problem in problems if not problem.startswith(f"{place} must be ")]
    raise ValueError(inner[0] if inner else f"{place} must be {_words(kind)}, got {_shorten(value)}")


def _check_fields(place: str, value: dict[str, Any], kind: Any) -> Any:
    """Check the fields of an object and return it as a `TypedDict` or `NamedTuple`."""
    is_dict = typing.is_typeddict(kind)
    kinds = get_type_hints(kind)
    required = kind.__required_keys__ if is_dict else set(kind._fields) - set(kind._field_defaults)
    unknown, missing = [name for name in value if name not in kinds], sorted(required - value.keys())
    if unknown or missing:
        problem = f"has an unknown entry {_shorten(unknown[0])}" if unknown else f"lacks the entry {missing[0]!r}"
        raise ValueError(f"{place} {problem}")
    fields = {name: check_kind(f"{place}.{name}", item, kinds[name]) for name, item in value.items()}
    return fields if is_dict else kind(**fields)


def _is_plain(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if isinstance(value, bool):
        return kind is bool or kind is Any
    if kind is float:
        return isinstance(value, int | float) and abs(value) < 1.7e308  # an integer may exceed the range of a float
    if kind is int:
        return isinstance(value, int) and abs(value) < 2**63
    return kind is Any or (kind in WORDS and isinstance(value, kind))


def _words(kind: Any) -> str:
    """Describe a type annotation in words."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(_words, get_args(kind)))
    if origin is Literal:
        return " or ".join(map(repr, get_args(kind)))
    return "a list" if origin is list else WORDS.get(kind, "an object")


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the entry {_shorten(name)} occurs twice")
        content[name] = value
    return content


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def _finite_float(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refuse(_shorten(text))
