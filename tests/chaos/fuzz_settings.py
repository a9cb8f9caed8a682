"""Fuzzes the settings in the environment.

Each environment must give settings or one error message; a password in either is a finding.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping

from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import open_store
from tests.chaos import nasty

PASSWORD = "s3cr3t-Pa55"  # noqa: S105 - the test's own
"""Part of every password here; no message may contain it."""

# A table is easier to read than one value per line.
# fmt: off
URLS = (
    "redis://localhost:6379", "redis://localhost:6379/0", "rediss://h:1/1",
    "unix:///nonexistent/s", "redis://[::1]:6379", "redis://h",
    "redis://:{p}@h:6379", "rediss://u:{p}@h", "redis://u:{p}#x@h", "redis://u:{p}/y@h",
    "redis://u:{p}?z@h", "redis://{p}@h",
    "redis://u:{p}@h:99999", "redis://u:{p}@h:port", "redis://u:{p}@h/abc",
    "redis://u:{p}@h?cluster=True", "redis://u:{p}@[::1",
    "rediss://u@h?iam=c", "rediss://u:{p}@h?iam=c", "redis://h?cluster=true",
    "redis://h/3?cluster=true", "redis://u:{p}@h?x=y",
    "http://u:{p}@h", "redis:/u:{p}@h", "redis//:{p}@h", "redis://u:{p}@h:6379:6380",
    "redis://u:%zz{p}@h", "redis://u:{p}@",
    "redis://u:{p}@h?password={p}", "redis://h?socket_timeout={p}",
    "redis://u:{p}@h?ssl_cert_reqs=x", "{p}", "redis://u:{p}\n@h",
)
SECRETS = ("SHORTLIST_ADMIN_KEY", "SHORTLIST_API_KEYS")
PLAIN = (
    "on", "off", "none", "local", "ray", "bpr", "*", "https://a.b", "0", "1", "10", "100",
    "0.5", "s3://b/p", "s3://", "/", "1e3",
)
# fmt: on


class _Recording(Mapping[str, str]):
    """An empty environment that records the names of variables that are read."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __getitem__(self, name: str) -> str:
        self.names.append(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def variables() -> list[str]:
    """The names of all variables that the settings read."""
    environ = _Recording()
    Settings.from_env(environ)
    return sorted(set(environ.names))


class SettingsFuzz:
    """Reads settings from generated environments."""

    def __init__(self) -> None:
        self._names = variables()
        self.counts: Counter[str] = Counter()

    def case(self, rng: random.Random) -> str:
        """Reads one environment, and gives the problem of the outcome, or ""."""
        names = rng.sample(self._names, rng.choice((1, 1, 2, 5, len(self._names))))
        environ = {name: _value(name, rng) for name in names}
        try:
            shown = _shown(Settings.from_env(environ))
        except InvalidInput as error:
            self.counts["settings: refused"] += 1
            return f"the password is in {error}" if PASSWORD in str(error) else ""
        except Exception as error:  # noqa: BLE001 - any exception here is a finding
            return f"{type(error).__name__}: {error} of {environ}"
        self.counts["settings: read"] += 1
        return f"the password is in {shown}" if PASSWORD in shown else ""


def _shown(settings: Settings) -> str:
    """The settings and a client made from them, as a traceback shows them."""
    if "cluster=" in settings.redis_url:  # opening a cluster would connect
        return repr(settings)
    store = open_store(settings.redis_url, settings.namespace, settings.redis_timeout_ms)
    shown = repr(settings) + repr(store.redis)
    store.close()
    return shown


def _value(name: str, rng: random.Random) -> str:
    if name == "REDIS_URL":
        return rng.choice(URLS).format(p=PASSWORD)
    if name in SECRETS and rng.random() < 0.5:
        return PASSWORD + rng.choice(("", "x" * 20, "é" * 20, " " * 20, "x" * 5000))
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(PLAIN)
    if kind < 0.7:
        drawn = (float("nan"), float("inf"), rng.randrange(-10, 2000), rng.random())
        return str(rng.choice((*nasty.NUMBERS[:-1], *drawn)))
    if kind < 0.75:
        return "9" * rng.choice((20, 400, 5000))
    return nasty.text(rng).encode("utf-8", "replace").decode()
