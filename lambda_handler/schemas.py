"""Defines requests and answers, as FastAPI validates and documents them."""

from __future__ import annotations

import json
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

from shortlist.recsys import values, where
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.store import rules_reading
from shortlist.recsys.store.answer_sources import AnswerSource


def _by(rule: Callable[[object], object]) -> PlainValidator:
    """Validates by a rule of `recsys.values`.

    Its message reaches the caller unchanged.
    """

    def check(value: object) -> object:
        try:
            return rule(value)
        except InvalidInput as error:
            raise PydanticCustomError("value", "{message}", {"message": str(error)}) from None

    return PlainValidator(check)


def _id(value: object) -> str | int:
    """Normalises an id.

    An integer stays one, so that an answer returns it as it came.
    """
    text = values.id_of(value)
    return text if isinstance(value, str) else int(text)


ID_TEXT: dict[str, Any] = {"type": "string", "pattern": values.ID_PATTERN}
ID_SHOWN: dict[str, Any] = {
    "anyOf": [ID_TEXT, {"type": "integer"}],
    "description": (
        f"Text of 1 to {values.MAX_ID_LENGTH} characters or a whole number; "
        "42, 42.0, ' 42 ' and '42.0' are '42'."
    ),
}
# Strict types: `"7"` for a number or `1` for a truth value is a caller's mistake.
Text = Annotated[StrictStr, Field(min_length=1, max_length=values.MAX_ID_LENGTH)]
Number = Annotated[StrictFloat, Field(allow_inf_nan=False)]  # whole ones too
Id = Annotated[str | int, _by(_id), WithJsonSchema(ID_SHOWN)]
"""An id in a body."""

IdText = Annotated[str, _by(values.id_of), WithJsonSchema(ID_TEXT)]
"""An id in a path or a query, where it is text."""

UserPath = Annotated[IdText, Path(description="The user's id.")]
ItemPath = Annotated[IdText, Path(description="The item's id.")]
Seconds = Annotated[
    int,
    _by(values.time_of),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": values.MAX_TIME},
                {"type": "string", "pattern": values.TIME_PATTERN},
            ],
            "description": "Unix seconds, a date, or ISO 8601 text; UTC where it names no zone.",
        }
    ),
]
Weight = Annotated[
    float,
    _by(values.weight_of),
    WithJsonSchema({"type": "number", "minimum": -values.MAX_WEIGHT, "maximum": values.MAX_WEIGHT}),
]
Label = Annotated[
    str,
    _by(values.label_of),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": values.MAX_ID_LENGTH}),
]
EventType = Annotated[
    str,
    _by(values.type_of),
    WithJsonSchema({"type": "string", "pattern": rf"[^{values.BLANKS}]", "minLength": 1}),
]
Position = Annotated[
    int,
    _by(values.rank_position_of),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": values.LAST_POSITION}),
]
Attributes = dict[
    Text, Text | StrictBool | Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | Number
]

WEIGHT_SHOWN = (
    "A rating, or another strength of the interest; below 0, or below the release's bound, it is "
    "negative feedback."
)
TYPE_SHOWN = (
    "What the user did, such as view or buy: one of the types that the serving release knows."
)

REPEATS_SHOWN = (
    "Whether the user may be offered what they had: null as the release does it. true needs a "
    "release that was trained with SHORTLIST_REPEATS=allow."
)

MAX_HISTORY = 1000  # ten times what the models look at
MAX_EXCLUDED = 1000
MAX_EVENTS = 500  # with the longest ids they fit into a mebibyte
MAX_RANKED = 500
MAX_ATTRIBUTES = 100
_FIELD_SHOWN = 60  # characters of a field's name in an error


_VALUE = {"type": ["string", "number", "boolean"]}
_BOUND = {"type": ["string", "number"]}
WHERE_SHOWN: dict[str, Any] = {
    "type": "object",
    "maxProperties": where.MAX_CONDITIONS,
    "additionalProperties": {
        "anyOf": [
            _VALUE,
            {"type": "array", "items": _VALUE, "minItems": 1, "maxItems": where.MAX_VALUES},
            {
                "type": "object",
                "properties": dict.fromkeys(where.RANGES, _BOUND),
                "additionalProperties": False,
                "minProperties": 1,
            },
        ]
    },
    "examples": [{"brand": ["acme"], "price": {"lte": 20}, "in_stock": True}],
}
WHERE_SENTENCE = (
    "Only items with these attributes: a value, a list of which one is enough, or a range of gt, "
    "gte, lt and lte for numbers and dates."
)


def _where_text(value: object) -> object:
    """Conditions from the JSON text of a query string."""
    try:
        return where.conditions_of(json.loads(str(value)))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f'{values.shown(value)} is no JSON ({error}): write where={{"brand": ["acme"]}}, '
            "percent-encoded"
        ) from error


Where = Annotated[
    tuple[where.Condition, ...], _by(where.conditions_of), WithJsonSchema(WHERE_SHOWN)
]
"""Conditions in a body."""

WhereText = Annotated[
    Any,  # FastAPI would take a tuple for a parameter that is repeated
    _by(_where_text),
    WithJsonSchema(
        {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": WHERE_SHOWN,
            "examples": ['{"brand": ["acme"], "price": {"lte": 20}}'],
        }
    ),
]
"""The same as the text of a parameter."""


class HistoryEvent(BaseModel):
    """An event in a request's history."""

    model_config = ConfigDict(extra="forbid")
    item_id: Id
    timestamp: Seconds | None = Field(
        default=None,
        description=(
            "Unix seconds, a date, or ISO 8601 text; an event without a time takes the one before."
        ),
    )
    weight: Weight | None = Field(default=None, description=WEIGHT_SHOWN)
    event_type: EventType | None = Field(default=None, description=TYPE_SHOWN)


def _kind(value: object) -> str:
    """The form of a history's entry, so that an error is about that form."""
    return "event" if isinstance(value, (dict, HistoryEvent)) else "item"


HistoryEntry = Annotated[
    Annotated[Id, Tag("item")] | Annotated[HistoryEvent, Tag("event")],
    Discriminator(_kind),
]


class RecommendRequest(BaseModel):
    """A request for recommendations."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"user_id": "42", "k": 10}, {"user_id": "new", "history": ["1", "50"]}]
        },
    )
    user_id: Id | None = Field(
        default=None,
        description="null for nobody in particular: popular items, or those for the history.",
    )
    k: Annotated[StrictInt, Field(ge=1, le=100, description="How many items.")] = 20
    use_cache: StrictBool = Field(
        default=True, description="false: computes the answer with the models, whatever is cached."
    )
    history: list[HistoryEntry] | None = Field(
        default=None,
        max_length=MAX_HISTORY,
        description="The user's events, oldest first; used instead of the stored history.",
    )
    attributes: Attributes | None = Field(default=None, max_length=MAX_ATTRIBUTES)
    exclude: list[Id] = Field(
        default_factory=list, max_length=MAX_EXCLUDED, description="Items not to recommend."
    )
    categories: list[Text] = Field(
        default_factory=list, max_length=100, description="Only items of one of these categories."
    )
    where: Where | None = Field(default=None, description=WHERE_SENTENCE)
    diversity: Annotated[Number, Field(ge=0, le=1)] = Field(
        default=0,
        description=(
            "0 ranks by score alone; towards 1, items unlike those above them come first. "
            "Not cached lists: computed by the models."
        ),
    )
    explain: StrictBool = Field(
        default=False, description="Adds the reason of each item. Computed by the models."
    )
    allow_repeats: StrictBool | None = Field(default=None, description=REPEATS_SHOWN)


Count = Annotated[int, Field(ge=1, le=100, description="How many items.")]
Categories = Annotated[
    list[Text],
    Field(max_length=100, description="Only items of one of these categories; may be repeated."),
]


class ListQuery(BaseModel):
    """Number of items, their categories and attributes."""

    model_config = ConfigDict(extra="forbid")
    k: Count = 20
    category: Categories = Field(default_factory=list)
    where: WhereText | None = Field(default=None, description=WHERE_SENTENCE)


class UserQuery(ListQuery):
    """Number of items, their categories, excluded items, and repeats."""

    exclude: list[IdText] = Field(
        default_factory=list,
        max_length=MAX_EXCLUDED,
        description="Items not to recommend; may be repeated.",
    )

    allow_repeats: bool | None = Field(default=None, description=REPEATS_SHOWN)


class OfUserQuery(UserQuery):
    """The same with a user; for ids that a path cannot hold."""

    user_id: IdText = Field(description="The user's id, of any characters.")


class ItemQuery(BaseModel):
    """An item's id, as a parameter."""

    model_config = ConfigDict(extra="forbid")
    item_id: IdText = Field(description="The item's id, of any characters.")


class OfItemQuery(ListQuery):
    """An item, the number of items like it, and their categories."""

    item_id: IdText = Field(description="The item's id, of any characters.")


class UserBody(BaseModel):
    """A user's id in a body; for ids that a path cannot hold."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user_id": "acme/42"}]}
    )
    user_id: Id


class ItemBody(BaseModel):
    """An item's id in a body; for ids that a path cannot hold."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"item_id": "sku/7"}]}
    )
    item_id: Id


class RankRequest(BaseModel):
    """Items to rank for a user, who is given by id or by a history."""

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
        min_length=1,
        max_length=MAX_RANKED,
        description="Items to rank; those of the user's history too.",
    )
    where: Where | None = Field(default=None, description=WHERE_SENTENCE)

    @model_validator(mode="after")
    def _check_user(self) -> Self:
        if self.user_id is None and self.history is None:
            raise ValueError("one of user_id and history must be given")
        return self


class CauseAnswer(BaseModel):
    """An item of the history that speaks for a recommended one."""

    item_id: str
    title: str
    share: float = Field(description="Part of all that speaks for the item, 0 to 1.")


class ReasonAnswer(BaseModel):
    """Why an item is recommended."""

    text: str
    because: list[CauseAnswer]
    features: dict[str, float] = Field(
        description="What the strongest features add to the ranker's score."
    )


AttributesShown = Annotated[
    dict[str, str | bool | int | float | list[str]],
    Field(description="The item's own columns, as far as the release shows them."),
]
Genres = Annotated[
    list[str], Field(description="The same as `categories`, by an older name.", deprecated=True)
]
UnknownValues = Annotated[
    dict[str, list[str]],
    Field(
        description=(
            "Categories and values of attributes that were asked for, and that no item of the "
            "catalogue has."
        )
    ),
]


MovedBy = Annotated[
    list[str] | None,
    Field(description="Names of the business rules that moved the item; absent where none did."),
]


class Recommendation(BaseModel):
    """One recommended item."""

    item_id: str
    title: str
    score: float
    rank: int
    retrieval_score: float
    categories: list[str]
    genres: Genres
    attributes: AttributesShown
    reason: ReasonAnswer | None = Field(default=None, description="Only with explain.")
    rules: MovedBy = None


class RecommendAnswer(BaseModel):
    """A list of recommendations and its source."""

    user_id: str | int | None = Field(description="As in the request.")
    recommendations: list[Recommendation]
    latency_ms: float
    cache_hit: bool
    n_candidates: int
    source: AnswerSource
    model_version: str
    list_age_s: int | None = Field(
        description="Seconds since the list was computed; null for a live answer."
    )
    degraded: bool = Field(description="True if a part failed and this answer is a fallback.")
    unknown_items: int = Field(
        description="Items of the request's history that the catalogue lacks; they were ignored."
    )
    unknown_values: UnknownValues
    recommendation_id: str


class Listed(BaseModel):
    """An item of a list that is the same for all users."""

    item_id: str
    title: str
    score: float
    rank: int
    categories: list[str]
    genres: Genres
    attributes: AttributesShown
    rules: MovedBy = None


class ListAnswer(BaseModel):
    """A list of items."""

    items: list[Listed]
    model_version: str
    degraded: bool = Field(description="True if a part failed and this answer is a fallback.")
    unknown_values: UnknownValues


class RankAnswer(ListAnswer):
    """The requested items, best first."""

    source: AnswerSource
    unknown_items: int = Field(
        description="Requested items that are not in the catalogue, nor in the answer."
    )


class ItemAnswer(BaseModel):
    """An item of the catalogue."""

    item_id: str
    title: str
    categories: list[str]
    genres: Genres
    attributes: AttributesShown
    available: bool


class Event(BaseModel):
    """An interaction of a user with an item."""

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
        description="Identifies the event among the user's; sending it again is safe."
    )
    user_id: Id
    item_id: Id
    timestamp: Seconds
    weight: Weight | None = Field(default=None, description=WEIGHT_SHOWN)
    event_type: EventType | None = Field(default=None, description=TYPE_SHOWN)
    recommendation_id: Label | None = Field(
        default=None, description="The recommendation_id of the answer that led to the event."
    )
    position: Position | None = Field(default=None, description="The item's rank in that answer.")


@dataclass(frozen=True, slots=True)
class Invalid:
    """An event that breaks a rule."""

    message: str


def _or_invalid(value: object, check: ValidatorFunctionWrapHandler) -> Event | Invalid:
    """Turns an invalid event into a value, so that the others are still accepted."""
    try:
        event: Event = check(value)
    except ValidationError as error:
        return Invalid(_explained(error.errors()[0]))
    return event


def _explained(error: ErrorDetails) -> str:
    """Formats an event's first error: field, value, rule and remedy."""
    # A field's name is the caller's text: ASCII, and cut.
    field = ascii(".".join(map(str, error["loc"][:1])))[1:-1][:_FIELD_SHOWN]
    kind, value = error["type"], values.shown(error["input"])
    if kind == "value":
        return f"{field}: {error['msg']}"
    if kind == "missing":
        return f"{field}: it is missing: every event has event_id, user_id, item_id and timestamp"
    if kind == "extra_forbidden":
        return f"{field}: an event has no such field: leave it out"
    if not field:
        return f"{value} is no event: send an object with event_id, user_id, item_id and timestamp"
    return f"{field}: {value} is refused: {error['msg']}"


class EventsRequest(BaseModel):
    """Events of any number of users, in any order."""

    model_config = ConfigDict(extra="forbid")
    events: list[Annotated[Event, WrapValidator(_or_invalid)]] = Field(
        min_length=1, max_length=MAX_EVENTS
    )


class RejectedEvent(BaseModel):
    """An event that was not accepted."""

    index: int = Field(description="The event's place in the request, from 0.")
    code: str
    message: str


class EventsAnswer(BaseModel):
    """The outcome of the events."""

    accepted: int
    duplicates: int = Field(description="Events that had been sent before.")
    rejected: list[RejectedEvent]


class DeletedAnswer(BaseModel):
    """The outcome of a deletion."""

    user_id: str
    existed: bool = Field(description="True if anything was stored about the user.")


class CanaryAnswer(BaseModel):
    """A release that serves a share of the users."""

    version: str
    percent: float


class CanaryRequest(BaseModel):
    """The share of the users that a release is to serve."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"percent": 5}]})
    percent: float = Field(ge=0, le=100, description="Of the users; 0 ends the canary.")


class PointerAnswer(BaseModel):
    """The serving release, the one that a rollback restores, and the canary."""

    current: str | None
    previous: str | None
    canary: CanaryAnswer | None


class ReleaseAnswer(BaseModel):
    """A release that can serve."""

    version: str
    created_at: int = Field(description="Unix seconds.")
    ndcg_at_10: float | None = Field(description="From the release's report.")


class ReleasesAnswer(PointerAnswer):
    """All releases that can serve, oldest first."""

    releases: list[ReleaseAnswer]


def _rules(value: object) -> object:
    rules_reading.rules_of(value)
    return value


_REQUIRED_OF_RULE = {"pin": ["item"], "limit": ["attribute", "at_most"]}
RULES_SHOWN: dict[str, Any] = {
    "type": "object",
    "properties": {
        name: {
            "type": "array",
            "items": {"type": "object", "required": _REQUIRED_OF_RULE.get(name, [])},
        }
        for name in rules_reading.SECTIONS
    },
    "additionalProperties": False,
    "description": "Lists of rules by kind; docs/rules.md says what each kind takes.",
    "examples": [
        {
            "pin": [{"item": "42", "place": 1}],
            "boost": [{"where": {"brand": ["acme"]}, "places": 5}],
            "limit": [{"attribute": "brand", "at_most": 3}],
        }
    ],
}


class RulesRequest(BaseModel):
    """Business rules to put in place of the present ones."""

    model_config = ConfigDict(extra="forbid")
    version: Annotated[StrictInt, Field(ge=0)] = Field(
        description="The version that they replace, from GET; 0 for none."
    )
    rules: Annotated[dict[str, Any], _by(_rules), WithJsonSchema(RULES_SHOWN)]


class RulesAnswer(BaseModel):
    """The business rules."""

    version: int = Field(description="Counts changes; 0 for none yet.")
    rules: Annotated[dict[str, Any], WithJsonSchema(RULES_SHOWN)]
    by: str = Field(description="Who put them: the batch, or the name of an API key.")
    at: int = Field(description="Unix seconds of the last change.")
    notes: list[str] = Field(description="Which rules change nothing in the serving release.")


class BlockedAnswer(BaseModel):
    """Tells if an item is kept out of all answers."""

    item_id: str
    blocked: bool


class ErrorBody(BaseModel):
    """An error."""

    type: str
    code: str
    message: str
    request_id: str


class ErrorAnswer(BaseModel):
    """The envelope of every error."""

    error: ErrorBody


Responses = dict[int | str, dict[str, Any]]
"""What a route may answer besides its model, by status."""

_ERROR_SCHEMA = {"$ref": "#/components/schemas/ErrorAnswer"}


def _error(description: str) -> dict[str, Any]:
    """An error of a route.

    It names its schema only: FastAPI would compile a `model` for each route and status, at each
    cold start.
    """
    return {
        "description": description,
        "content": {"application/json": {"schema": _ERROR_SCHEMA}},
    }


NOT_FOUND: Responses = {404: _error("The item is not in the catalogue.")}
CHANGED: Responses = {409: _error("The rules have another version by now.")}
NO_RELEASE: Responses = {404: _error("There is no such release.")}
UNCHANGED: Responses = {304: {"description": "The answer still has the tag in If-None-Match."}}
REFUSED: Responses = {
    401: _error("The caller is unknown. Only if the service checks callers."),
    403: _error("The caller may not do this, or not for this user."),
    429: _error("Too many requests with one API key; see Retry-After."),
}
ERRORS: Responses = REFUSED | {
    422: _error("A field breaks its rule; the message names both."),
    503: _error("No answer is possible now; see Retry-After."),
}
