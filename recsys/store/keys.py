"""Names every key that a namespace has in Redis.

A user's keys share a hash tag, so that a cluster keeps them in one slot and they are read in one
round trip; so do the release pointer, the lease and the fencing token.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one namespace; {…} is a cluster hash tag."""

    namespace: str

    def release(self) -> str:
        """Msgpack {current, previous, canary?: {version, percent}}."""
        return f"{self.namespace}:release"

    def lease(self) -> str:
        """The holder of the batch lease; lives for a minute.

        The tag is the pointer's whole key, so that both lie in one slot.
        """
        return f"{{{self.release()}}}:lease"

    def fence(self) -> str:
        """The newest fencing token, a whole number; in the pointer's slot."""
        return f"{{{self.release()}}}:fence"

    def of_release(self, version: str) -> str:
        """Prefix of a release's keys."""
        return f"{self.namespace}:{version}:"

    def list(self, version: str, user: str) -> str:
        """A packed ShortlistRecord."""
        return f"{self.namespace}:{version}:list:{{{user}}}"

    def items(self, version: str) -> str:
        """A hash: item row -> packed ItemRecord."""
        return f"{self.namespace}:{version}:items"

    def rows(self, version: str) -> str:
        """A hash: item id -> item row.

        "" -> the number of items, written after all of them.
        """
        return f"{self.namespace}:{version}:rows"

    def popular(self, version: str) -> str:
        """A packed ShortlistRecord of the most popular items."""
        return f"{self.namespace}:{version}:popular"

    def facts(self, version: str) -> str:
        """The packed ReleaseFacts."""
        return f"{self.namespace}:{version}:facts"

    def skew(self, version: str) -> str:
        """A hash: `stratum:feature:cell` -> live feature rows.

        The cells are those of the training, and the rows a sample of live answers'. The field
        `aside` counts the rows that belong to no stratum.
        """
        return f"{self.namespace}:{version}:skew"

    def users(self) -> str:
        """Prefix of the keys of users' records."""
        return f"{self.namespace}:user:"

    def user(self, user: str) -> str:
        """A hash of a user: s, h, b, e0 and e1.

        s: the position of their latest accepted event in the stream, 0 where all came from the
        batch's table; h: the packed UserRecord; b: the token of the lease under which a batch wrote
        it last; e0, e1: the dedup keys of events sent lately.
        """
        return f"{self.namespace}:user:{{{user}}}"

    def live(self, version: str, user: str) -> str:
        """A hash: digest of inputs -> live result."""
        # Not below `of_release`: it expires by itself, and retiring a release need not scan it.
        return f"{self.namespace}:live:{version}:{{{user}}}"

    def claim(self, user: str) -> str:
        """The digest of the live result being computed."""
        return f"{self.namespace}:claim:{{{user}}}"

    def blocked(self) -> str:
        """A set of item ids never to be shown."""
        return f"{self.namespace}:blocked"

    def rules(self) -> str:
        """The packed StoredRules, of all releases."""
        return f"{self.namespace}:rules"

    def events(self) -> str:
        """The stream of accepted events, each a packed EventRecord."""
        return f"{self.namespace}:events"

    def newcomers(self, day: int) -> str:
        """A number: newcomers of a day since 1970."""
        return f"{self.namespace}:newcomers:{day}"

    def releases(self) -> str:
        """A hash: version -> msgpack [created_at, ndcg@10]."""
        return f"{self.namespace}:releases"

    def deleted(self) -> str:
        """A hash: digest of a deleted user's id -> unix seconds."""
        return f"{self.namespace}:deleted"

    def impressions(self, day: str) -> str:
        """A hash: `source:length:version` -> answers of a day.

        day: YYYY-MM-DD in UTC; length: the number of items in the answer.
        """
        return f"{self.namespace}:impressions:{day}"

    def digest(self, user: str) -> str:
        """Stands for a deleted user, whose id is kept nowhere."""
        return hashlib.sha256(f"{self.namespace}:{user}".encode()).hexdigest()
