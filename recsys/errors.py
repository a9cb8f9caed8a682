"""Errors raised on purpose, grouped by the caller's remedy.

ShortlistError
├── InvalidInput              the caller broke a stated rule: correct the input
│   ├── InvalidSettings       an environment variable or option is out of its range
│   ├── UnknownItem           an item id that the serving release does not have
│   ├── RulesChanged          somebody else has replaced the business rules meanwhile
│   └── InvalidData           a table breaks its schema
├── Unavailable               a part outside this process failed: try again, or fall back
│   ├── StoreUnavailable      Redis
│   ├── ArtefactsUnavailable  S3 or the artefact directory
│   │   └── LoadFailed        this process could not load the release: disk, permissions, memory
│   │       └── NoRoom        the disk is too small for it
│   ├── LeaseHeld             another batch is at work
│   ├── DeadlineExceeded      the request's time ended before its work did
│   └── Overloaded            more work waits than can be done in time: try again later
├── InvalidRecommendations    a recommender returned a seen item, a repeat or unsorted scores
│   └── LeakDetected          something in an evaluation depends on events after the cut
└── BrokenRelease             rebuild the release, or activate another one
    ├── ReleaseNotFound       no release of that version among the artefacts
    ├── BundleMismatch        the bundle was built by other features or another layout
    ├── CorruptArtefact       a file is not the one that its manifest describes
    ├── UnreadableRecord      a value in Redis is not a record of this version
    └── ReleaseRefused        the release did not pass a check, and was not published
"""


class ShortlistError(Exception):
    """Base of all errors.

    A message gives the value, the rule and the remedy.
    """


class InvalidInput(ShortlistError):
    """The caller gave something that breaks a stated rule."""


class InvalidSettings(InvalidInput):
    """A setting is missing or out of its range."""


class UnknownItem(InvalidInput):
    """The serving release's catalogue does not have the item."""


class RulesChanged(InvalidInput):
    """Business rules have been replaced since they were read."""


class InvalidData(InvalidInput):
    """A table breaks its schema, or too many of its rows were rejected."""


class Unavailable(ShortlistError):
    """A part outside this process did not answer in time."""


class StoreUnavailable(Unavailable):
    """Redis did not answer, or refused a command."""


class ArtefactsUnavailable(Unavailable):
    """S3 or the artefact directory could not be read or written."""


class LoadFailed(ArtefactsUnavailable):
    """This process could not load the release.

    Its disk, permissions or memory refused.
    """


class NoRoom(LoadFailed):
    """The local disk has too little room for a release."""


class LeaseHeld(Unavailable):
    """Another batch holds the lease, or has taken it over."""


class DeadlineExceeded(Unavailable):
    """The request's time ended before its work.

    The work may still be carried out.
    """


class Overloaded(Unavailable):
    """More work waits than can be done in time."""


class InvalidRecommendations(ShortlistError):
    """A recommender's list breaks its promises.

    Its figures would be worthless.
    """


class LeakDetected(InvalidRecommendations):
    """Something as of a cut depends on later events.

    The figures would be worthless.
    """


class BrokenRelease(ShortlistError):
    """A published release cannot be used."""


class ReleaseNotFound(BrokenRelease):
    """The artefacts have no release of that version."""


class BundleMismatch(BrokenRelease):
    """The bundle has other features or another layout."""


class CorruptArtefact(BrokenRelease):
    """A file is missing, or is not the one in its manifest."""


class UnreadableRecord(BrokenRelease):
    """A value in Redis is no valid record."""


class ReleaseRefused(BrokenRelease):
    """A release failed a check before the flip.

    The old one goes on serving.
    """
