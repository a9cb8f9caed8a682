"""Reads the settings from the environment, declared once each.

Each entry point reads them once and passes them on as a value. Each setting is declared once: its
type with its bounds, which pydantic enforces, and a `Variable` with its name in the environment,
its default and a sentence. `Settings.from_env`, its errors and the table in docs/settings.md all
follow from that declaration.
"""

# No `from __future__ import annotations`: the annotations of Settings are read as they are.
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from annotated_types import Interval
from pydantic import AfterValidator, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from shortlist.recsys.api_keys import ApiKey, InvalidApiKey, parse_api_keys
from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.store.redis_url import parse_redis_url

Loss = Literal["sampled_softmax", "bpr"]
Engine = Literal["local", "ray"]
HoldoutProtocol = Literal["last-10pct", "leave-one-out", "time"]
RepeatsMode = Literal["never", "allow"]
PROTOCOLS: tuple[HoldoutProtocol, ...] = get_args(HoldoutProtocol)

SECRET_LENGTH = 16
"""Characters of the admin key, at least: 16 random ones cannot be guessed over a network."""

REDIS_ATTEMPTS = 2
"""Timeouts that one store call may wait for: of an old connection, and of a fresh one."""

API_ROOTS = ("v1", "recommend", "model", "metrics", "health", "docs", "redoc", "openapi.json")
"""First parts of the API's own paths, which a base path must not begin with."""

NONE = "none"
"""The word for no value, of settings that may have none."""

PREFIX = "SHORTLIST_"

CONTAINER_VARIABLES = (
    "INTERACTIONS",
    "ITEMS",
    "USERS",
    "DATA",
    "WORK",
    "RUN_ID",
    "EVENTS",
    "CHECKPOINTS",
    "CONFIG",
    "RULES",
)
"""What `shortlist batch refresh` reads besides the settings, after the prefix."""

# Kubernetes sets such variables in every pod for a service named shortlist.
_OF_KUBERNETES = re.compile(r"SHORTLIST_(\w+_)?(SERVICE_(HOST|PORT)|PORT)(_\w+)?")
_ORIGIN = re.compile(r"https?://[^/\s*]+")
_BASE_PATH = re.compile(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")

# Braces are a cluster's hash tags, which decide where keys lie.
_NAMESPACE = re.compile(r"[^\s{}\x00-\x1f\x7f]{1,100}")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Variable:
    """The environment variable of a setting.

    default: a value, or a function of the settings declared before; description: one sentence;
    allowed: the rule for people, where the type does not say it; rule: compares a value with the
    settings declared before, and gives the rule that it breaks.
    """

    name: str
    default: Any
    description: str
    allowed: str = ""
    shown_default: str = ""
    rule: Callable[[Any, Mapping[str, Any]], str | None] = lambda _value, _before: None

    def default_after(self, before: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of the field's type
        """The default, given the settings declared before."""
        return self.default(before) if callable(self.default) else self.default


def _namespace(text: str) -> str:
    # A surrogate stands for bytes that are no text, and fits into no key.
    if not _NAMESPACE.fullmatch(text) or _SURROGATE.search(text):
        rule = "must be 1 to 100 printable characters, without braces and blanks"
        raise PydanticCustomError("namespace", rule)
    return text


def _redis_url(text: str) -> str:
    parse_redis_url(text)
    return text


def _switch(text: str) -> bool:
    if text not in {"on", "off"}:
        raise PydanticCustomError("switch", "must be one of on, off")
    return text == "on"


def _name_or_none(text: str) -> str | None:
    stripped = text.strip()
    return None if stripped == NONE else stripped


def _origins(text: str) -> tuple[str, ...]:
    if text == NONE:
        return ()
    origins = tuple(part.strip() for part in text.split(","))
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"has {origin!r}: must be * or scheme://host, with a port where it needs one"
            )
    return origins


def _secret(text: str) -> str | None:
    if text == NONE:
        return None
    if len(text) < SECRET_LENGTH or not text.isascii() or text != text.strip():
        raise ValueError(
            f"has {len(text)} characters: must be at least {SECRET_LENGTH}, all ASCII, no blank at "
            "either end; `openssl rand -hex 32` makes one"
        )
    return text


def _base_paths(text: str) -> tuple[str, ...]:
    if text.strip() == NONE:
        return ()
    paths = tuple(part.strip().strip("/") for part in text.split(","))
    for path in paths:
        if not _BASE_PATH.fullmatch(path) or path.partition("/")[0] in API_ROOTS:
            raise ValueError(
                f"has {path!r}: must be like rec or rec/prod, of A-Z a-z 0-9 . _ ~ -, and not "
                f"begin as the API's own paths do ({', '.join(API_ROOTS)})"
            )
    return tuple(f"/{path}" for path in paths)


def _api_keys(text: str) -> tuple[ApiKey, ...]:
    """Reads entries, or a file, whose path has no colon.

    No message holds the secret text.
    """
    stripped = text.strip()
    if stripped == NONE:
        return ()
    try:
        entries = stripped.split(",") if ":" in stripped else _lines_of(Path(stripped))
    except (OSError, ValueError):
        raise ValueError(
            "names no file that can be read, and has no colon: give name:scope+scope:key, or the "
            "path of a file with one on each line"
        ) from None
    try:
        return parse_api_keys(entries)
    except InvalidApiKey as error:
        raise ValueError(str(error)) from None


def _lines_of(path: Path) -> list[str]:
    """A file's lines, without blank ones and remarks."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _lists_at_most(n_probe: int, before: Mapping[str, Any]) -> str | None:
    n_lists = before["faiss_n_lists"]
    return None if n_probe <= n_lists else f"must be from 1 to {n_lists}"


def _candidates_at_least(length: int, before: Mapping[str, Any]) -> str | None:
    """A list holds candidates alone."""
    candidates = before["top_k_candidates"]
    if length <= candidates:
        return None
    return (
        f"must be at most TOP_K_CANDIDATES, which is {candidates}; "
        "lower the one, or raise the other"
    )


def _outlasts_redis(milliseconds: int, before: Mapping[str, Any]) -> str | None:
    """A request may wait for Redis twice, and still has to fall back."""
    timeout = before["redis_timeout_ms"]
    if milliseconds > REDIS_ATTEMPTS * timeout:
        return None
    return (
        f"must be more than {REDIS_ATTEMPTS} times SHORTLIST_REDIS_TIMEOUT_MS, which is {timeout}; "
        "raise the one, or lower the other"
    )


def _request_timeout(before: Mapping[str, Any]) -> int:
    # Twice what Redis may take, so that as much is left for the fallback.
    return max(2000, 2 * REDIS_ATTEMPTS * before["redis_timeout_ms"])


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a process.

    Made by hand, or by `dataclasses.replace`, a field is taken as it is: only the environment is
    checked.
    """

    embedding_dim: Annotated[
        int,
        Interval(ge=4, le=1024),
        Variable("EMBEDDING_DIM", 64, "Width of the embeddings."),
    ]
    top_k_candidates: Annotated[
        int,
        Interval(ge=10, le=10_000),
        Variable("TOP_K_CANDIDATES", 500, "Candidates ranked for each user."),
    ]
    faiss_n_lists: Annotated[
        int,
        Interval(ge=1, le=65_536),
        Variable(
            "FAISS_N_LISTS",
            100,
            "Inverted lists of the index, once the catalogue is too large for exact search.",
        ),
    ]
    faiss_n_probe: Annotated[
        int,
        Interval(ge=1, le=65_536),
        Variable(
            "FAISS_N_PROBE",
            lambda before: min(10, before["faiss_n_lists"]),
            "Inverted lists searched for a user.",
            allowed="a whole number from 1 to FAISS_N_LISTS",
            shown_default="10",
            rule=_lists_at_most,
        ),
    ]
    lgbm_n_estimators: Annotated[
        int,
        Interval(ge=1, le=10_000),
        Variable(
            "LGBM_N_ESTIMATORS",
            500,
            "Most trees of the ranker; early stopping usually ends sooner.",
        ),
    ]
    exploration_share: Annotated[
        float,
        Interval(ge=0.0, le=0.5),
        Variable(
            "EXPLORATION_SHARE",
            0.01,
            "Share of a list, after its first three places, for new items, to gather feedback.",
        ),
    ]
    loss: Annotated[
        Loss,
        Variable("LOSS", "sampled_softmax", "The loss that the towers minimise."),
    ]
    repeats: Annotated[
        RepeatsMode,
        Variable(
            "SHORTLIST_REPEATS",
            "never",
            "Whether what a user had may be offered to them again.",
        ),
    ]
    cache_ttl_seconds: Annotated[
        int,
        Interval(ge=1, le=86_400),
        Variable("CACHE_TTL_SECONDS", 300, "How long a live result is kept."),
    ]
    redis_url: Annotated[
        str,
        AfterValidator(_redis_url),
        Variable(
            "REDIS_URL",
            "redis://localhost:6379",
            "The address of Redis; `?cluster=true` for a cluster, `?iam=CACHE` to sign in by role.",
            allowed="redis://, rediss:// or unix://",
        ),
    ] = field(repr=False)
    artefacts: Annotated[
        str,
        Variable(
            "SHORTLIST_ARTEFACTS",
            "./artefacts",
            "The place for releases.",
            allowed="a directory or s3://bucket/prefix",
        ),
    ]
    namespace: Annotated[
        str,
        AfterValidator(_namespace),
        Variable(
            "SHORTLIST_NAMESPACE",
            "shortlist",
            "Prefix of all keys in Redis.",
            allowed="1 to 100 printable characters, without braces and blanks",
        ),
    ]
    list_length: Annotated[
        int,
        Interval(ge=10, le=1000),
        Variable(
            "SHORTLIST_LIST_LENGTH",
            lambda before: min(100, before["top_k_candidates"]),
            "Items precomputed for each user.",
            allowed="a whole number from 10 to 1000, at most TOP_K_CANDIDATES",
            shown_default="100",
            rule=_candidates_at_least,
        ),
    ]
    list_ttl_seconds: Annotated[
        int,
        Interval(ge=60, le=31_536_000),
        Variable(
            "SHORTLIST_LIST_TTL_SECONDS",
            86_400,
            "How long the lists of a superseded release live; "
            "those of the serving release and of the one before it stay.",
        ),
    ]
    max_waiting_events: Annotated[
        int,
        Interval(ge=1000, le=1_000_000_000),
        Variable(
            "SHORTLIST_MAX_WAITING_EVENTS",
            2_000_000,
            "Events that may wait for a drain, 300 bytes each; beyond it none is taken.",
        ),
    ]
    max_newcomers: Annotated[
        int,
        Interval(ge=0, le=1_000_000_000),
        Variable(
            "SHORTLIST_MAX_NEWCOMERS",
            1_000_000,
            "Users of a day who may have a record before a batch has learnt of them, "
            "about 500 bytes each for three days; events of the others wait for the batch.",
        ),
    ]
    redis_timeout_ms: Annotated[
        int,
        Interval(ge=1, le=60_000),
        Variable(
            "SHORTLIST_REDIS_TIMEOUT_MS",
            500,
            "How long the API waits for a command of Redis, and once more where it is retried.",
        ),
    ]
    request_timeout_ms: Annotated[
        int,
        Interval(ge=10, le=300_000),
        Variable(
            "SHORTLIST_REQUEST_TIMEOUT_MS",
            _request_timeout,
            "How long `shortlist serve` takes for a request; Lambda has a timeout of its own.",
            allowed="a whole number from 10 to 300000, "
            f"more than {REDIS_ATTEMPTS} times SHORTLIST_REDIS_TIMEOUT_MS",
            shown_default="2000",
            rule=_outlasts_redis,
        ),
    ]
    release_cache_seconds: Annotated[
        float,
        Interval(ge=0.0, le=3600.0),
        Variable(
            "SHORTLIST_RELEASE_CACHE_SECONDS",
            5.0,
            "How long a process trusts the release pointer that it read.",
        ),
    ]
    threads: Annotated[
        int,
        Interval(ge=0, le=1024),
        Variable(
            "SHORTLIST_THREADS",
            0,
            "Threads of training, which the towers of two folds share; 0 takes every core.",
        ),
    ]
    workers: Annotated[
        int,
        Interval(ge=0, le=4096),
        Variable(
            "SHORTLIST_WORKERS",
            0,
            "Processes that make lists and the ranker's groups; 1 makes them in the batch's own, "
            "and 0 takes every core where there are users and memory enough. Unless it is 1, a "
            "second process trains towers where there is memory for it.",
        ),
    ]
    engine: Annotated[
        Engine,
        Variable(
            "SHORTLIST_ENGINE",
            "local",
            "The place of several workers; ray uses RAY_ADDRESS, or this machine.",
        ),
    ]
    protocol: Annotated[
        HoldoutProtocol,
        Variable("SHORTLIST_PROTOCOL", "last-10pct", "The split that the batch reports on."),
    ]
    gate: Annotated[
        bool,
        PlainValidator(_switch),
        Variable(
            "SHORTLIST_GATE",
            default=True,
            description="Refuses a release that is no better than popularity, "
            "or worse than the serving one.",
            allowed="on, off",
            shown_default="on",
        ),
    ]
    gate_margin: Annotated[
        float,
        Interval(ge=0.0, le=1.0),
        Variable(
            "SHORTLIST_GATE_MARGIN",
            0.05,
            "Share of NDCG@10 by which a release may fall below the serving one.",
        ),
    ]
    skew_share: Annotated[
        float,
        Interval(ge=0.0, le=1.0),
        Variable(
            "SHORTLIST_SKEW_SHARE",
            0.1,
            "Share of the live answers of which a feature row is counted, for `shortlist skew`.",
        ),
    ]
    log_users: Annotated[
        bool,
        PlainValidator(_switch),
        Variable(
            "SHORTLIST_LOG_USERS",
            default=False,
            description="Names the user of each request in the log.",
            allowed="on, off",
            shown_default="off",
        ),
    ]
    cors_origins: Annotated[
        tuple[str, ...],
        PlainValidator(_origins),
        Variable(
            "SHORTLIST_CORS_ORIGINS",
            (),
            "Origins whose pages may call the API.",
            allowed="origins with commas between, or * for any",
            shown_default=NONE,
        ),
    ]
    admin_key: Annotated[
        str | None,
        PlainValidator(_secret),
        Variable(
            "SHORTLIST_ADMIN_KEY",
            None,
            "The value of the header X-Shortlist-Admin-Key; none closes the admin routes.",
            allowed=f"{SECRET_LENGTH} ASCII characters or more",
            shown_default=NONE,
        ),
    ] = field(repr=False)
    base_paths: Annotated[
        tuple[str, ...],
        PlainValidator(_base_paths),
        Variable(
            "SHORTLIST_BASE_PATH",
            (),
            "The stage or mapping before the API's paths.",
            allowed="paths such as rec or rec/prod, with commas between",
            shown_default=NONE,
        ),
    ]
    jwt_user_claim: Annotated[
        str | None,
        PlainValidator(_name_or_none),
        Variable(
            "SHORTLIST_JWT_USER_CLAIM",
            None,
            "The claim with the user for whom a token may act; "
            "with it, or with API keys, only known callers are answered.",
            allowed="the name of a claim",
            shown_default=NONE,
        ),
    ]
    api_keys: Annotated[
        tuple[ApiKey, ...],
        PlainValidator(_api_keys),
        Variable(
            "SHORTLIST_API_KEYS",
            (),
            "The API keys and their scopes.",
            allowed="name:scope+scope:key, several with commas, or a file with one on each line",
            shown_default=NONE,
        ),
    ] = field(repr=False)
    api_key_rate: Annotated[
        float,
        Interval(ge=0.0, le=1_000_000.0),
        Variable(
            "SHORTLIST_API_KEY_RATE",
            100.0,
            "Requests a second of each API key, in each process; 0 for any number.",
        ),
    ]
    bundle_dir: Annotated[
        Path,
        Variable(
            "SHORTLIST_BUNDLE_DIR",
            lambda _before: Path(tempfile.gettempdir()),
            "The place for a process's copies of bundles from S3.",
            allowed="a directory on a local disk",
            shown_default="the system's temporary directory",
        ),
    ]
    # 480 of the 512 MB that a function has without more ephemeral storage, which excludes SnapStart
    bundle_max_mb: Annotated[
        int,
        Interval(ge=1, le=1_048_576),
        Variable(
            "SHORTLIST_BUNDLE_MAX_MB",
            480,
            "MiB of disk that a process has for one bundle from S3; a larger one is not published.",
        ),
    ]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Reads the environment; missing variables have defaults.

        Raises:
            InvalidSettings: a variable breaks its rule; the message names it, its value unless it
                is a secret, the rule, and the remedy where the rule does not say it.
        """
        values: dict[str, Any] = {}
        for name, (annotation, variable) in _declarations().items():
            text = environ.get(variable.name)
            if text is None:
                values[name] = variable.default_after(values)
            else:
                values[name] = _read(annotation, variable, text, values)
        return cls(**values)


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that begins as ours do and is none, with the nearest name."""
    known = [variable.name for _, variable in _declarations().values()]
    known += [f"{PREFIX}{name}" for name in CONTAINER_VARIABLES]
    sentences = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or _OF_KUBERNETES.fullmatch(name):
            continue
        # Some of ours have no prefix: SHORTLIST_LOSS is near LOSS.
        prefixed = {known_name.removeprefix(PREFIX): known_name for known_name in known}
        near = get_close_matches(name.removeprefix(PREFIX), prefixed, 1)
        hint = f": did you mean {prefixed[near[0]]}?" if near else ""
        sentences.append(f"{name} is no setting and changes nothing{hint}")
    return sentences


def settings_table() -> list[tuple[str, str, str, str]]:
    """Rows of docs/settings.md: variable, default, allowed values, description."""
    return [
        (
            variable.name,
            _shown_default(variable),
            _allowed(annotation, variable),
            variable.description,
        )
        for annotation, variable in _declarations().values()
    ]


@cache
def _declarations() -> dict[str, tuple[Any, Variable]]:
    """The annotation and variable of each field."""
    declarations: dict[str, tuple[Any, Variable]] = {}
    for setting in fields(Settings):
        annotation: Any = setting.type
        variable = next(part for part in annotation.__metadata__ if isinstance(part, Variable))
        declarations[setting.name] = annotation, variable
    return declarations


def _read(annotation: Any, variable: Variable, text: str, before: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of the field's type
    """The value that a variable's text states. Raises InvalidSettings."""
    if not text.strip():
        raise InvalidSettings(
            f"{variable.name} is empty: give a value, or unset it for the default "
            f"{_shown_default(variable)!r}"
        )
    try:
        value = TypeAdapter(annotation).validate_python(text)
    except ValidationError as error:
        message = _message(annotation, variable, text, error)
    else:
        broken_rule = variable.rule(value, before)
        if broken_rule is None:
            return value
        message = f"{variable.name}={text!r}: {broken_rule}"
    # Raised outside: as the cause of this error, pydantic's would show the text, maybe a secret.
    raise InvalidSettings(message)


def _message(annotation: Any, variable: Variable, text: str, error: ValidationError) -> str:  # noqa: ANN401 - as above
    """A sentence for pydantic's finding.

    A parser whose text may hold a secret gives its own.
    """
    problem = error.errors(include_url=False)[0]
    match problem["type"]:
        case "value_error":
            return f"{variable.name} {problem['ctx']['error']}"
        case "greater_than_equal" | "less_than_equal":
            rule = f"must be {_limits(annotation)}"
        case "namespace" | "switch":
            rule = problem["msg"]
        case _ if annotation.__origin__ not in {int, float}:
            # A choice; text that is no UTF-8 has another error type than a wrong word.
            rule = f"must be one of {_allowed(annotation, variable)}"
        case _:
            rule = f"must be {_number(annotation)} {_limits(annotation)}"
    return f"{variable.name}={text!r}: {rule}"


def _shown_default(variable: Variable) -> str:
    return variable.shown_default or str(variable.default)


def _allowed(annotation: Any, variable: Variable) -> str:  # noqa: ANN401 - as above
    if variable.allowed:
        return variable.allowed
    kind = annotation.__origin__
    if kind in {int, float}:
        return f"{_number(annotation)} {_limits(annotation)}"
    return ", ".join(get_args(kind))


def _number(annotation: Any) -> str:  # noqa: ANN401 - as above
    return "a whole number" if annotation.__origin__ is int else "a number"


def _limits(annotation: Any) -> str:  # noqa: ANN401 - as above
    interval = next(part for part in annotation.__metadata__ if isinstance(part, Interval))
    return f"from {interval.ge} to {interval.le}"
