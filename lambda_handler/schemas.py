"""The shapes of requests and answers, as FastAPI checks and documents them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from shortlist.recsys import values
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.store.answer_sources import AnswerSource


def _by(rule: Callable[[object], object]) -> PlainValidator:
    """Validates by a rule of `recsys.values`, whose message reaches the caller as it is."""

    def check(value: object) -> object:
        try:
            return rule(value)
        except InvalidInput as error:
            raise PydanticCustomError("value", "{message}", {"message": str(error)}) from None

    return PlainValidator(check)


def _id(value: object) -> str | int:
    """The id by the one reading; an integer stays one, so that an answer gives it back as it came."""
    read = values.id_of(value)
    return read if isinstance(value, str) else int(read)


ID_TEXT: dict[str, Any] = {"type": "string", "pattern": values.ID_PATTERN}
ID_SHOWN: dict[str, Any] = {
    "anyOf": [ID_TEXT, {"type": "integer"}],
    "description": f"Text of 1 to {values.MAX_ID_LENGTH} characters or a whole number; 42, 42.0, ' 42 ' and '42.0' are '42'.",
}
Text = Annotated[StrictStr, Field(min_length=1, max_length=values.MAX_ID_LENGTH)]
Number = Annotated[StrictFloat, Field(allow_inf_nan=False)]  # whole ones too
Id = Annotated[str | int, _by(_id), WithJsonSchema(ID_SHOWN)]
"""An id in a body."""

IdText = Annotated[str, _by(values.id_of), WithJsonSchema(ID_TEXT)]
"""An id in a path or a query, which are text."""

UserPath = Annotated[IdText, Path(description="The user's id.")]
ItemPath = Annotated[IdText, Path(description="The item's id.")]
Seconds = Annotated[
    int,
    _by(values.time_of),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": values.MAX_TIME}),
]
Weight = Annotated[
    float,
    _by(values.weight_of),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": values.MAX_WEIGHT}),
]
Label = Annotated[
    str,
    _by(values.label_of),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": values.MAX_ID_LENGTH}),
]
Position = Annotated[
    int,
    _by(values.rank_position_of),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": values.LAST_POSITION}),
]
Attributes = dict[
    Text, Text | StrictBool | Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | Number
]

MAX_HISTORY = 1000
MAX_EXCLUDED = 1000
MAX_EVENTS = 500
MAX_RANKED = 500
MAX_ATTRIBUTES = 100
_FIELD_SHOWN = 60


class HistoryEvent(BaseModel):
    """One thing the user did."""

    model_config = ConfigDict(extra="forbid")
    item_id: Id
    timestamp: Seconds | None = Field(
        default=None, description="Unix seconds; events without one keep their order."
    )
    weight: Weight | None = Field(default=None, description="A rating or another strength.")


def _kind(value: object) -> str:
    """Which form an entry of a history has, so that an error is about that form."""
    return "event" if isinstance(value, (dict, HistoryEvent)) else "item"


HistoryEntry = Annotated[
    Annotated[Id, Tag("item")] | Annotated[HistoryEvent, Tag("event")],
    Discriminator(_kind),
]


class RecommendRequest(BaseModel):
    """Who asks, and for what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"user_id": "42", "k": 10}, {"user_id": "new", "history": ["1", "50"]}]
        },
    )
    user_id: Id
    k: Annotated[StrictInt, Field(ge=1, le=100, description="How many items.")] = 20
    use_cache: StrictBool = Field(
        default=True, description="false computes live, whatever is stored."
    )
    history: list[HistoryEntry] | None = Field(
        default=None,
        max_length=MAX_HISTORY,
        description="What the user did, oldest first. It replaces the stored history for this answer.",
    )
    attributes: Attributes | None = Field(default=None, max_length=MAX_ATTRIBUTES)
    exclude: list[Id] = Field(
        default_factory=list, max_length=MAX_EXCLUDED, description="Items not to recommend."
    )
    categories: list[Text] = Field(
        default_factory=list, max_length=100, description="Only items of one of these."
    )
    diversity: Annotated[Number, Field(ge=0, le=1)] = Field(
        default=0,
        description="0 ranks by score alone; towards 1 items unlike those above them come first. Computed live.",
    )
    explain: StrictBool = Field(
        default=False, description="Gives the reason of each item. Computed live."
    )


Wanted = Annotated[int, Field(ge=1, le=100, description="How many items.")]
Categories = Annotated[
    list[Text], Field(max_length=100, description="Only items of one of these; may be repeated.")
]


class ListQuery(BaseModel):
    """How many items, and of which categories."""

    model_config = ConfigDict(extra="forbid")
    k: Wanted = 20
    category: Categories = Field(default_factory=list)


class UserQuery(ListQuery):
    """The same, and which items not."""

    exclude: list[IdText] = Field(
        default_factory=list, max_length=MAX_EXCLUDED, description="Not these; may be repeated."
    )


class OfUserQuery(UserQuery):
    """The same, and whose list; for ids that a path cannot hold."""

    user_id: IdText = Field(description="The user's id, of any characters.")


class ItemQuery(BaseModel):
    """Which item."""

    model_config = ConfigDict(extra="forbid")
    item_id: IdText = Field(description="The item's id, of any characters.")


class OfItemQuery(ListQuery):
    """How many items like which, and of which categories."""

    item_id: IdText = Field(description="The item's id, of any characters.")


class UserBody(BaseModel):
    """Which user; for ids that a path cannot hold."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user_id": "acme/42"}]}
    )
    user_id: Id


class ItemBody(BaseModel):
    """Which item; for ids that a path cannot hold."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"item_id": "sku/7"}]}
    )
    item_id: Id


class RankRequest(BaseModel):
    """Items to put in order for a user, by their id or by a history."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"user_id": "42", "items": ["1", "50", "100"]}],
            "anyOf": [
                {
                    "required": ["user_id"],
                    "properties": {"user_id": {"type": ["string", "integer"]}},
                },
                {"required": ["history"], "properties": {"history": {"type": "array"}}},
            ],
        },
    )
    user_id: Id | None = None
    history: list[HistoryEntry] | None = Field(default=None, max_length=MAX_HISTORY)
    attributes: Attributes | None = Field(default=None, max_length=MAX_ATTRIBUTES)
    items: list[Id] = Field(
        min_length=1, max_length=MAX_RANKED, description="Items that the user had are ranked too."
    )

    @model_validator(mode="after")
    def _of_someone(self) -> Self:
        if self.user_id is None and self.history is None:
            raise ValueError("one of user_id and history must be given")
        return self


class CauseAnswer(BaseModel):
    """Something the user had that speaks for an item."""

    item_id: str
    title: str
    share: float = Field(description="Of all that the history says for the item.")


class ReasonAnswer(BaseModel):
    """Why an item is recommended."""

    text: str
    because: list[CauseAnswer]
    features: dict[str, float] = Field(
        description="What the features that matter most add to the ranker's score."
    )


class Recommendation(BaseModel):
    """One recommended item."""

    item_id: str
    title: str
    score: float
    rank: int
    retrieval_score: float
    genres: list[str]
    reason: ReasonAnswer | None = Field(default=None, description="Only with explain.")


class RecommendAnswer(BaseModel):
    """The list, and where it came from."""

    user_id: str | int
    recommendations: list[Recommendation]
    latency_ms: float
    cache_hit: bool
    n_candidates: int
    source: AnswerSource
    model_version: str
    list_age_s: int | None = Field(
        description="Seconds since the list was computed; null for a live answer."
    )
    degraded: bool = Field(description="Whether something failed and this is a fall-back.")
    unknown_items: int = Field(
        description="Items of the request's history that the catalogue lacks, and that were ignored."
    )
    recommendation_id: str


class Listed(BaseModel):
    """One item of a list that is the same for everybody."""

    item_id: str
    title: str
    score: float
    rank: int
    genres: list[str]


class ListAnswer(BaseModel):
    """A list of items."""

    items: list[Listed]
    model_version: str
    degraded: bool = Field(description="Whether something failed and this is a fall-back.")


class RankAnswer(ListAnswer):
    """The items that were asked about, best first."""

    source: AnswerSource
    unknown_items: int = Field(
        description="Asked items that the catalogue lacks, and that are not in the answer."
    )


class ItemAnswer(BaseModel):
    """What is known of an item."""

    item_id: str
    title: str
    genres: list[str]
    available: bool


class Event(BaseModel):
    """Something that a user did."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "event_id": "a1",
                    "user_id": "42",
                    "item_id": "50",
                    "timestamp": 1785542400,
                    "weight": 5,
                }
            ]
        },
    )
    event_id: Label = Field(
        description="Tells this event from every other of the user; sending it again is safe."
    )
    user_id: Id
    item_id: Id
    timestamp: Seconds = Field(description="Unix seconds.")
    weight: Weight | None = Field(default=None, description="A rating or another strength.")
    recommendation_id: Label | None = Field(
        default=None, description="Of the answer that the user acted on."
    )
    position: Position | None = Field(default=None, description="Where in it the item stood.")


@dataclass(frozen=True, slots=True)
class Invalid:
    """An event of a request that breaks a rule."""

    message: str


def _or_invalid(value: object, check: ValidatorFunctionWrapHandler) -> Event | Invalid:
    """One bad event does not spoil the others of its request."""
    try:
        event: Event = check(value)
    except ValidationError as error:
        return Invalid(_explained(error.errors()[0]))
    return event


def _explained(error: ErrorDetails) -> str:
    """An event's first error: its field, the value, the rule and the remedy."""
    field = ascii(".".join(map(str, error["loc"][:1])))[1:-1][:_FIELD_SHOWN]
    kind, given = error["type"], values.shown(error["input"])
    if kind == "value":
        return f"{field}: {error['msg']}"
    if kind == "missing":
        return f"{field}: it is missing: every event has event_id, user_id, item_id and timestamp"
    if kind == "extra_forbidden":
        return f"{field}: an event has no such field: leave it out"
    if not field:
        return f"{given} is no event: send an object with event_id, user_id, item_id and timestamp"
    return f"{field}: {given} is refused: {error['msg']}"


class EventsRequest(BaseModel):
    """Events of any users, in any order."""

    model_config = ConfigDict(extra="forbid")
    events: list[Annotated[Event, WrapValidator(_or_invalid)]] = Field(
        min_length=1, max_length=MAX_EVENTS
    )


class RejectedEvent(BaseModel):
    """An event that was not taken."""

    index: int = Field(description="Its place in the request, from 0.")
    code: str
    message: str


class EventsAnswer(BaseModel):
    """What became of the events."""

    accepted: int
    duplicates: int = Field(description="Events that were sent before.")
    rejected: list[RejectedEvent]


class DeletedAnswer(BaseModel):
    """That a user is gone."""

    user_id: str
    existed: bool = Field(description="Whether anything was stored of the user.")


class CanaryAnswer(BaseModel):
    """A release that some users are served from."""

    version: str
    percent: float


class PointerAnswer(BaseModel):
    """Which release serves, which one rollback would bring back, and which one is tried on some users."""

    current: str | None
    previous: str | None
    canary: CanaryAnswer | None


class ReleaseAnswer(BaseModel):
    """A release that can serve."""

    version: str
    created_at: int = Field(description="Unix seconds.")
    ndcg_at_10: float | None = Field(description="Of its report.")


class ReleasesAnswer(PointerAnswer):
    """All releases that can serve, oldest first."""

    releases: list[ReleaseAnswer]


class BlockedAnswer(BaseModel):
    """Whether an item is kept out of answers."""

    item_id: str
    blocked: bool


class ErrorBody(BaseModel):
    """What went wrong."""

    type: str
    code: str
    message: str
    request_id: str


class ErrorAnswer(BaseModel):
    """The one envelope of every error."""

    error: ErrorBody


NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "The catalogue lacks the item."}
}
NO_RELEASE: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "There is no such release."}
}
UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "What If-None-Match names is still the answer."}
}
REFUSED: dict[int | str, dict[str, Any]] = {
    401: {
        "model": ErrorAnswer,
        "description": "Nobody is known to call. Only where callers are checked.",
    },
    403: {"model": ErrorAnswer, "description": "The caller may not do this, or not for this user."},
    429: {
        "model": ErrorAnswer,
        "description": "Too many requests by one API key; see Retry-After.",
    },
}
ERRORS: dict[int | str, dict[str, Any]] = REFUSED | {
    422: {"model": ErrorAnswer, "description": "A field breaks its rule; the message names both."},
    503: {"model": ErrorAnswer, "description": "Nothing can be answered now; see Retry-After."},
}
