"""Tests the settings: documented defaults, and precise errors.

Each error has the variable, its value and the rule.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.settings import Settings, misspelt, settings_table

DEFAULTS = Settings(
    embedding_dim=64,
    top_k_candidates=500,
    faiss_n_lists=100,
    faiss_n_probe=10,
    lgbm_n_estimators=500,
    exploration_share=0.01,
    loss="sampled_softmax",
    repeats="never",
    cache_ttl_seconds=300,
    redis_url="redis://localhost:6379",
    artefacts="./artefacts",
    namespace="shortlist",
    list_length=100,
    list_ttl_seconds=86_400,
    max_waiting_events=2_000_000,
    max_newcomers=1_000_000,
    redis_timeout_ms=500,
    request_timeout_ms=2000,
    release_cache_seconds=5.0,
    threads=0,
    workers=0,
    engine="local",
    protocol="last-10pct",
    gate=True,
    gate_margin=0.05,
    skew_share=0.1,
    log_users=False,
    cors_origins=(),
    admin_key=None,
    base_paths=(),
    jwt_user_claim=None,
    api_keys=(),
    api_key_rate=100.0,
    bundle_dir=Path(tempfile.gettempdir()),
    bundle_max_mb=480,
)
RANGES = {
    "EMBEDDING_DIM": (4, 1024),
    "TOP_K_CANDIDATES": (10, 10_000),
    "FAISS_N_LISTS": (1, 65_536),
    "LGBM_N_ESTIMATORS": (1, 10_000),
    "CACHE_TTL_SECONDS": (1, 86_400),
    "SHORTLIST_LIST_LENGTH": (10, 1000),
    "SHORTLIST_LIST_TTL_SECONDS": (60, 31_536_000),
    "SHORTLIST_REDIS_TIMEOUT_MS": (1, 60_000),
    "SHORTLIST_REQUEST_TIMEOUT_MS": (10, 300_000),
    "SHORTLIST_THREADS": (0, 1024),
    "SHORTLIST_WORKERS": (0, 4096),
    "SHORTLIST_MAX_WAITING_EVENTS": (1000, 1_000_000_000),
    "SHORTLIST_MAX_NEWCOMERS": (0, 1_000_000_000),
    "SHORTLIST_BUNDLE_MAX_MB": (1, 1_048_576),
}
CHOICES = {
    "LOSS": ("sampled_softmax", "bpr"),
    "SHORTLIST_ENGINE": ("local", "ray"),
    "SHORTLIST_PROTOCOL": ("last-10pct", "leave-one-out", "time"),
    "SHORTLIST_GATE": ("on", "off"),
    "SHORTLIST_LOG_USERS": ("on", "off"),
    "SHORTLIST_REPEATS": ("never", "allow"),
}
OTHERS = (
    "FAISS_N_PROBE",
    "REDIS_URL",
    "SHORTLIST_ARTEFACTS",
    "SHORTLIST_NAMESPACE",
    "SHORTLIST_BUNDLE_DIR",
)
OPEN_ENDED = (
    "SHORTLIST_CORS_ORIGINS",
    "SHORTLIST_ADMIN_KEY",
    "SHORTLIST_BASE_PATH",
    "SHORTLIST_JWT_USER_CLAIM",
    "SHORTLIST_API_KEYS",
)
NUMBERS = (
    *RANGES,
    "EXPLORATION_SHARE",
    "SHORTLIST_GATE_MARGIN",
    "SHORTLIST_SKEW_SHARE",
    "SHORTLIST_RELEASE_CACHE_SECONDS",
    "SHORTLIST_API_KEY_RATE",
    "FAISS_N_PROBE",
)
VARIABLES = (
    *RANGES,
    *CHOICES,
    *OTHERS,
    *OPEN_ENDED,
    "SHORTLIST_RELEASE_CACHE_SECONDS",
    "EXPLORATION_SHARE",
    "SHORTLIST_GATE_MARGIN",
    "SHORTLIST_SKEW_SHARE",
    "SHORTLIST_API_KEY_RATE",
)


def test_defaults() -> None:
    """An empty environment gives the documented defaults."""
    assert Settings.from_env({}) == DEFAULTS


def test_settings_table() -> None:
    """Each field has one row, with a sentence, and this file knows every variable."""
    rows = settings_table()
    assert {name for name, *_ in rows} == set(VARIABLES)
    assert len(rows) == len(VARIABLES) == len(dataclasses.fields(Settings))
    for name, _, allowed, description in rows:
        assert allowed, name
        assert re.fullmatch(r"[A-Z].*[.]", description), name


@pytest.mark.parametrize("row", settings_table(), ids=lambda row: row[0])
def test_default_of_the_table(row: tuple[str, str, str, str]) -> None:
    """Each default that the table shows may be given, and is the default."""
    name, default, _, _ = row
    given = tempfile.gettempdir() if name == "SHORTLIST_BUNDLE_DIR" else default
    assert Settings.from_env({name: given}) == DEFAULTS


def test_rows_of_the_table() -> None:
    """Bounds, choices and rules that depend on another setting, in words."""
    rows = {name: (default, allowed) for name, default, allowed, _ in settings_table()}
    assert rows["EMBEDDING_DIM"] == ("64", "a whole number from 4 to 1024")
    assert rows["SHORTLIST_GATE_MARGIN"] == ("0.05", "a number from 0.0 to 1.0")
    assert rows["LOSS"] == ("sampled_softmax", "sampled_softmax, bpr")
    assert rows["FAISS_N_PROBE"] == ("10", "a whole number from 1 to FAISS_N_LISTS")
    assert rows["SHORTLIST_LOG_USERS"] == ("off", "on, off")
    assert rows["SHORTLIST_ADMIN_KEY"] == ("none", "16 ASCII characters or more")


@pytest.mark.parametrize(
    "name", ["REDIS_URL", "SHORTLIST_ADMIN_KEY", "SHORTLIST_API_KEYS", "EMBEDDING_DIM"]
)
def test_refusal_has_no_cause(name: str) -> None:
    """No traceback shows pydantic's error, whose text repeats the value."""
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_env({name: "hunter2:x"})
    error: BaseException | None = caught.value
    while error is not None:
        assert type(error) is InvalidSettings
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("value", ["", "  "])
def test_empty_is_not_unset(name: str, value: str) -> None:
    """A variable that is set to nothing is an error that says how to get the default."""
    with pytest.raises(
        InvalidSettings, match=f"{name} is empty: give a value, or unset it for the default"
    ):
        Settings.from_env({name: value})


@pytest.mark.parametrize(
    ("name", "low", "high"), [(name, *limits) for name, limits in RANGES.items()]
)
def test_range(name: str, low: int, high: int) -> None:
    """Both limits of a range are allowed; one beyond is refused with variable, value and rule."""
    room = {
        "SHORTLIST_LIST_LENGTH": {"TOP_K_CANDIDATES": "10000"},
        "SHORTLIST_REQUEST_TIMEOUT_MS": {"SHORTLIST_REDIS_TIMEOUT_MS": "1"},
    }.get(name, {})
    for allowed in (low, high):
        assert Settings.from_env(room | {name: str(allowed)}) is not None
    for refused in (low - 1, high + 1):
        with pytest.raises(
            InvalidSettings, match=f"^{name}='{refused}': must be from {low} to {high}$"
        ):
            Settings.from_env({name: str(refused)})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["many", "0x10", "nan", "-1", "inf", "1e999"])
def test_no_such_number(name: str, value: str) -> None:
    """A text that is no number, or none in the range, is refused with variable and value."""
    with pytest.raises(InvalidSettings, match=f"^{name}='{value}': must be .*from "):
        Settings.from_env({name: value})


@pytest.mark.parametrize("name", [*RANGES, "FAISS_N_PROBE"])
def test_no_fraction(name: str) -> None:
    """A setting that counts something takes no fraction, and says so."""
    with pytest.raises(InvalidSettings, match=f"^{name}='12.5': must be a whole number from "):
        Settings.from_env({name: "12.5"})


def test_fraction_of_a_second() -> None:
    """The trust in the release pointer may be a fraction of a second, or none at all."""
    assert (
        Settings.from_env({"SHORTLIST_RELEASE_CACHE_SECONDS": "0.25"}).release_cache_seconds == 0.25
    )
    assert Settings.from_env({"SHORTLIST_RELEASE_CACHE_SECONDS": "0"}).release_cache_seconds == 0.0
    with pytest.raises(
        InvalidSettings,
        match=r"^SHORTLIST_RELEASE_CACHE_SECONDS='3601': must be from 0.0 to 3600.0$",
    ):
        Settings.from_env({"SHORTLIST_RELEASE_CACHE_SECONDS": "3601"})


@pytest.mark.parametrize(("name", "choices"), CHOICES.items())
def test_choice(name: str, choices: tuple[str, ...]) -> None:
    """Each choice is allowed, and another word is refused with the choices that there are."""
    assert len({repr(Settings.from_env({name: choice})) for choice in choices}) == len(choices)
    with pytest.raises(
        InvalidSettings, match=f"^{name}='other': must be one of {', '.join(choices)}$"
    ):
        Settings.from_env({name: "other"})


@pytest.mark.parametrize("name", [name for name, *_ in settings_table()])
def test_undecodable_bytes(name: str) -> None:
    """Bytes of the environment that are no UTF-8 get the setting's rule, or are taken as text."""
    with suppress(InvalidSettings):
        Settings.from_env({name: os.fsdecode(b"\xff")})


def test_gate() -> None:
    """Only `off` opens the gate."""
    assert [Settings.from_env({"SHORTLIST_GATE": word}).gate for word in ("on", "off")] == [
        True,
        False,
    ]


def test_users_in_the_log() -> None:
    """Only `on` names them."""
    assert [
        Settings.from_env({"SHORTLIST_LOG_USERS": word}).log_users for word in ("on", "off")
    ] == [True, False]


def test_probes_are_bounded_by_lists() -> None:
    """No more lists are searched than exist: the default follows, a stated one is an error."""
    assert Settings.from_env({"FAISS_N_LISTS": "4"}).faiss_n_probe == 4
    assert Settings.from_env({"FAISS_N_LISTS": "4", "FAISS_N_PROBE": "4"}).faiss_n_probe == 4
    with pytest.raises(InvalidSettings, match=r"^FAISS_N_PROBE='5': must be from 1 to 4$"):
        Settings.from_env({"FAISS_N_LISTS": "4", "FAISS_N_PROBE": "5"})


def test_list_length_is_bounded_by_candidates() -> None:
    """The default follows; a stated length above is refused with both values and the remedy."""
    assert Settings.from_env({"TOP_K_CANDIDATES": "60"}).list_length == 60
    assert (
        Settings.from_env({"TOP_K_CANDIDATES": "60", "SHORTLIST_LIST_LENGTH": "60"}).list_length
        == 60
    )
    rule = "must be at most TOP_K_CANDIDATES, which is 60; lower the one, or raise the other"
    with pytest.raises(InvalidSettings, match=f"^SHORTLIST_LIST_LENGTH='61': {rule}$"):
        Settings.from_env({"TOP_K_CANDIDATES": "60", "SHORTLIST_LIST_LENGTH": "61"})


@pytest.mark.parametrize(
    "url", ["redis://a:1", "rediss://a:1/0", "unix:///tmp/s", "redis://a:1?cluster=true"]
)
def test_redis_url(url: str) -> None:
    """Plain, encrypted and local addresses are taken as they are."""
    assert Settings.from_env({"REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("localhost:6379", "none"),
        ("http://user:secret@localhost", "http"),
        ("redis:localhost", "none"),
    ],
)
def test_no_redis_url(url: str, scheme: str) -> None:
    """The refusal of another scheme names it and the known ones, and no other part of the URL."""
    with pytest.raises(
        InvalidSettings,
        match=f"^REDIS_URL has scheme '{scheme}': must start with one of redis://, rediss://, unix://$",
    ):
        Settings.from_env({"REDIS_URL": url})


def test_others_are_ignored() -> None:
    """The rest of the environment is nobody's business."""
    assert Settings.from_env({"HOME": "", "SHORTLIST_UNKNOWN": "1"}) == DEFAULTS


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        (
            "https://a.example, http://localhost:3000",
            ("https://a.example", "http://localhost:3000"),
        ),
    ],
)
def test_origins(text: str, origins: tuple[str, ...]) -> None:
    """One origin or several, with commas between."""
    assert Settings.from_env({"SHORTLIST_CORS_ORIGINS": text}).cors_origins == origins


@pytest.mark.parametrize(
    "text", ["a.example", "https://a.example/", "https://a.example,", "https://*.example"]
)
def test_no_origin(text: str) -> None:
    """A text that no browser sends as an origin would never match, and is refused."""
    with pytest.raises(InvalidSettings, match=r"SHORTLIST_CORS_ORIGINS has .*must be"):
        Settings.from_env({"SHORTLIST_CORS_ORIGINS": text})


def test_key_is_long_and_hidden() -> None:
    """Neither in an error nor in the settings' own text."""
    key = "0123456789abcdef"
    settings = Settings.from_env({"SHORTLIST_ADMIN_KEY": key})
    assert (settings.admin_key, key in repr(settings)) == (key, False)
    for bad in (key[:-1], f"{key} ", f"{key}é"):
        with pytest.raises(InvalidSettings, match="must be at least 16") as caught:
            Settings.from_env({"SHORTLIST_ADMIN_KEY": bad})
        assert bad not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("rec", ("/rec",)),
        ("/rec/", ("/rec",)),
        ("prod, rec/prod/", ("/prod", "/rec/prod")),
        ("none", ()),
    ],
)
def test_base_paths(text: str, paths: tuple[str, ...]) -> None:
    """With slashes around them or without, one or several."""
    assert Settings.from_env({"SHORTLIST_BASE_PATH": text}).base_paths == paths


@pytest.mark.parametrize(
    "path",
    ["v1", "/v1/rec", "health", "recommend", "", "rec//prod", "a b", "a%20b", "../x?", "réc"],
)
def test_no_base_path(path: str) -> None:
    """Not one of the API's own, nor one that a gateway would write in several ways."""
    with pytest.raises(
        InvalidSettings, match=r"^SHORTLIST_BASE_PATH has '.*': must be like rec or rec/prod"
    ):
        Settings.from_env({"SHORTLIST_BASE_PATH": f"ok,{path}"})


def test_a_claim_is_a_name() -> None:
    """Taken as it is, with what providers put before it."""
    for claim in ("sub", "custom:user_id", "https://shop.example/user"):
        assert Settings.from_env({"SHORTLIST_JWT_USER_CLAIM": claim}).jwt_user_claim == claim


@pytest.mark.parametrize(
    "namespace", ["a b", "a{b", "a}b", "{a}", "a\n", "x" * 101, "a\x00b", "a\udcff"]
)
def test_namespace_with_braces_is_refused(namespace) -> None:
    """The lease must lie in the pointer's slot, whose tag is the pointer's whole key."""
    with pytest.raises(InvalidSettings, match=r"SHORTLIST_NAMESPACE=.*without braces and blanks"):
        Settings.from_env({"SHORTLIST_NAMESPACE": namespace})


@pytest.mark.parametrize("namespace", ["shop", "shop:de", "shop/de-1.2_x", "лавка"])
def test_other_namespaces_are_taken(namespace) -> None:
    """Letters of any script, digits and signs."""
    assert Settings.from_env({"SHORTLIST_NAMESPACE": namespace}).namespace == namespace


def test_request_outlasts_redis_timeout() -> None:
    """The default follows Redis's timeout, and a request that could not wait for it is refused."""
    environ = {"SHORTLIST_REDIS_TIMEOUT_MS": "800"}
    assert Settings.from_env(environ).request_timeout_ms == 3200
    assert (
        Settings.from_env(environ | {"SHORTLIST_REQUEST_TIMEOUT_MS": "1601"}).request_timeout_ms
        == 1601
    )
    rule = (
        "must be more than 2 times SHORTLIST_REDIS_TIMEOUT_MS, which is 800; "
        "raise the one, or lower the other"
    )
    with pytest.raises(InvalidSettings, match=f"^SHORTLIST_REQUEST_TIMEOUT_MS='1600': {rule}$"):
        Settings.from_env(environ | {"SHORTLIST_REQUEST_TIMEOUT_MS": "1600"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SHORTLIST_GATE_MARGN", "SHORTLIST_GATE_MARGIN"),
        ("SHORTLIST_ARTIFACTS", "SHORTLIST_ARTEFACTS"),
        ("SHORTLIST_REDIS_URL", "REDIS_URL"),
        ("SHORTLIST_INTERACTION", "SHORTLIST_INTERACTIONS"),
    ],
)
def test_a_misspelt_variable(name: str, meant: str) -> None:
    """It is named with the nearest one, with or without the prefix."""
    assert misspelt({name: "x", "SHORTLIST_GATE": "on", "PATH": "/bin"}) == [
        f"{name} is no setting and changes nothing: did you mean {meant}?"
    ]


def test_variables_that_are_nobodys_mistake() -> None:
    """What is near nothing is told without a guess; what Kubernetes sets is not told."""
    assert misspelt({"SHORTLIST_XYZZY": "x"}) == [
        "SHORTLIST_XYZZY is no setting and changes nothing"
    ]
    service = {"SHORTLIST_SERVICE_HOST": "10.0.0.1", "SHORTLIST_PORT_8000_TCP_ADDR": "10.0.0.1"}
    assert misspelt({**service, "SHORTLIST_API_SERVICE_PORT": "80"}) == []
