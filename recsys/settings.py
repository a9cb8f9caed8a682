"""Every setting of Shortlist: read from the environment once, by each entry point, and passed on as values."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, get_args

from shortlist.recsys.api_keys import ApiKey, InvalidApiKey, parse_api_keys
from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.store.redis_url import parse_redis_url

Value = TypeVar("Value")
Loss = Literal["sampled_softmax", "bpr"]
Engine = Literal["local", "ray"]
HoldoutProtocol = Literal["last-10pct", "leave-one-out", "time"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
LOSSES: tuple[Loss, ...] = get_args(Loss)
PROTOCOLS: tuple[HoldoutProtocol, ...] = get_args(HoldoutProtocol)
SECRET_LENGTH = 16
REDIS_ATTEMPTS = 2
"""How often the API waits for Redis's timeout before it gives up."""
_ORIGIN = re.compile(r"https?://[^/\s*]+")
_BASE_PATH = re.compile(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")
API_ROOTS = ("v1", "recommend", "model", "metrics", "health", "docs", "redoc", "openapi.json")
"""What the API's own paths begin with, so that a base path must not."""
_NAMESPACE = re.compile(r"[^\s{}\x00-\x1f\x7f]{1,100}")


@dataclass(frozen=True, slots=True)
class Settings:
    """The documented settings; every field's variable and default are in `from_env`."""

    embedding_dim: int
    """`EMBEDDING_DIM` (64): width of the embeddings, 4 to 1024."""
    top_k_candidates: int
    """`TOP_K_CANDIDATES` (500): candidates ranked for each user, 10 to 10 000."""
    faiss_n_lists: int
    """`FAISS_N_LISTS` (100): inverted lists of the index, once the catalogue is too large for exact search."""
    faiss_n_probe: int
    """`FAISS_N_PROBE` (10): lists searched for a user; at most `FAISS_N_LISTS`."""
    lgbm_n_estimators: int
    """`LGBM_N_ESTIMATORS` (500): most trees of the ranker; early stopping usually ends sooner."""
    exploration_share: float
    """`EXPLORATION_SHARE` (0.01): share of a list, its first three places aside, for new items, to gather feedback."""
    loss: Loss
    """`LOSS` (sampled_softmax): what the towers minimise, sampled_softmax or bpr."""
    cache_ttl_seconds: int
    """`CACHE_TTL_SECONDS` (300): how long a live result is kept."""
    redis_url: str = field(repr=False)
    """`REDIS_URL` (redis://localhost:6379): redis://, rediss:// or unix://; `?cluster=true`, `?iam=CACHE` (see `redis_url`)."""
    artefacts: str
    """`SHORTLIST_ARTEFACTS` (./artefacts): where releases are kept, a directory or s3://bucket/prefix."""
    namespace: str
    """`SHORTLIST_NAMESPACE` (shortlist): what keys in Redis start with; no braces and no blanks."""
    list_length: int
    """`SHORTLIST_LIST_LENGTH` (100): items precomputed for each user, 10 to 1000; at most `TOP_K_CANDIDATES`."""
    list_ttl_seconds: int
    """`SHORTLIST_LIST_TTL_SECONDS` (86400): how long the lists of a superseded release live; those of the serving release, and
    of the one before it, stay."""
    max_waiting_events: int
    """`SHORTLIST_MAX_WAITING_EVENTS` (2000000): events that may wait for a drain, 300 bytes each; then none is taken."""
    max_newcomers: int
    """`SHORTLIST_MAX_NEWCOMERS` (1000000): users of a day who may have a record before a batch has learnt of them; about 500
    bytes each, for three days. The events of the others are kept for the batch all the same."""
    redis_timeout_ms: int
    """`SHORTLIST_REDIS_TIMEOUT_MS` (500): how long the API waits for each command of Redis, and once more where it is retried."""
    request_timeout_ms: int
    """`SHORTLIST_REQUEST_TIMEOUT_MS` (2000): how long `shortlist serve` takes for a request; Lambda has a timeout of its own."""
    release_cache_seconds: float
    """`SHORTLIST_RELEASE_CACHE_SECONDS` (5): how long a process trusts the release pointer that it read."""
    threads: int
    """`SHORTLIST_THREADS` (0): threads of training; 0 takes every core."""
    workers: int
    """`SHORTLIST_WORKERS` (1): processes that precompute lists; 1 computes in the batch's own process."""
    engine: Engine
    """`SHORTLIST_ENGINE` (local): where several workers run, local or ray (RAY_ADDRESS, or this machine)."""
    protocol: HoldoutProtocol
    """`SHORTLIST_PROTOCOL` (last-10pct): how the batch cuts off what it reports on."""
    gate: bool
    """`SHORTLIST_GATE` (on): whether a release that is no better than popularity, or worse than the serving one, is refused."""
    gate_margin: float
    """`SHORTLIST_GATE_MARGIN` (0.05): by what share of NDCG@10 a release may fall below the serving one."""
    skew_share: float
    """`SHORTLIST_SKEW_SHARE` (0.1): share of the live answers of which a feature row is counted, for `shortlist skew`; 0 none."""
    log_users: bool
    """`SHORTLIST_LOG_USERS` (off): whether the log names the users who asked."""
    cors_origins: tuple[str, ...]
    """`SHORTLIST_CORS_ORIGINS` (none): origins whose pages may call the API, with commas between; `*` for any."""
    admin_key: str | None = field(repr=False)
    """`SHORTLIST_ADMIN_KEY` (none): what the header X-Shortlist-Admin-Key must hold, 16 characters or more; none closes them."""
    base_paths: tuple[str, ...]
    """`SHORTLIST_BASE_PATH` (none): the stage or mapping before the API's paths; several with commas."""
    jwt_user_claim: str | None
    """`SHORTLIST_JWT_USER_CLAIM` (none): the claim with the user for whom a token may act.

    With it, or with API keys, only known callers are answered.
    """
    api_keys: tuple[ApiKey, ...] = field(repr=False)
    """`SHORTLIST_API_KEYS` (none): `name:scope+scope:key`, several with commas, or a file of them."""
    api_key_rate: float
    """`SHORTLIST_API_KEY_RATE` (100): requests a second of each API key, in each process; 0 for any number."""
    bundle_dir: Path
    """`SHORTLIST_BUNDLE_DIR` (the system's temporary directory): where a process keeps its copies of bundles from S3."""
    bundle_max_mb: int
    """`SHORTLIST_BUNDLE_MAX_MB` (480): MiB of disk that a process has for one bundle from S3; a larger one is not published."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that `environ` states, and the defaults of the rest.

        Raises:
            InvalidSettings: a variable breaks its rule; the message names it, its value and the
                rule.
        """
        read = _Reader(environ)
        lists = read.integer("FAISS_N_LISTS", 100, 1, 65536)
        candidates = read.integer("TOP_K_CANDIDATES", 500, 10, 10_000)
        redis_timeout_ms = read.integer("SHORTLIST_REDIS_TIMEOUT_MS", 500, 1, 60_000)
        return cls(
            embedding_dim=read.integer("EMBEDDING_DIM", 64, 4, 1024),
            top_k_candidates=candidates,
            faiss_n_lists=lists,
            faiss_n_probe=read.integer("FAISS_N_PROBE", min(10, lists), 1, lists),
            lgbm_n_estimators=read.integer("LGBM_N_ESTIMATORS", 500, 1, 10_000),
            exploration_share=read.number("EXPLORATION_SHARE", 0.01, 0.0, 0.5),
            loss=read.choice("LOSS", "sampled_softmax", LOSSES),
            cache_ttl_seconds=read.integer("CACHE_TTL_SECONDS", 300, 1, 86_400),
            redis_url=read.redis_url("REDIS_URL", "redis://localhost:6379"),
            artefacts=read.text("SHORTLIST_ARTEFACTS", "./artefacts"),
            namespace=read.namespace("SHORTLIST_NAMESPACE", "shortlist"),
            list_length=read.list_length("SHORTLIST_LIST_LENGTH", 100, candidates),
            list_ttl_seconds=read.integer("SHORTLIST_LIST_TTL_SECONDS", 86_400, 60, 31_536_000),
            max_waiting_events=read.integer(
                "SHORTLIST_MAX_WAITING_EVENTS", 2_000_000, 1000, 1_000_000_000
            ),
            max_newcomers=read.integer("SHORTLIST_MAX_NEWCOMERS", 1_000_000, 0, 1_000_000_000),
            redis_timeout_ms=redis_timeout_ms,
            request_timeout_ms=read.request_timeout(
                "SHORTLIST_REQUEST_TIMEOUT_MS", 2000, redis_timeout_ms
            ),
            release_cache_seconds=read.number("SHORTLIST_RELEASE_CACHE_SECONDS", 5.0, 0.0, 3600.0),
            threads=read.integer("SHORTLIST_THREADS", 0, 0, 1024),
            workers=read.integer("SHORTLIST_WORKERS", 1, 1, 4096),
            engine=read.choice("SHORTLIST_ENGINE", "local", ENGINES),
            protocol=read.choice("SHORTLIST_PROTOCOL", "last-10pct", PROTOCOLS),
            gate=read.choice("SHORTLIST_GATE", "on", ("on", "off")) == "on",
            gate_margin=read.number("SHORTLIST_GATE_MARGIN", 0.05, 0.0, 1.0),
            skew_share=read.number("SHORTLIST_SKEW_SHARE", 0.1, 0.0, 1.0),
            log_users=read.choice("SHORTLIST_LOG_USERS", "off", ("on", "off")) == "on",
            cors_origins=read.origins("SHORTLIST_CORS_ORIGINS"),
            admin_key=read.secret("SHORTLIST_ADMIN_KEY"),
            base_paths=read.base_paths("SHORTLIST_BASE_PATH"),
            jwt_user_claim=read.optional("SHORTLIST_JWT_USER_CLAIM"),
            api_keys=read.api_keys("SHORTLIST_API_KEYS"),
            api_key_rate=read.number("SHORTLIST_API_KEY_RATE", 100.0, 0.0, 1_000_000.0),
            bundle_dir=Path(read.text("SHORTLIST_BUNDLE_DIR", tempfile.gettempdir())),
            # 480 of the 512 MB that a function has without more ephemeral storage, which SnapStart
            # excludes
            bundle_max_mb=read.integer("SHORTLIST_BUNDLE_MAX_MB", 480, 1, 1_048_576),
        )


class _Reader:
    """Reads one variable at a time; an absent one gives the default, an empty one is an error."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str, default: str) -> str:
        value = self._environ.get(name, default)
        if not value.strip():
            raise InvalidSettings(
                f"{name} is empty: give a value, or unset it for the default {default!r}"
            )
        return value

    def namespace(self, name: str, default: str) -> str:
        """Braces are a cluster's hash tags, which say where keys lie."""
        value = self.text(name, default)
        if not _NAMESPACE.fullmatch(value):
            raise InvalidSettings(
                f"{name}={value!r}: must be 1 to 100 printable characters, without braces and blanks"
            )
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        return int(self._within(name, default, low, high, int))

    def list_length(self, name: str, default: int, candidates: int) -> int:
        """A list holds candidates alone: the default follows their number, a stated length above it is an error."""
        length = self.integer(name, min(default, candidates), 10, 1000)
        if length > candidates:
            rule = f"must be at most TOP_K_CANDIDATES, which is {candidates}; lower the one, or raise the other"
            raise InvalidSettings(f"{name}='{length}': {rule}")
        return length

    def request_timeout(self, name: str, default: int, redis_timeout: int) -> int:
        """A request may wait for Redis twice, and then falls back: the default follows, a shorter one is an error."""
        least = REDIS_ATTEMPTS * redis_timeout
        milliseconds = self.integer(name, max(default, 2 * least), 10, 300_000)
        if milliseconds <= least:
            rule = f"must be more than {REDIS_ATTEMPTS} times SHORTLIST_REDIS_TIMEOUT_MS, which is {redis_timeout}"
            raise InvalidSettings(
                f"{name}='{milliseconds}': {rule}; raise the one, or lower the other"
            )
        return milliseconds

    def number(self, name: str, default: float, low: float, high: float) -> float:
        return self._within(name, default, low, high, float)

    def choice(self, name: str, default: Value, choices: tuple[Value, ...]) -> Value:
        text = self.text(name, str(default))
        found = next((choice for choice in choices if choice == text), None)
        if found is None:
            raise InvalidSettings(f"{name}={text!r}: must be one of {', '.join(map(str, choices))}")
        return found

    def redis_url(self, name: str, default: str) -> str:
        value = self.text(name, default)
        parse_redis_url(value)
        return value

    def origins(self, name: str) -> tuple[str, ...]:
        text = self.text(name, "none")
        if text == "none":
            return ()
        found = tuple(part.strip() for part in text.split(","))
        for origin in found:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise InvalidSettings(
                    f"{name} has {origin!r}: must be * or scheme://host, with a port where it needs one"
                )
        return found

    def secret(self, name: str) -> str | None:
        value = self.text(name, "none")
        if value == "none":
            return None
        if len(value) < SECRET_LENGTH or not value.isascii() or value != value.strip():
            raise InvalidSettings(
                f"{name} has {len(value)} characters: must be at least {SECRET_LENGTH}, all ASCII, no blank at either end; "
                "`openssl rand -hex 32` makes one"
            )
        return value

    def optional(self, name: str) -> str | None:
        value = self.text(name, "none").strip()
        return None if value == "none" else value

    def base_paths(self, name: str) -> tuple[str, ...]:
        text = self.optional(name)
        if text is None:
            return ()
        paths = tuple(part.strip().strip("/") for part in text.split(","))
        for path in paths:
            if not _BASE_PATH.fullmatch(path) or path.partition("/")[0] in API_ROOTS:
                rule = "must be like rec or rec/prod, of A-Z a-z 0-9 . _ ~ -"
                roots = f"and not begin as the API's own paths do ({', '.join(API_ROOTS)})"
                raise InvalidSettings(f"{name} has {path!r}: {rule}, {roots}")
        return tuple(f"/{path}" for path in paths)

    def api_keys(self, name: str) -> tuple[ApiKey, ...]:
        """Entries, or those of a file, whose path has no colon. No message holds the secret text."""
        text = self.optional(name)
        if text is None:
            return ()
        try:
            return parse_api_keys(text.split(",") if ":" in text else _lines_of(Path(text)))
        except InvalidApiKey as error:
            raise InvalidSettings(f"{name} {error}") from None
        except (OSError, ValueError):
            rule = "give name:scope+scope:key, or the path of a file with one on each line"
            message = f"{name} names no file that can be read, and has no colon: {rule}"
            raise InvalidSettings(message) from None

    def _within(
        self, name: str, default: float, low: float, high: float, parse: Callable[[str], float]
    ) -> float:
        text = self.text(name, str(default))
        try:
            value = parse(text)
        except ValueError as error:
            kind = "whole number" if parse is int else "number"
            raise InvalidSettings(
                f"{name}={text!r}: must be a {kind} from {low} to {high}"
            ) from error
        if not low <= value <= high:
            raise InvalidSettings(f"{name}={text!r}: must be from {low} to {high}")
        return value


def _lines_of(path: Path) -> list[str]:
    """The lines of a file of secrets, without blank ones and remarks."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
