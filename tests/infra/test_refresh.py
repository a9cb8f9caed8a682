"""Runs the refresh's state machine: its retries and reports."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.sns import sns_backends

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "infra" / "refresh.asl.json").read_text()
ROLE = "arn:aws:iam::123456789012:role/refresh"
ATTEMPTS = 6
SECONDS = 60.0
"""Timeout after which a test fails rather than hangs."""


def task(stop: str, reason: str, exit_code: int | None = None) -> str:
    """The cause of a task that stopped, as ECS describes it."""
    container = {"Name": "batch", "LastStatus": "STOPPED"} | (
        {} if exit_code is None else {"ExitCode": exit_code}
    )
    return json.dumps(
        {
            "StopCode": stop,
            "StoppedReason": reason,
            "Containers": [container],
            "LastStatus": "STOPPED",
        }
    )


def ended(exit_code: int) -> tuple[str, str]:
    """A container that ended by itself."""
    return "States.TaskFailed", task(
        "EssentialContainerExited", "Essential container in task exited", exit_code
    )


SPOT = ("States.TaskFailed", task("SpotInterruption", "Your Spot Task was interrupted."))
NO_CAPACITY = (
    "States.TaskFailed",
    task("TaskFailedToStart", "Capacity is unavailable at this time. Please try again later"),
)
NO_IMAGE = (
    "States.TaskFailed",
    task("TaskFailedToStart", "CannotPullContainerError: pull image manifest: not found"),
)


@pytest.fixture
def client() -> Iterator[Any]:
    """Step Functions that runs what it is given."""
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        opened = boto3.client(
            "stepfunctions",
            region_name="us-east-1",
            aws_access_key_id="t",
            aws_secret_access_key="t",  # noqa: S106
        )
        yield opened
        opened.close()


def machine(topic: str, failures: list[tuple[str, str]]) -> str:
    """The definition without waits, whose task first fails as given."""
    definition = json.loads(TEXT.replace("${AlarmTopic}", topic).replace("${Stage}", "dev"))
    states = definition["States"]
    [catcher] = states["Refresh"]["Catch"]
    assert catcher["ErrorEquals"] == ["States.ALL"]
    then = {"Type": "Pass", "ResultPath": catcher["ResultPath"], "Next": catcher["Next"]}
    fails = {
        f"Attempt {at}": then | {"Result": {"Error": e, "Cause": c}}
        for at, (e, c) in enumerate(failures, 1)
    }
    turns = [
        {"Variable": "$.attempt", "NumericEquals": at, "Next": name}
        for at, name in enumerate(fails, 1)
    ]
    states["Refresh"] = {"Type": "Choice", "Choices": turns, "Default": "Published"}
    states["Wait"] = {"Type": "Wait", "Seconds": 0, "Next": "Refresh"}
    definition["States"] = states | fails | {"Published": {"Type": "Succeed"}}
    return json.dumps(definition)


def run(client: Any, failures: list[tuple[str, str]]) -> tuple[str, list[str]]:
    """How an execution ends, and what is published."""
    sns = boto3.client(
        "sns",
        region_name="us-east-1",
        aws_access_key_id="t",
        aws_secret_access_key="t",  # noqa: S106
    )
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    definition = machine(topic, failures)
    arn = client.create_state_machine(
        name=f"refresh-{uuid.uuid4().hex}", definition=definition, roleArn=ROLE
    )["stateMachineArn"]
    running = set(threading.enumerate())
    execution = client.start_execution(stateMachineArn=arn, name="monday")["executionArn"]
    for interpreter in set(threading.enumerate()) - running:
        interpreter.join(SECONDS)
        assert not interpreter.is_alive()
    while (status := client.describe_execution(executionArn=execution)["status"]) == "RUNNING":
        pass  # another of its threads writes the end
    sns.close()
    return status, [
        sent[1]
        for sent in sns_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].topics[topic].sent_notifications
    ]


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (ended(1), "The release was refused by a check, or the batch is broken (exit status 1)."),
        (
            ended(2),
            "A setting, a table or the work directory breaks a rule (exit status 2): mend it.",
        ),
        (
            ended(137),
            (
                "The batch was killed (exit status 137), "
                "as it is when it needs more memory than BatchMemory."
            ),
        ),
        (ended(9), "The batch ended with exit status 9."),
        (
            NO_IMAGE,
            "The task did not start: CannotPullContainerError: pull image manifest: not found.",
        ),
        (
            ("States.TaskFailed", task("UserInitiated", "stopped by hand")),
            "The task was stopped: stopped by hand.",
        ),
        (("States.Timeout", ""), "The task ran longer than four hours, and was stopped."),
        (
            ("ECS.ClusterNotFoundException", "Cluster not found."),
            "ECS did not start the task (ECS.ClusterNotFoundException): Cluster not found..",
        ),
        (
            ("ECS.InvalidParameterException", "{half a"),
            "ECS did not start the task (ECS.InvalidParameterException): {half a.",
        ),
        (
            ("AmazonECS.Unknown", "RESOURCE:CPU"),
            "ECS did not start the task (AmazonECS.Unknown): RESOURCE:CPU.",
        ),
        (
            ("States.Permissions", "not authorized to ecs:RunTask"),
            (
                "Step Functions could not run the task (States.Permissions): "
                "not authorized to ecs:RunTask."
            ),
        ),
        (
            ("States.TaskFailed", "no JSON"),
            "Step Functions could not run the task (States.TaskFailed): no JSON.",
        ),
        (
            ("States.TaskFailed", "[1, 2]"),
            "Step Functions could not run the task (States.TaskFailed): [1, 2].",
        ),
        (
            ("States.TaskFailed", "{}"),
            "Step Functions could not run the task (States.TaskFailed): {}.",
        ),
        (
            ("States.TaskFailed", '{"Containers": []}'),
            'Step Functions could not run the task (States.TaskFailed): {"Containers": []}.',
        ),
    ],
)
def test_permanent_failure_is_reported_at_once(client, failure, sentence) -> None:
    """One message, in words, with the cause."""
    status, messages = run(client, [failure])
    assert (status, len(messages)) == ("FAILED", 1)
    assert messages[0].startswith(f"Execution monday: {sentence} The old release goes on serving.")


@pytest.mark.parametrize("failure", [ended(75), SPOT, NO_CAPACITY])
def test_what_may_pass_is_tried_again(client, failure) -> None:
    """And nobody hears of it when the next attempt publishes."""
    assert run(client, [failure]) == ("SUCCEEDED", [])


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (ended(75), "another batch is at work"),
        (SPOT, "Spot took"),
        (NO_CAPACITY, "Capacity is unavailable"),
    ],
)
def test_lasting_failure_is_reported_after_six(client, failure, sentence) -> None:
    """Five more than the first."""
    assert run(client, [failure] * (ATTEMPTS - 1)) == ("SUCCEEDED", [])
    status, [message] = run(client, [failure] * ATTEMPTS)
    assert (status, sentence in message) == ("FAILED", True)


def test_attempts_are_ever_further_apart() -> None:
    """A minute, then twice as long each time: half an hour in all, enough for a batch to end."""
    states = json.loads(TEXT)["States"]
    assert states["First attempt"]["Result"] == {"attempt": 1, "wait": 30}
    assert states["Count the attempt"]["Parameters"]["wait.$"] == "States.MathAdd($.wait, $.wait)"
    assert states["Wait"]["SecondsPath"] == "$.wait"


def test_ecs_errors_are_retried_first() -> None:
    """Throttling, a server's fault, and no capacity for the moment."""
    [rule] = json.loads(TEXT)["States"]["Refresh"]["Retry"]
    assert {"ECS.AmazonECSException", "ECS.ServerException", "ECS.ThrottlingException"} <= set(
        rule["ErrorEquals"]
    )
