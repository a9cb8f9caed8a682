"""Checks the template: least privilege, names, and access strings.

Names differ by stage, and the access strings are valid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shortlist.batch import exit_status
from shortlist.batch.drain import drain
from shortlist.recsys.api_keys import SCOPES
from shortlist.recsys.errors import InvalidSettings, StoreUnavailable
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.counts import CountLog, Hash
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import EventRecord, ItemRecord, ReleasePointer, UserRecord
from tests.template import RESOURCES, TEMPLATE

ROOT = Path(__file__).parents[2]
NAMELESS = {
    "ecr:GetAuthorizationToken",
    *(f"logs:{verb}LogDelivery" for verb in ("Create", "Get", "Update", "Delete")),
    *(
        "logs:ListLogDeliveries",
        "logs:PutResourcePolicy",
        "logs:DescribeResourcePolicies",
        "logs:DescribeLogGroups",
    ),
    *(
        f"ec2:{verb}"
        for verb in ("CreateNetworkInterface", "DescribeNetworkInterfaces", "DescribeSubnets")
    ),
    *(
        f"ec2:{verb}"
        for verb in (
            "DeleteNetworkInterface",
            "AssignPrivateIpAddresses",
            "UnassignPrivateIpAddresses",
        )
    ),
}
"""Actions that name no resource, or that AWS's documentation asks to be given on all."""

NAMES = re.compile(
    r"^(Name|Family|\w*(Function|Topic|Queue|Cluster|Repository|LogGroup|Cache|Dashboard|Alarm|Role)Name|User(Group)?Id)$"
)


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement of the roles' policies, conditional ones too."""
    for name, resource in RESOURCES.items():
        for policy in resource["Properties"].get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement["Fn::If"][1] if "Fn::If" in statement else statement


def listed(value: object) -> list[Any]:
    """The value as a list."""
    return value if isinstance(value, list) else [value]


def test_no_role_may_do_everything() -> None:
    """No policy names an action by a wildcard, and all policies are written out here."""
    assert [(name, a) for name, s in statements() for a in listed(s["Action"]) if "*" in a] == []
    assert [name for name, r in RESOURCES.items() if "ManagedPolicyArns" in r["Properties"]] == []


def test_no_role_may_touch_every_resource() -> None:
    """Where AWS lets a resource be named, it is."""
    broad = [
        (name, s)
        for name, s in statements()
        if "*" in listed(s["Resource"]) and s["Effect"] == "Allow"
    ]
    assert [(name, a) for name, s in broad for a in listed(s["Action"]) if a not in NAMELESS] == []


def test_each_role_trusts_one_service() -> None:
    """Each role trusts one service."""
    trusted = {
        name: [
            s["Principal"]["Service"]
            for s in r["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        ]
        for name, r in RESOURCES.items()
        if r["Type"] == "AWS::IAM::Role"
    }
    assert trusted == {
        "KeyCheckRole": ["lambda.amazonaws.com"],
        "ServeRole": ["lambda.amazonaws.com"],
        "BatchStartRole": ["ecs-tasks.amazonaws.com"],
        "BatchRole": ["ecs-tasks.amazonaws.com"],
        "RefreshRole": ["states.amazonaws.com"],
        "ScheduleRole": ["scheduler.amazonaws.com"],
    }


def test_stages_share_no_name() -> None:
    """Every name that the template chooses holds the stage, so that stages do not collide."""
    chosen = [
        (name, key, value)
        for name, resource in RESOURCES.items()
        for key, value in resource["Properties"].items()
        if NAMES.match(key)
        and not isinstance(value, dict | list) | ("Fn::Sub" in value and "${Stage}" in str(value))
    ]
    assert [c for c in chosen if c[0] != "ServeAliasLive" and c[2] != "$default"] == []


def test_bucket_is_kept_and_private() -> None:
    """The bucket is kept, versioned, encrypted, private, and speaks TLS alone."""
    bucket = RESOURCES["Artefacts"]
    properties = bucket["Properties"]
    assert (bucket["DeletionPolicy"], properties["VersioningConfiguration"]["Status"]) == (
        "Retain",
        "Enabled",
    )
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    statement = RESOURCES["ArtefactsPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert (statement["Effect"], statement["Condition"]) == (
        "Deny",
        {"Bool": {"aws:SecureTransport": "false"}},
    )


def test_every_route_but_health_is_authorised() -> None:
    """Nobody gets recommendations without a signature, a token or a key."""
    routes = [
        (r["Properties"], r.get("Condition"))
        for r in RESOURCES.values()
        if r["Type"] == "AWS::ApiGatewayV2::Route"
    ]
    assert [
        (route["RouteKey"], route["AuthorizationType"], condition) for route, condition in routes
    ] == [
        ("ANY /{proxy+}", "AWS_IAM", "UseIam"),
        ("ANY /{proxy+}", "JWT", "UseJwt"),
        ("ANY /{proxy+}", "CUSTOM", "UseKey"),
        ("OPTIONS /{proxy+}", "NONE", "HasCors"),
        ("GET /health", "NONE", None),
    ]
    allowed = TEMPLATE["Parameters"]["Authorization"]["AllowedValues"]
    conditions = [
        TEMPLATE["Conditions"][name]["Fn::Equals"][1] for name in ("UseIam", "UseJwt", "UseKey")
    ]
    assert (allowed, conditions) == (["AWS_IAM", "JWT", "API_KEY"],) * 2


@pytest.mark.parametrize(
    ("given", "authorised"),
    [
        ("a-key-of-one-caller", True),
        ("another-callers-key", True),
        ("a-key-of-one-calle", False),
        ("", False),
        ("ключ", False),
    ],
)
def test_a_key_is_compared_whole(monkeypatch, given, authorised) -> None:
    """The authorizer's own code, as the template has it, on an event of payload version 2.0."""
    monkeypatch.setenv("API_KEYS", "a-key-of-one-caller,another-callers-key")
    module: dict[str, Any] = {}
    exec(RESOURCES["KeyCheck"]["Properties"]["Code"]["ZipFile"], module)  # noqa: S102 - ours
    event = {
        "version": "2.0",
        "type": "REQUEST",
        "identitySource": [given],
        "headers": {"x-api-key": given},
    }
    verdict = module["handler"](event, None)
    assert verdict["isAuthorized"] == authorised
    assert verdict.get("context", {}).get("scope") == (ALL if authorised else None)


ALL = "shortlist/delete shortlist/events shortlist/operations shortlist/read"
"""What a key alone may do."""


@pytest.mark.parametrize(
    ("given", "context"),
    [
        ("the-key-of-the-shop", {"key_name": "shop", "scope": "shortlist/events shortlist/read"}),
        ("the:key:of:the:ops", {"key_name": "ops", "scope": "shortlist/admin"}),
        ("0123456789abcdef", {"key_name": "", "scope": ALL}),
        ("shop:read+events:the-key-of-the-shop", None),
        ("read+events", None),
    ],
)
def test_a_key_may_have_scopes(monkeypatch, given, context) -> None:
    """They reach the function in the authorizer's context; a key alone has all but admin."""
    entries = "shop:read+events:the-key-of-the-shop,ops:admin:the:key:of:the:ops,0123456789abcdef"
    assert re.fullmatch(TEMPLATE["Parameters"]["ApiKeys"]["AllowedPattern"], entries)
    monkeypatch.setenv("API_KEYS", entries)
    module: dict[str, Any] = {}
    exec(RESOURCES["KeyCheck"]["Properties"]["Code"]["ZipFile"], module)  # noqa: S102 - ours
    verdict = module["handler"]({"identitySource": [given]}, None)
    assert verdict == (
        {"isAuthorized": False} if context is None else {"isAuthorized": True, "context": context}
    )


def test_function_enforces_the_authorizer() -> None:
    """Tokens to their user, keys to their scopes, which authorizer and function share."""
    variables = RESOURCES["Serve"]["Properties"]["Environment"]["Variables"]
    claim = variables["SHORTLIST_JWT_USER_CLAIM"]["Fn::If"]
    assert claim[:2] == ["BindsTokens", {"Ref": "JwtUserClaim"}]
    assert claim[2]["Fn::If"][:2] == ["UseKey", "user_id"]
    assert TEMPLATE["Parameters"]["JwtUserClaim"]["Default"] == "sub"
    code = RESOURCES["KeyCheck"]["Properties"]["Code"]["ZipFile"]
    assert set(re.search(r"SCOPES = {(.*)}", code)[1].replace('"', "").split(", ")) == set(SCOPES)


def test_base_path_passes_the_setting() -> None:
    """What CloudFormation takes as usual forms, the function does not refuse at its start."""
    pattern = TEMPLATE["Parameters"]["BasePath"]["AllowedPattern"]
    for text in ("rec", "rec/prod", "rec,prod"):
        assert re.fullmatch(pattern, text)
        assert Settings.from_env({"SHORTLIST_BASE_PATH": text}).base_paths != ()


def test_authorizer_may_be_invoked() -> None:
    """It gets the header alone, answers in the simple form, and only this API may invoke it."""
    authorizer = RESOURCES["KeyAuthorizer"]["Properties"]
    assert (authorizer["IdentitySource"], authorizer["AuthorizerPayloadFormatVersion"]) == (
        ["$request.header.X-Api-Key"],
        "2.0",
    )
    assert (
        authorizer["EnableSimpleResponses"],
        "${KeyCheck.Arn}/invocations" in authorizer["AuthorizerUri"]["Fn::Sub"],
    ) == (True, True)
    permission = RESOURCES["ApiMayCheckKeys"]["Properties"]
    assert (permission["FunctionName"], permission["Principal"]) == (
        {"Ref": "KeyCheck"},
        "apigateway.amazonaws.com",
    )
    assert permission["SourceArn"]["Fn::Sub"].endswith(":${HttpApi}/authorizers/${KeyAuthorizer}")


@pytest.mark.parametrize(
    ("keys", "taken"),
    [("", True), ("0123456789abcdef", True), (f"{'a' * 64},{'b' * 16}", True)]
    + [(f"shop:read+delete:{'a' * 16}", True), (f"{'b' * 16},a.b:admin:{'a:' * 8}", True)]
    + [
        (bad, False)
        for bad in (
            "short",
            f"{'a' * 16},",
            f"{'a' * 16},short",
            f"{'a' * 16} {'b' * 16}",
            "é" * 16,
            "shop:read+delete:abc",
            f"shop:raed:{'a' * 16}",
            f"shop:read+:{'a' * 16}",
            f":read:{'a' * 16}",
            f"shop:read:{'a' * 16},",
            f"shop:read:{'a' * 16},b:read:short",
        )
    ],
)
def test_unusable_keys_are_refused(keys, taken) -> None:
    """CloudFormation matches the whole value with the pattern."""
    assert bool(re.fullmatch(TEMPLATE["Parameters"]["ApiKeys"]["AllowedPattern"], keys)) == taken


def test_a_key_stands_once(monkeypatch) -> None:
    """Two entries with one key are refused at the start: which of their scopes hold?"""
    key = "0123456789abcdef"
    monkeypatch.setenv("API_KEYS", f"shop:read:{key},ops:admin:{key}")
    with pytest.raises(ValueError, match="ApiKeys has a key twice"):
        exec(RESOURCES["KeyCheck"]["Properties"]["Code"]["ZipFile"], {})  # noqa: S102 - ours


@pytest.mark.parametrize(
    "key",
    [
        "",
        "0123456789abcdef",
        "four words in all",
        "short",
        "é" * 16,
        f" {'a' * 16}",
        f"{'a' * 16} ",
    ],
)
def test_admin_key_passes_the_setting(key) -> None:
    """CloudFormation refuses what would fail the function at its start."""
    taken = bool(re.fullmatch(TEMPLATE["Parameters"]["AdminKey"]["AllowedPattern"], key))
    try:
        Settings.from_env({"SHORTLIST_ADMIN_KEY": key} if key else {})
    except InvalidSettings:
        assert not taken
    else:
        assert taken


def given(condition: Any, parameters: dict[str, str]) -> Any:
    """The value of a rule's function for these parameters."""
    if not isinstance(condition, dict):
        return condition
    (name, argument), *_ = condition.items()
    if name == "Ref":
        return parameters[argument]
    first, *others = [given(each, parameters) for each in argument]
    match name:
        case "Fn::Not":
            return not first
        case "Fn::Equals":
            return first == others[0]
        case "Fn::Contains":
            return others[0] in first
    raise AssertionError(name)


def refused_by(**parameters: str) -> list[str]:
    """What CloudFormation says of parameters before it creates anything."""
    known = {name: str(each.get("Default", "")) for name, each in TEMPLATE["Parameters"].items()}
    known |= parameters
    return [
        assertion["AssertDescription"]
        for rule in TEMPLATE["Rules"].values()
        if given(rule["RuleCondition"], known)
        for assertion in rule["Assertions"]
        if not given(assertion["Assert"], known)
    ]


# Megabytes that Fargate takes with each number of CPU units: least, most and the step between.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
FARGATE = {
    2048: range(4096, 16384 + 1, 1024),
    4096: range(8192, 30720 + 1, 1024),
    8192: range(16384, 61440 + 1, 4096),
    16384: range(32768, 122880 + 1, 8192),
}


def test_fargate_has_the_size() -> None:
    """Of the sizes that may be given, exactly those are refused that Fargate does not have."""
    parameters = TEMPLATE["Parameters"]
    for cpu in parameters["BatchCpu"]["AllowedValues"]:
        for memory in parameters["BatchMemory"]["AllowedValues"]:
            is_refused = refused_by(BatchCpu=cpu, BatchMemory=memory) != []
            assert is_refused == (int(memory) not in FARGATE[int(cpu)]), (cpu, memory)


def test_a_network_is_given_whole() -> None:
    """A network without its subnets, or the other way about, is refused before anything is made."""
    assert refused_by() == []
    assert refused_by(ExistingVpcId="vpc-1", ExistingSubnetIds="a,b") == []
    assert refused_by(ExistingVpcId="vpc-1") == ["ExistingVpcId needs ExistingSubnetIds"]
    assert refused_by(ExistingSubnetIds="a,b") == ["ExistingSubnetIds needs ExistingVpcId"]


def test_the_network_has_no_way_out() -> None:
    """Neither an internet gateway nor a NAT gateway: they would cost more than the function."""
    kinds = {r["Type"] for r in RESOURCES.values()}
    assert kinds & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway"} == set()


def test_a_stale_release_rings() -> None:
    """No success in 26 hours raises the alarm, and so does no run at all."""
    alarm = RESOURCES["Stale"]["Properties"]
    assert TEMPLATE["Parameters"]["StaleAfterHours"]["Default"] == 26
    assert (alarm["Period"], alarm["EvaluationPeriods"], alarm["TreatMissingData"]) == (
        3600,
        {"Ref": "StaleAfterHours"},
        "breaching",
    )


def test_no_log_names_a_user() -> None:
    """Logs hold no paths, which name users, and no data; and none keeps its lines for ever."""
    formats = [
        r["Properties"]["AccessLogSettings"]["Format"]
        for r in RESOURCES.values()
        if "AccessLogSettings" in r["Properties"]
    ]
    named = {name for text in formats for name in re.findall(r"\$context\.([\w.]+)", text)}
    assert len(formats) == 1
    assert named == {
        "requestId",
        "requestTime",
        "httpMethod",
        "routeKey",
        "status",
        "responseLatency",
        "integrationLatency",
        "identity.sourceIp",
        "integrationErrorMessage",
    }
    assert all("$request" not in text for text in formats)
    assert RESOURCES["Refresh"]["Properties"]["Logging"]["IncludeExecutionData"] is False
    groups = [r["Properties"] for r in RESOURCES.values() if r["Type"] == "AWS::Logs::LogGroup"]
    assert {group["RetentionInDays"] for group in groups} == {30}


def test_schedules_use_the_scheduler() -> None:
    """No rules of EventBridge; the handler answers the warm-up, which is not retried late."""
    assert {r["Type"] for r in RESOURCES.values()} & {"AWS::Events::Rule"} == set()
    schedule = RESOURCES["KeepWarm"]
    target = schedule["Properties"]["Target"]
    assert (schedule["Type"], schedule["Condition"]) == ("AWS::Scheduler::Schedule", "HasWarmUp")
    assert (target["Arn"], json.loads(target["Input"])) == (
        {"Ref": "Serve.Alias"},
        {"source": "aws.scheduler", "warmup": True},
    )
    invoke = next(s for name, s in statements() if (name, s["Sid"]) == ("ScheduleRole", "Warm"))
    assert invoke["Resource"]["Fn::Sub"].endswith("function:shortlist-${Stage}-serve:live")


@pytest.mark.parametrize(
    ("schedule", "taken"),
    [
        ("", True),
        ("rate(5 minutes)", True),
        ("cron(0/5 6-22 * * ? *)", True),
        ("5 minutes", False),
        ("rate()", False),
    ],
)
def test_warm_up_is_expression_or_none(schedule, taken) -> None:
    """CloudFormation matches the whole value with the pattern."""
    assert bool(re.fullmatch(TEMPLATE["Parameters"]["WarmUp"]["AllowedPattern"], schedule)) == taken


def test_a_stream_that_fills_rings() -> None:
    """Half-way to the bound beyond which events are refused, from the function's log."""
    counted = RESOURCES["WaitingEvents"]["Properties"]
    [transformation] = counted["MetricTransformations"]
    assert (counted["FilterPattern"], transformation["MetricValue"]) == (
        "{ $.shortlist_events_waiting >= 0 }",
        "$.shortlist_events_waiting",
    )
    alarm = RESOURCES["StreamFilling"]["Properties"]
    assert (alarm["MetricName"], alarm["Namespace"]) == (
        transformation["MetricName"],
        transformation["MetricNamespace"],
    )
    assert (alarm["Statistic"], alarm["Threshold"]) == ("Maximum", 1_000_000)


def test_every_alarm_tells_somebody() -> None:
    """No alarm rings unheard."""
    alarms = {
        name: r["Properties"]
        for name, r in RESOURCES.items()
        if r["Type"] == "AWS::CloudWatch::Alarm"
    }
    assert {
        name
        for name, alarm in alarms.items()
        if alarm.get("AlarmActions") != [{"Ref": "AlarmTopic"}]
    } == set()


def test_alarms_roll_a_version_back() -> None:
    """A canary deployment watches the API's failures, and the live alias's errors and latency."""
    preference = RESOURCES["Serve"]["Properties"]["DeploymentPreference"]
    assert preference["Alarms"] == [
        {"Ref": "ApiFails"},
        {"Ref": "ServeFails"},
        {"Ref": "ServeSlow"},
    ]
    for name in ("ServeFails", "ServeSlow"):
        assert {d["Name"] for d in RESOURCES[name]["Properties"]["Dimensions"]} == {
            "FunctionName",
            "Resource",
        }


def states() -> dict[str, Any]:
    """The refresh's states."""
    return json.loads((ROOT / "infra" / "refresh.asl.json").read_text())["States"]


def nexts(state: dict[str, Any]) -> set[str]:
    """The states that may follow."""
    rules = [state, *state.get("Choices", []), *state.get("Catch", [])]
    return {t["Next"] for t in rules if "Next" in t} | (
        {state["Default"]} if "Default" in state else set()
    )


def test_every_state_is_reached_and_left() -> None:
    """No state is lost, none points nowhere, and every way ends in success or in Failed."""
    known = states()
    reached = {"First attempt"}
    while grown := {n for name in reached for n in nexts(known[name])} - reached:
        reached |= grown
    assert reached == set(known)
    assert {name for name, s in known.items() if s.get("End") or s["Type"] == "Fail"} == {
        "Refresh",
        "Failed",
    }


def test_every_batch_failure_is_caught() -> None:
    """Whatever goes wrong in the task leads to another attempt or to a message."""
    caught = [error for rule in states()["Refresh"]["Catch"] for error in rule["ErrorEquals"]]
    assert caught == ["States.ALL"]
    assert nexts(states()["Tell"]) == {"Failed"}


def test_the_refresh_gets_what_it_names() -> None:
    """Each placeholder of the state machine is filled by the template, and nothing else is."""
    named = set(re.findall(r"\$\{(\w+)\}", (ROOT / "infra" / "refresh.asl.json").read_text()))
    assert named == set(RESOURCES["Refresh"]["Properties"]["DefinitionSubstitutions"])


def test_the_dashboard_is_json() -> None:
    """CloudWatch would refuse another body only when it is deployed."""
    body = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    assert len(json.loads(re.sub(r"\$\{\w+\}", "x", body))["widgets"]) == 6


def test_the_batch_may_publish(store_of) -> None:
    """Everything that a release needs is written and read back under the batch's access string."""
    store = store_of("CacheBatchUser")
    store.ping()
    store.write_items("v1", [(0, ItemRecord("i", "Title"))])
    assert store.write_lists("v1", [("u", b"list")]) == 1
    assert store.merge_users([("u", UserRecord(n_events=1))], 0) == 1
    store.write_popular("v1", b"popular")
    assert (store.lists("v1", ["u"]), store.popular("v1"), store.rows_of("v1", ["i"])) == (
        [b"list"],
        b"popular",
        ([0], True),
    )
    store.set_release(ReleasePointer("v1"))
    assert store.release() == ReleasePointer("v1")


def test_batch_may_not_read_live_results(store_of) -> None:
    """Live results are between the API and its caller."""
    with pytest.raises(StoreUnavailable, match=r"[Nn]o permissions"):
        store_of("CacheBatchUser").live("v1", "u", "digest")


def test_api_may_look_up_and_cache(store_of) -> None:
    """All reads of the handler, and the writes that are its own."""
    batch = store_of("CacheBatchUser")
    batch.set_release(ReleasePointer("v1"))
    batch.merge_users([("u", UserRecord(n_events=2))], 0)
    store = store_of("CacheApiUser")
    assert store.release() == ReleasePointer("v1")
    store.read_user("v1", "u")
    assert store.items("v1", [7]) == [None]
    assert store.blocked() == frozenset()
    store.write_live("v1", "u", "digest", b"answer", 60, store.user_record("u"))
    assert store.live("v1", "u", "digest") == b"answer"


def test_batch_may_drain_events(store_of, tmp_path) -> None:
    """The API appends to the stream; the batch empties it, and leaves out whom the API deleted."""
    api, batch = EventLog(store_of("CacheApiUser")), EventLog(store_of("CacheBatchUser"))
    api.append([EventRecord("e1", "u", "i", 1), EventRecord("e2", "gone", "i", 1)])
    AdminStore(api.store).delete_user("gone", 1)
    done = drain(batch, open_event_files(str(tmp_path)))
    assert (done.events, api.length()) == (1, 0)


def test_api_counts_and_batch_reads(store_of) -> None:
    """Features of live answers and impressions; the batch writes neither."""
    api, batch = CountLog(store_of("CacheApiUser")), CountLog(store_of("CacheBatchUser"))
    keys = api.store.keys
    hashes = [Hash(key, 60) for key in (keys.skew("v1"), keys.impressions("2026-08-01"))]
    for counted in hashes:
        api.add({counted: {"field": 2}})
        assert batch.read(counted.key) == {"field": 2}
        with pytest.raises(StoreUnavailable, match=r"[Nn]o permissions"):
            batch.add({counted: {"field": 1}})


def test_api_may_remove_a_list(store_of) -> None:
    """Which is all that it may do to a list, besides reading it."""
    store_of("CacheBatchUser").write_lists("v1", [("u", b"list")])
    store = store_of("CacheApiUser")
    assert store.redis.delete(store.keys.list("v1", "u")) == 1
    assert store.lists("v1", ["u"]) == [None]


@pytest.mark.parametrize("write", ["lists", "items", "popular", "release"])
def test_api_may_not_write_a_release(store_of, write) -> None:
    """A flaw in what faces the world cannot change what others are shown."""
    store = store_of("CacheApiUser")
    writes = {
        "lists": lambda: store.write_lists("v1", [("u", b"forged")]),
        "items": lambda: store.write_items("v1", [(0, ItemRecord("i", "forged"))]),
        "popular": lambda: store.write_popular("v1", b"forged"),
        "release": lambda: store.set_release(ReleasePointer("forged")),
    }
    with pytest.raises(StoreUnavailable, match=r"[Nn]o permissions"):
        writes[write]()


def test_admin_key_lets_the_api_flip(store_of) -> None:
    """And write no list all the same."""
    store = store_of("CacheApiUser", with_admin=True)
    store.set_release(ReleasePointer("v1"))
    assert store.release() == ReleasePointer("v1")
    with pytest.raises(StoreUnavailable, match=r"[Nn]o permissions"):
        store.write_lists("v1", [("u", b"forged")])


def test_guide_has_parameters_and_outputs() -> None:
    """Each parameter is explained, and the guide names only outputs that exist."""
    guide = (ROOT / "docs" / "deploy.md").read_text()
    assert {name for name in TEMPLATE["Parameters"] if f"`{name}`" not in guide} == set()
    assert set(re.findall(r"\$\(out (\w+)\)", guide)) <= set(TEMPLATE["Outputs"])


def test_guide_explains_exit_statuses() -> None:
    """The statuses that Step Functions acts on are those of the container."""
    guide = (ROOT / "docs" / "deploy.md").read_text()
    assert all(
        f"| {status}" in guide
        for status in (exit_status.DONE, exit_status.FAILED, exit_status.INVALID, exit_status.AGAIN)
    )
    text = json.dumps(states()["Does another attempt help?"])
    retried = [int(status) for status in re.findall(r'"NumericEquals": (\d+)', text)]
    assert retried == [exit_status.AGAIN]


def test_the_tasks_variables_are_read() -> None:
    """The code knows each variable that the template gives to the container or the function."""
    variables = RESOURCES["BatchTask"]["Properties"]["ContainerDefinitions"][0]["Environment"]
    named = {(t["Fn::If"][1] if "Fn::If" in t else t)["Name"] for t in variables}
    named |= set(RESOURCES["Serve"]["Properties"]["Environment"]["Variables"])
    code = (ROOT / "batch" / "container.py").read_text() + (
        ROOT / "recsys" / "settings.py"
    ).read_text()
    assert {name for name in named if f'"{name}"' not in code} == set()
