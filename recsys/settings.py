"""Every setting of Shortlist: read from the environment once, by each entry point, and passed on as values."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, get_args

from recsys.errors import InvalidSettings

Value = TypeVar("Value")
Loss = Literal["sampled_softmax", "bpr"]
Engine = Literal["local", "ray"]
Protocol = Literal["last-10pct", "leave-one-out", "time"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
LOSSES: tuple[Loss, ...] = get_args(Loss)
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
SECRET_LENGTH = 16
_ORIGIN = re.compile(r"https?://[^/\s*]+")
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


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
    redis_url: str
    """`REDIS_URL` (redis://localhost:6379): redis://, rediss:// or unix://; `?cluster=true`, `?iam=CACHE` (see `open_store`)."""
    artefacts: str
    """`SHORTLIST_ARTEFACTS` (./artefacts): where releases are kept, a directory or s3://bucket/prefix."""
    namespace: str
    """`SHORTLIST_NAMESPACE` (shortlist): what every key in Redis starts with."""
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
    """`SHORTLIST_REDIS_TIMEOUT_MS` (500): how long the API waits for Redis."""
    release_cache_seconds: float
    """`SHORTLIST_RELEASE_CACHE_SECONDS` (5): how long a process trusts the release pointer that it read."""
    threads: int
    """`SHORTLIST_THREADS` (0): threads of training; 0 takes every core."""
    workers: int
    """`SHORTLIST_WORKERS` (1): processes that precompute lists; 1 computes in the batch's own process."""
    engine: Engine
    """`SHORTLIST_ENGINE` (local): where several workers run, local or ray (RAY_ADDRESS, or this machine)."""
    protocol: Protocol
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
    bundle_dir: Path
    """`SHORTLIST_BUNDLE_DIR` (the system's temporary directory): where a Lambda unpacks the bundle."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that `environ` states, and the defaults of the rest.

        Raises:
            InvalidSettings: a variable breaks its rule; the message names it, its value and the rule.
        """
        read = _Reader(environ)
        lists = read.integer("FAISS_N_LISTS", 100, 1, 65536)
        candidates = read.integer("TOP_K_CANDIDATES", 500, 10, 10_000)
        return cls(
            embedding_dim=read.integer("EMBEDDING_DIM", 64, 4, 1024),
            top_k_candidates=candidates,
            faiss_n_lists=lists,
            faiss_n_probe=read.integer("FAISS_N_PROBE", min(10, lists), 1, lists),
            lgbm_n_estimators=read.integer("LGBM_N_ESTIMATORS", 500, 1, 10_000),
            exploration_share=read.number("EXPLORATION_SHARE", 0.01, 0.0, 0.5),
            loss=read.choice("LOSS", "sampled_softmax", LOSSES),
            cache_ttl_seconds=read.integer("CACHE_TTL_SECONDS", 300, 1, 86_400),
            redis_url=read.url("REDIS_URL", "redis://localhost:6379"),
            artefacts=read.text("SHORTLIST_ARTEFACTS", "./artefacts"),
            namespace=read.text("SHORTLIST_NAMESPACE", "shortlist"),
            list_length=read.list_length("SHORTLIST_LIST_LENGTH", 100, candidates),
            list_ttl_seconds=read.integer("SHORTLIST_LIST_TTL_SECONDS", 86_400, 60, 31_536_000),
            max_waiting_events=read.integer("SHORTLIST_MAX_WAITING_EVENTS", 2_000_000, 1000, 1_000_000_000),
            max_newcomers=read.integer("SHORTLIST_MAX_NEWCOMERS", 1_000_000, 0, 1_000_000_000),
            redis_timeout_ms=read.integer("SHORTLIST_REDIS_TIMEOUT_MS", 500, 1, 60_000),
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
            bundle_dir=Path(read.text("SHORTLIST_BUNDLE_DIR", tempfile.gettempdir())),
        )


class _Reader:
    """Reads one variable at a time; an absent one gives the default, an empty one is an error."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str, default: str) -> str:
        value = self._environ.get(name, default)
        if not value.strip():
            raise InvalidSettings(f"{name} is empty: give a value, or unset it for the default {default!r}")
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

    def number(self, name: str, default: float, low: float, high: float) -> float:
        return self._within(name, default, low, high, float)

    def choice(self, name: str, default: Value, choices: tuple[Value, ...]) -> Value:
        text = self.text(name, str(default))
        found = next((choice for choice in choices if choice == text), None)
        if found is None:
            raise InvalidSettings(f"{name}={text!r}: must be one of {', '.join(map(str, choices))}")
        return found

    def url(self, name: str, default: str) -> str:
        value = self.text(name, default)
        if not value.startswith(REDIS_SCHEMES):
            scheme = value.partition("://")[0] if "://" in value else "none"  # the rest may hold a password
            raise InvalidSettings(f"{name} has scheme {scheme!r}: must start with one of {', '.join(REDIS_SCHEMES)}")
        return value

    def origins(self, name: str) -> tuple[str, ...]:
        text = self.text(name, "none")
        if text == "none":
            return ()
        found = tuple(part.strip() for part in text.split(","))
        for origin in found:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise InvalidSettings(f"{name} has {origin!r}: must be * or scheme://host, with a port where it needs one")
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

    def _within(self, name: str, default: float, low: float, high: float, parse: Callable[[str], float]) -> float:
        text = self.text(name, str(default))
        try:
            value = parse(text)
        except ValueError as error:
            kind = "whole number" if parse is int else "number"
            raise InvalidSettings(f"{name}={text!r}: must be a {kind} from {low} to {high}") from error
        if not low <= value <= high:
            raise InvalidSettings(f"{name}={text!r}: must be from {low} to {high}")
        return value
