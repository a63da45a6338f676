"""Canonical JSON, the one text encoding of bundles, and a small schema checker.

A value is an object, a list, a string of printable ASCII or an integer: no floats, no null, no booleans. Bytes are
lower-case hex strings. There is one encoding of a value (sorted keys, no whitespace), and decoding refuses every other:
two parties that agree on the meaning of a manifest agree on its bytes. Rules and reasons: docs/formats.md.

A schema is a parser: a function from (value, place) to the converted value that raises BundleError naming the place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, TypeVar

from gensyn_verify.errors import BundleError, GensynVerifyError, LimitError
from gensyn_verify.program.program import check_name

T = TypeVar("T")
Parser = Callable[[Any, str], T]

MAX_INTEGER_DIGITS = 19
MAX_DEPTH = 16
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]')  # and strings, which may hold some


def encode(value: object) -> bytes:
    """The canonical bytes of `value`."""
    _check_value(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _check_value(value: object) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise BundleError(f"key {key!r} is no string")
            _check_value(key)
            _check_value(item)
    elif isinstance(value, list):
        for item in value:
            _check_value(item)
    elif isinstance(value, str):
        if not value.isascii() or not value.isprintable():
            raise BundleError(f"string {value[:60]!r} is not printable ASCII")
    elif isinstance(value, bool) or not isinstance(value, int):
        raise BundleError(f"{value!r} is {type(value).__name__}; manifests hold objects, lists, strings and integers")


def decode(data: bytes, parser: Parser[T], where: str) -> T:
    """Parse canonical bytes by a schema; raises BundleError where the bytes are not canonical or do not fit."""
    try:
        _check_depth(data)
        value = json.loads(
            data.decode("ascii"),
            object_pairs_hook=_unique_keys,
            parse_int=_integer,
            parse_float=_refuse,
            parse_constant=_refuse,
        )
        canonical = encode(value)
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: byte {error.start} is not ASCII") from None
    except json.JSONDecodeError as error:
        raise BundleError(f"{where}: not JSON at byte {error.pos}: {error.msg}") from None
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from None
    if canonical != data:
        at = next((i for i, (a, b) in enumerate(zip(canonical, data, strict=False)) if a != b), len(canonical))
        raise BundleError(f"{where}: byte {at} departs from canonical JSON (sorted keys, no whitespace, one spelling)")
    return parser(value, where)


def _check_depth(data: bytes) -> None:
    """Python's parser calls itself at every bracket, and not every process limits that before its stack is full."""
    depth = 0
    for token in _BRACKETS.finditer(data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth > MAX_DEPTH:
            raise BundleError(f"nested too deeply: more than {MAX_DEPTH} levels at byte {token.start()}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        keys = [k for k, _ in pairs]
        raise BundleError(f"key {next(k for k in keys if keys.count(k) > 1)[:60]!r} appears twice")
    return out


def _integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise BundleError(f"an integer has {len(digits)} digits; the limit is {MAX_INTEGER_DIGITS}")
    return int(digits)


def _refuse(text: str) -> NoReturn:
    raise BundleError(f"number {text[:40]} is not an integer")


# ---- schemas ----------------------------------------------------------------------------------------------------


def _expected(where: str, wanted: str, found: object) -> BundleError:
    shown = repr(found)
    return BundleError(f"{where}: expected {wanted}, found {shown if len(shown) <= 80 else shown[:77] + '...'}")


def integer(low: int, high: int) -> Parser[int]:
    def parse(value: Any, where: str) -> int:
        if not isinstance(value, int) or not low <= value <= high:
            raise _expected(where, f"an integer from {low} to {high}", value)
        return value

    return parse


def text(limit: int = 200) -> Parser[str]:
    def parse(value: Any, where: str) -> str:
        if not isinstance(value, str) or len(value) > limit:
            raise _expected(where, f"a string of at most {limit} characters", value)
        return value

    return parse


def literal(*wanted: str | int) -> Parser[Any]:
    def parse(value: Any, where: str) -> Any:
        if value not in wanted:
            raise _expected(where, " or ".join(map(repr, wanted)), value)
        return value

    return parse


def blob(*sizes: int) -> Parser[bytes]:
    """Hex of exactly one of these sizes in bytes."""

    def parse(value: Any, where: str) -> bytes:
        if not isinstance(value, str) or len(value) not in [2 * s for s in sizes] or not set(value) <= set(_HEX):
            raise _expected(where, f"{' or '.join(map(str, sizes))} bytes in lower-case hex", value)
        return bytes.fromhex(value)

    return parse


_HEX = "0123456789abcdef"
digest = blob(32)


def array(item: Parser[T], limit: int) -> Parser[list[T]]:
    def parse(value: Any, where: str) -> list[T]:
        if not isinstance(value, list):
            raise _expected(where, "a list", value)
        if len(value) > limit:
            raise LimitError(f"{where}: {len(value)} items; the limit is {limit}")
        return [item(x, f"{where}[{i}]") for i, x in enumerate(value)]

    return parse


def record(**fields: Parser[Any]) -> Parser[dict[str, Any]]:
    """An object with exactly these keys."""

    def parse(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _expected(where, "an object", value)
        missing, extra = sorted(set(fields) - set(value)), sorted(set(value) - set(fields))
        if missing or extra:
            unknown = [k[:60] for k in extra]
            raise BundleError(f"{where}: missing keys {missing or 'none'}, unknown keys {unknown or 'none'}")
        return {key: parse_field(value[key], f"{where}.{key}") for key, parse_field in fields.items()}

    return parse


def table(item: Parser[T], limit: int) -> Parser[dict[str, T]]:
    """An object from names (as in programs) to items."""

    def parse(value: Any, where: str) -> dict[str, T]:
        if not isinstance(value, dict):
            raise _expected(where, "an object", value)
        if len(value) > limit:
            raise LimitError(f"{where}: {len(value)} entries; the limit is {limit}")
        for name in value:
            placed(where, partial(check_name, name))
        return {name: item(x, f"{where}.{name}") for name, x in value.items()}

    return parse


def placed(where: str, check: Callable[[], None]) -> None:
    """Run a check of the program package; what it raises becomes a BundleError (or LimitError) that names `where`."""
    try:
        check()
    except GensynVerifyError as error:
        kind = LimitError if isinstance(error, LimitError) else BundleError
        raise kind(f"{where}: {error}") from None
