"""Lists the Redis commands of the API and the batch.

Categories are not used: `+@connection` grants CLIENT KILL and CLIENT PAUSE, `+@read` grants SCAN,
`+@write` grants FUNCTION LOAD. A new command is one line in COMMANDS, and `python -m
shortlist.infra.tools.acl`, which writes the access strings in template.yaml and the table in
docs/redis-acl.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template.yaml"
GUIDE = ROOT / "docs" / "redis-acl.md"

API, BATCH = "api", "batch"
BOTH = (API, BATCH)


@dataclass(frozen=True, slots=True)
class Command:
    """A command of an access string, subcommands with a bar; users: its senders; why: its use."""

    name: str
    users: tuple[str, ...]
    why: str


CONNECTION = (
    Command("ping", BOTH, "health; before a publication"),
    Command("client|setinfo", BOTH, "redis-py names itself on each new connection"),
    Command("client|setname", BOTH, "redis-py, where the URL has `client_name`"),
    Command("select", BOTH, "redis-py, where the URL names a database other than 0"),
    Command("cluster|slots", BOTH, "redis-py's cluster client reads the topology"),
    Command("command", BOTH, "redis-py's cluster client reads where a command's keys stand"),
    Command("asking", BOTH, "redis-py's cluster client follows a slot that moves"),
)
"""What the client library sends by itself. AUTH, HELLO, QUIT and RESET need no permission."""

COMMANDS = (
    Command("get", BOTH, "lists, popular items, the pointer; the lease"),
    Command(
        "set",
        BOTH,
        "API: claims, and the pointer with an AdminKey; "
        "batch: lists, popular items, pointer and lease",
    ),
    Command("del", BOTH, "deletion of a user; API: claims; batch: the lease"),
    Command("exists", BOTH, "whether a release still has its popular items"),
    Command(
        "expire",
        BOTH,
        "API: live results, counts and newcomers' records; batch: what is superseded",
    ),
    Command("persist", (BATCH,), "records of users whom the table has; a release that comes back"),
    Command("ttl", BOTH, "whether a release is retired; how long a newcomer's record lives"),
    Command("pexpire", (BATCH,), "the lease is renewed"),
    Command("hvals", (BATCH,), "when users were deleted, for dead letters"),
    Command("info", (BATCH,), "what the server evicts when it is full"),
    Command("hlen", BOTH, "whether a release is whole; API: live results of a user"),
    Command("hget", BOTH, "records, rows of items; API: live results"),
    Command("hmget", BOTH, "items, records with marks, deletions"),
    Command("hset", BOTH, "records; API: live results; batch: items, notes of releases"),
    Command("hsetnx", BOTH, "deletion of a user"),
    Command("hdel", (BATCH,), "notes of releases that expired"),
    Command("hexists", (API,), "whether a user is deleted"),
    Command("incrby", (API,), "newcomers of the day"),
    Command("hkeys", BOTH, "deletions, notes of releases"),
    Command("hgetall", BOTH, "API: notes of releases; batch: counts and deletions"),
    Command("hincrby", (API,), "counts of impressions and sampled features"),
    Command("smembers", BOTH, "blocked items"),
    Command("scard", BOTH, "number of blocked items"),
    Command("sadd", BOTH, "an operator blocks an item; batch: a Redis that came back empty"),
    Command("srem", (API,), "an operator unblocks an item"),
    Command(
        "scan",
        (BATCH,),
        "keys of a superseded release, records of users who left the table; `release shadow`",
    ),
    Command("xadd", (API,), "accepted events"),
    Command("xdel", BOTH, "API: events of a deleted user; batch: drained events"),
    Command("xlen", BOTH, "how many events wait"),
    Command("xrange", (BATCH,), "`online-report` reads what waits"),
    Command("xinfo|groups", (BATCH,), "how far the stream was drained"),
    Command("xpending", (BATCH,), "what a drain took and never wrote"),
    Command("xgroup|create", (BATCH,), "the drain's consumer group"),
    Command("xreadgroup", (BATCH,), "the drain takes events"),
    Command("xack", (BATCH,), "the drain has written them"),
    Command(
        "eval",
        BOTH,
        "records that only grow, the lease, flips of the pointer; "
        "a script's commands need permission too",
    ),
)


def granted(user: str) -> list[str]:
    """The commands of a user, sorted."""
    return sorted(command.name for command in (*CONNECTION, *COMMANDS) if user in command.users)


def rules(user: str) -> str:
    """The part of a user's access string that names commands."""
    return " ".join(["-@all", *(f"+{name}" for name in granted(user))])


def table() -> str:
    """The guide's table, in Markdown."""
    head = ["| command | API | batch | for |", "|---|---|---|---|"]
    commands = sorted((*CONNECTION, *COMMANDS), key=lambda command: command.name)
    return "\n".join([*head, *map(_row, commands)])


def _row(command: Command) -> str:
    name = command.name.replace("|", " ").upper()
    api, batch = ("yes" if user in command.users else "" for user in BOTH)
    return f"| `{name}` | {api} | {batch} | {command.why} |"


def with_table(guide: str) -> str:
    """The guide with the table between its comments."""
    return re.sub(
        r"(<!-- acl -->\n).*?(<!-- /acl -->)",
        lambda m: f"{m[1]}{table()}\n{m[2]}",
        guide,
        flags=re.DOTALL,
    )


def with_rules(template: str) -> str:
    """The template with both users' commands in their access strings, the API's first."""
    users = iter((API, BATCH))
    return re.sub(
        r"(?m)^( +)-@all \+.*$", lambda match: f"{match[1]}{rules(next(users))}", template
    )


def main() -> None:
    """Writes the table and the access strings."""
    GUIDE.write_text(with_table(GUIDE.read_text()))
    TEMPLATE.write_text(with_rules(TEMPLATE.read_text()))


if __name__ == "__main__":
    main()
