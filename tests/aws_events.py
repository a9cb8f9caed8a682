"""Builds the events that AWS makes of one HTTP request.

`EVENT_BUILDERS` has a builder for each entry point by which a request reaches the function. Each
takes a method, a request target (path and query as in the request line) and a JSON body.

The entry points decode differently, as others captured on AWS: HTTP APIs decode the path, in both
payload versions, and cut it at an encoded question mark; REST APIs, load balancers and function
URLs leave it as sent. REST APIs and payload 1.0 decode query parameters; load balancers do not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

Event = dict[str, Any]

HOST = "example.execute-api.us-east-1.amazonaws.com"


def _split(target: str) -> tuple[str, str]:
    path, _, query = target.partition("?")
    return path, query


def _decoded_path(target: str) -> str:
    return unquote(_split(target)[0]).partition("?")[0]


def _payload_2(method: str, path: str, query: str, domain: str, body: object) -> Event:
    event: Event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"content-type": "application/json", "host": domain},
        "requestContext": {
            "domainName": domain,
            "requestId": "request",
            "stage": "$default",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
            },
        },
        "isBase64Encoded": False,
    }
    return event if body is None else event | {"body": json.dumps(body)}


def http_api(method: str, target: str, body: object = None) -> Event:
    """An HTTP API with payload 2.0."""
    return _payload_2(method, _decoded_path(target), _split(target)[1], HOST, body)


def function_url(method: str, target: str, body: object = None) -> Event:
    """A function URL."""
    path, query = _split(target)
    return _payload_2(method, path, query, "abc123.lambda-url.us-east-1.on.aws", body)


def _payload_1(method: str, path: str, query: str, body: object) -> Event:
    parameters: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters.setdefault(name, []).append(value)
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": {"content-type": "application/json", "Host": HOST},
        "multiValueHeaders": {"content-type": ["application/json"], "Host": [HOST]},
        "queryStringParameters": {name: values[-1] for name, values in parameters.items()} or None,
        "multiValueQueryStringParameters": parameters or None,
        "requestContext": {
            "requestId": "request",
            "stage": "prod",
            "identity": {"sourceIp": "192.0.2.1"},
        },
        "body": None if body is None else base64.b64encode(json.dumps(body).encode()).decode(),
        "isBase64Encoded": body is not None,
    }


def rest_api(method: str, target: str, body: object = None) -> Event:
    """A REST API, here with bodies in base64."""
    path, query = _split(target)
    return _payload_1(method, path, query, body)


def http_api_1(method: str, target: str, body: object = None) -> Event:
    """An HTTP API with payload 1.0."""
    return _payload_1(method, _decoded_path(target), _split(target)[1], body) | {"version": "1.0"}


def _load_balanced(method: str, target: str, body: object) -> Event:
    return {
        "requestContext": {
            "elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/a/b"}
        },
        "httpMethod": method,
        "path": _split(target)[0],
        "body": "" if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }


def load_balancer(method: str, target: str, body: object = None) -> Event:
    """A load balancer, which passes on the last value of a repeated parameter."""
    parameters = {}
    for part in _split(target)[1].split("&"):
        name, _, value = part.partition("=")
        if part:
            parameters[name] = value
    headers = {
        "content-type": "application/json",
        "host": "lb.example",
        "x-forwarded-for": "192.0.2.1",
    }
    return _load_balanced(method, target, body) | {
        "headers": headers,
        "queryStringParameters": parameters,
    }


def load_balancer_many(method: str, target: str, body: object = None) -> Event:
    """A load balancer with multi-value headers."""
    parameters: dict[str, list[str]] = {}
    for part in _split(target)[1].split("&"):
        name, _, value = part.partition("=")
        if name:
            parameters.setdefault(name, []).append(value)
    headers = {
        "content-type": ["application/json"],
        "host": ["lb.example"],
        "x-forwarded-for": ["192.0.2.1"],
    }
    return _load_balanced(method, target, body) | {
        "multiValueHeaders": headers,
        "multiValueQueryStringParameters": parameters,
    }


EVENT_BUILDERS: dict[str, Callable[..., Event]] = {
    "http-api": http_api,
    "http-api-1": http_api_1,
    "rest-api": rest_api,
    "function-url": function_url,
    "load-balancer": load_balancer,
    "load-balancer-many": load_balancer_many,
}
