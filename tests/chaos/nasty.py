"""Draws hostile texts, numbers, JSON, bytes and path segments.

`Schemas` draws JSON that fits an OpenAPI schema, parts of which are replaced by such values.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

# A table is easier to read than one value per line.
# fmt: off
TEXTS = (
    "", " ", "\t", "\x00", "\x1f", "\x7f", "\u00a0", "\u200b", "\ufeff", "\u202e", "é",
    "e\u0301", "ß", "İ", "１２３", "٣", "²",
    "42", "42.0", " 42 ", "042", "+42", "-0", "4_2", "1e3", "0x2a", "NaN", "inf", "null",
    "None", "true", "[]", "{}", "{x}",
    "a/b", "a/", "/a", "..", "../..", "a b", "a%20b", "a%2520b", "a+b", "a?b", "a#b", "a;b",
    "a&b=c", "a:b", "a{b}c", "*", "?",
    "'", '"', "\\", "`", "\n", "\r\nX-Header: 1", "<script>", "${jndi:ldap://x}", "{{7*7}}",
    "%s%n", "'; DROP TABLE users; --",
    "\U0001f600", "👨‍👩‍👧‍👦", "a" * 255, "a" * 256, "a" * 257, "é" * 256, "a" * 5000, "user-001",
    "item-001", "constructor",
)
SURROGATES = ("\ud800", "a\udfff", "\ud83d")
NUMBERS: tuple[float | int, ...] = (
    0, -0.0, 1, -1, 2, 100, 101, 255, 2**31 - 1, 2**31, -(2**31), 2**53, 2**53 + 1, 2**63 - 1,
    2**63, -(2**63) - 1, 2**64,
    10**19 - 1, 10**19, 10**30, 10**400, 0.1, 1.5, 1e-320, 1e38, 3.5e38, 1e39, 1e308, -1e308,
    1e-7,
)
LITERALS = (
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" * 5000, "0" * 50 + "1", "1.", ".5",
    "01", "0x10", "'a'", "undefined",
)
TYPES = (
    "application/json", "application/json; charset=utf-8", "application/json;charset=utf-16",
    "APPLICATION/JSON", "text/plain",
    "application/vnd.api+json", "application/x-www-form-urlencoded", "multipart/form-data",
    "multipart/form-data; boundary=x",
    "", " ", ";", "application/", "/json", "application/json, text/plain",
    "application/json; charset=\x80", "x" * 1000,
)
# fmt: on


MAX_DEPTH = 8
"""Deepest level of a recursive schema."""


def text(rng: random.Random) -> str:
    """A text; now and then a lone surrogate, which cannot be encoded."""
    kind = rng.random()
    if kind < 0.7:
        return rng.choice(TEXTS)
    if kind < 0.75:
        return rng.choice(SURROGATES)
    if kind < 0.9:
        length = rng.randrange(12)
        codes = ((rng.randrange(128), rng.randrange(0xD800)) for _ in range(length))
        return "".join(chr(rng.choice(pair)) for pair in codes)
    return rng.choice(TEXTS)[:100] + rng.choice(TEXTS)[:100]


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value."""
    kind = rng.random()
    if kind < 0.35:
        return text(rng)
    if kind < 0.6:
        return rng.choice(NUMBERS)
    if kind < 0.75 or depth > 3:
        return rng.choice((None, True, False, [], {}, "", 0))
    if kind < 0.88:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}


@dataclass(frozen=True)
class Schemas:
    """Draws JSON that fits a schema, and replaces parts of it.

    components: schemas by the last part of their `$ref`; texts: valid ids, which are drawn more
    often than other texts; rate: probability that a part is replaced by any value.
    """

    components: dict[str, Any]
    texts: list[str]
    rng: random.Random
    rate: float

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        """A value that fits a schema, as far as `rate` lets it."""
        if self.rng.random() < self.rate or depth > MAX_DEPTH:
            return value(self.rng)
        several = schema.get("anyOf") or schema.get("oneOf")
        if "$ref" in schema:
            return self.value(self.components[schema["$ref"].rpartition("/")[2]], depth)
        if several and "properties" not in schema:
            return self.value(self.rng.choice(several), depth + 1)
        if "const" in schema or "enum" in schema:
            return self.rng.choice(schema.get("enum") or [schema["const"]])
        return self._typed(schema, depth)

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                items = schema.get("items", {})
                return [self.value(items, depth + 1) for _ in range(self._size(schema, depth))]
            case "integer" | "number":
                return self._number(schema)
            case "boolean":
                return self.rng.random() < 0.5
            case "null":
                return None
        return self.rng.choice(self.texts) if self.rng.random() < 0.7 else text(self.rng)

    def _size(self, schema: dict[str, Any], depth: int) -> int:
        least = schema.get("minItems", 0)
        large = self.rng.randrange(40) if depth < 3 else least
        return self.rng.choice((least, least + 1, least + 2, least + 5, large))

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, inner in schema.get("properties", {}).items():
            probability = 1 - self.rate if name in schema.get("required", ()) else 0.3
            if self.rng.random() < probability:
                out[name] = self.value(inner, depth + 1)
        if isinstance(schema.get("additionalProperties"), dict):
            for _ in range(self.rng.randrange(3)):
                out[text(self.rng)] = self.value(schema["additionalProperties"], depth + 1)
        if self.rng.random() < self.rate:
            out[text(self.rng)] = value(self.rng)
        return out

    def _number(self, schema: dict[str, Any]) -> float | int:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -5))
        high = schema.get("maximum", schema.get("exclusiveMaximum", 10**9))
        if schema["type"] == "integer":
            within = self.rng.randrange(int(low), int(high) + 1)
            return self.rng.choice((int(low), int(high), within, int(low) - 1, int(high) + 1))
        return self.rng.choice((low, high, self.rng.uniform(low, high), 1, 2.5))


def body(content: Any, rng: random.Random) -> bytes:
    """JSON as bytes, a quarter of it damaged or replaced by something else."""
    out = json.dumps(content, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    kind = rng.random()
    if kind < 0.75:
        return out
    if kind < 0.8:
        return _damaged(out, rng)
    if kind < 0.85:  # a number becomes another literal
        at = out.find(b": ") + 2
        return out[:at] + rng.choice(LITERALS).encode() + b"}"
    if kind < 0.88:
        deep = rng.choice((50, 500, 5000, 100_000))
        return rng.choice((b"[" * deep, b'{"a":' * deep, b"[" * deep + b"]" * deep))
    others = (
        b"",
        b" ",
        b"null",
        b"\xef\xbb\xbf" + out,
        out.decode("utf-8", "replace").encode("utf-16"),
        gzip.compress(out),
    )
    return rng.choice(
        (
            *others,
            base64.b64encode(out),
            out + out,
            b"\xff\xfe",
            b"a=b&c=d",
            b"--x\r\n\r\n1\r\n--x--",
        )
    )


def _damaged(raw: bytes, rng: random.Random) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 3))):
        if out:
            out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out[: rng.randrange(len(out) + 1)] if rng.random() < 0.3 else out)


def segment(content: str, rng: random.Random) -> bytes:
    """A path segment, encoded once, twice, not at all, or wrongly."""
    raw = content.encode("utf-8", "surrogatepass")
    kind = rng.random()
    if kind < 0.6:
        return quote(raw, safe="").encode()
    if kind < 0.75:
        return quote(quote(raw, safe="")).encode()
    if kind < 0.85:
        return b"".join(b"%%%02x" % byte for byte in raw)
    if kind < 0.92:
        return raw.replace(b"?", b"%3f").replace(b"#", b"%23")
    return quote(raw, safe="").encode() + rng.choice(
        (b"%", b"%2", b"%zz", b"%ff", b"%00", b"%c0%af", b"%2F", b"%2e%2e", b"//", b";x")
    )
