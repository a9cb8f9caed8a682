"""Errors raised on purpose, grouped by what the caller can do.

ShortlistError
├── InvalidInput              the caller broke a stated rule: correct the input
│   ├── InvalidSettings       an environment variable or option is out of its range
│   ├── UnknownItem           an item id that the serving release does not have
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
    """Base of all errors; the message gives the value, the rule and the remedy."""


class InvalidInput(ShortlistError):
    """The caller gave something that breaks a stated rule."""


class InvalidSettings(InvalidInput):
    """An environment variable or option is missing or out of its range."""


class UnknownItem(InvalidInput):
    """The serving release's catalogue does not have the item."""


class InvalidData(InvalidInput):
    """A table breaks its documented schema, or too many of its rows were rejected."""


class Unavailable(ShortlistError):
    """A part outside this process did not answer in time."""


class StoreUnavailable(Unavailable):
    """Redis did not answer, or refused a command."""


class ArtefactsUnavailable(Unavailable):
    """S3 or the artefact directory could not be read or written."""


class LoadFailed(ArtefactsUnavailable):
    """A release is there, but this process's disk, permissions or memory refused it."""


class NoRoom(LoadFailed):
    """The local disk has too little room for a release."""


class LeaseHeld(Unavailable):
    """Another batch holds the lease, or has taken it over."""


class DeadlineExceeded(Unavailable):
    """The request's time ended before its work, which may still be carried out."""


class Overloaded(Unavailable):
    """More work waits already than can be done within a request's time."""


class InvalidRecommendations(ShortlistError):
    """A recommender's list breaks its promises; its figures would be worthless."""


class LeakDetected(InvalidRecommendations):
    """Something as of a cut depends on later events; the figures would be worthless."""


class BrokenRelease(ShortlistError):
    """A published release cannot be used."""


class ReleaseNotFound(BrokenRelease):
    """The artefacts have no release of that version."""


class BundleMismatch(BrokenRelease):
    """The bundle was built by other features or another layout than this code's."""


class CorruptArtefact(BrokenRelease):
    """A file is missing, or is not the one that its manifest states."""


class UnreadableRecord(BrokenRelease):
    """A value in Redis is not the record that its key names."""


class ReleaseRefused(BrokenRelease):
    """A release failed a check before the pointer flipped; the old one goes on serving."""
