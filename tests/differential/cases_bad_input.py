"""Bodies, headers and strings that no honest client sends; each goes to several endpoints."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import replace

from tests.differential.harness import RUN, Case, Request
from tests.differential.requests_of import (
    cases,
    create,
    delete_tag,
    get_run,
    log_batch,
    log_metric,
    log_param,
    metric,
    pairs,
    set_tag,
    update,
)

JSON = {"Content-Type": "application/json"}
GOOD = json.dumps(log_metric().body)
GZIPPED = gzip.compress(GOOD.encode(), mtime=0)

BODIES: dict[str, str | bytes | None] = {
    "none": None,
    "empty": "",
    "blank": " \n",
    "an empty object": "{}",
    "null": "null",
    "an empty list": "[]",
    "a list": '["run_id"]',
    "a list of an object": f"[{GOOD}]",
    "a string": '"run_id"',
    "an empty string": '""',
    "a number": "5",
    "a fraction": "1.5",
    "true": "true",
    "false": "false",
    "cut off": GOOD[:-5],
    "something after it": GOOD + "x",
    "two objects": GOOD + GOOD,
    "a comma too many": GOOD[:-1] + ",}",
    "single quotes": GOOD.replace('"', "'"),
    "a comment": "/* */" + GOOD,
    "a byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "UTF-16": GOOD.encode("utf-16"),
    "UTF-32": GOOD.encode("utf-32-le"),
    "no UTF-8": GOOD.encode().replace(b'"m"', b'"\xff\xfe"'),
    "cut UTF-8": GOOD.encode().replace(b'"m"', b'"\xc3"'),
    "overlong UTF-8": GOOD.encode().replace(b'"m"', b'"\xc0\xaf"'),
    "a surrogate in UTF-8": GOOD.encode().replace(b'"m"', b'"\xed\xa0\x80"'),
    "binary": bytes(range(256)),
    "gzip'd": GZIPPED,
    "a form": "run_id=1&key=m&value=1&timestamp=1",
    "nested lists": "[" * 20_000 + "]" * 20_000,
    "nested objects": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "nested in a field": f'{{"run_id": "{RUN}", "key": ' + "[" * 20_000 + "]" * 20_000 + "}",
    "nested in an unknown field": GOOD[:-1] + ', "x": ' + "[" * 20_000 + "]" * 20_000 + "}",
    "a little nested in an unknown field": GOOD[:-1] + ', "x": ' + "[" * 90 + "]" * 90 + "}",
    "nested, never closed": '{"a":[' * 20_000,
    "a key of 1 MB": '{"' + "k" * 1_000_000 + '": 1}',
    "white space of 1 MB": " " * 1_000_000 + GOOD,
    "a raw line end in a string": GOOD.replace('"m"', '"m\n"'),
    "a raw tab in a string": GOOD.replace('"m"', '"m\t"'),
    "a bad escape": GOOD.replace('"m"', r'"\x41"'),
    "a cut escape": GOOD.replace('"m"', r'"\u00"'),
    "an escaped key": GOOD.replace('"key"', r'"\u006bey"'),
    "a doubled key": GOOD[:-1] + ', "key": "n"}',
    "a doubled key, first of a wrong type": '{"key": 5, ' + GOOD[1:],
    "a doubled run": '{"run_id": "x", ' + GOOD[1:],
    "a doubled value": GOOD[:-1] + ', "value": 7}',
    "double-encoded": json.dumps(GOOD),
    "double-encoded and broken": json.dumps(GOOD[:-5]),
    "thrice encoded": json.dumps(json.dumps(GOOD)),
}

# What stands for the rest on the endpoints that decode a body the same way.
FEW = (
    "none",
    "an empty list",
    "a string",
    "a number",
    "cut off",
    "no UTF-8",
    "a surrogate in UTF-8",
    "nested lists",
    "nested in a field",
    "a doubled key",
    "double-encoded",
)


def bodies(endpoint: str, names: Iterable[str], method: str = "POST") -> dict[str, Request]:
    return {f"{endpoint}: {name}": Request(f"runs/{endpoint}", BODIES[name], method) for name in names}


BODY = cases(
    "any",
    bodies("log-metric", BODIES)
    | bodies("log-batch", BODIES)
    | bodies("get", BODIES, "GET")
    | bodies("create", FEW)
    | bodies("update", FEW)
    | bodies("log-parameter", FEW)
    | bodies("set-tag", FEW)
    | bodies("delete-tag", FEW),
)


def with_headers(**headers: str) -> Request:
    return replace(log_metric(), headers={k.replace("_", "-"): v for k, v in headers.items()})


HEADERS = cases(
    "any",
    {
        "no content type": with_headers(),
        "content type text": with_headers(Content_Type="text/plain"),
        "content type a form": with_headers(Content_Type="application/x-www-form-urlencoded"),
        "content type multipart": with_headers(Content_Type="multipart/form-data; boundary=x"),
        "content type octets": with_headers(Content_Type="application/octet-stream"),
        "content type of another JSON": with_headers(Content_Type="application/problem+json"),
        "content type with a charset": with_headers(Content_Type="application/json; charset=utf-8"),
        "content type with another charset": with_headers(Content_Type="application/json; charset=latin-1"),
        "content type in capitals": with_headers(Content_Type="Application/JSON"),
        "content type doubled": with_headers(Content_Type="application/json, text/plain"),
        "content type broken": with_headers(Content_Type="application"),
        "content type empty": with_headers(Content_Type=""),
        "gzip said, not done": with_headers(**JSON, Content_Encoding="gzip"),
        "gzip said and done": replace(log_metric(), body=GZIPPED, headers=JSON | {"Content-Encoding": "gzip"}),
        "workspace default": with_headers(**JSON, X_MLFLOW_WORKSPACE="default"),
        "workspace empty": with_headers(**JSON, X_MLFLOW_WORKSPACE=""),
        "workspace of another": with_headers(**JSON, X_MLFLOW_WORKSPACE="other"),
        "workspace odd": with_headers(**JSON, X_MLFLOW_WORKSPACE="../Other"),
        "accepts nothing known": with_headers(**JSON, Accept="image/png"),
        "accepts gzip": with_headers(**JSON, Accept_Encoding="gzip, br"),
        "a method in a header": with_headers(**JSON, X_HTTP_Method_Override="DELETE"),
        "an unknown host": with_headers(**JSON, Host="evil.example"),
        "a foreign origin": with_headers(**JSON, Origin="https://evil.example"),
        "a foreign origin to read": replace(get_run(), headers={"Origin": "https://evil.example"}),
        "a foreign origin as text": with_headers(Content_Type="text/plain", Origin="https://evil.example"),
        "its own origin": with_headers(**JSON, Origin="http://localhost:5000"),
        "a null origin": with_headers(**JSON, Origin="null"),
    },
)

# Text that a database, a protocol or a log may stumble over; \ud800 leaves here as a JSON escape.
NASTY = {
    "a NUL": "a\0b",
    "a NUL alone": "\0",
    "a lone high surrogate": "a\ud800b",
    "a lone low surrogate": "\udc00",
    "surrogates reversed": "\udc00\ud800",
    "control characters": "\x01\x1f\x7f\x85",
}
ODD = {
    "a pair of surrogates": "\ud83e\udd80",
    "not a character": "\uffff\ufffe",
    "the last character": "\U0010ffff",
    "right to left": "\u202eabc",
    "a byte order mark": "\ufeffa",
    "line separators": "a\u2028b\u2029",
    "SQL": "'; DROP TABLE runs; --",
    "HTML": "<script>alert(1)</script>&amp;",
    "formats": "%s %(a)s {0} {a} :name $1 ?",
    "a backslash": "\\ \\x00 \\u0000",
}


def main_texts(name: str, text: str) -> dict[str, Request | list[Request]]:
    return {
        f"create, name: {name}": [create(run_name=text), get_run("{run2}")],
        f"update, name: {name}": [update(run_name=text), get_run()],
        f"log-parameter, value: {name}": [log_param(text), get_run()],
        f"set-tag, value: {name}": [set_tag(text), get_run()],
        f"log-batch, metric: {name}": log_batch(metrics=[metric(), metric(text)], params=pairs(p="1")),
        f"log-batch, param: {name}": log_batch(params=pairs(a="1", p=text), metrics=[metric()]),
    }


def other_texts(name: str, text: str) -> dict[str, Request | list[Request]]:
    return {
        f"create, user: {name}": create(user_id=text),
        f"create, tag value: {name}": create(tags=pairs(t=text)),
        f"create, tag key: {name}": create(tags=pairs(**{text: "v"})),
        f"create, experiment: {name}": create(experiment_id=text),
        f"update, status: {name}": update(status=text),
        f"log-metric, key: {name}": log_metric(key=text),
        f"log-metric, run: {name}": log_metric(run_id=text),
        f"log-metric, value: {name}": log_metric(text),
        f"log-metric, a field's name: {name}": log_metric(**{text: 1}),
        f"log-parameter, key: {name}": log_param(key=text),
        f"log-parameter, another value: {name}": [log_param(), log_param(text)],
        f"set-tag, key: {name}": set_tag(key=text),
        f"set-tag, run's name: {name}": [set_tag(text, key="mlflow.runName"), get_run()],
        f"delete-tag, key: {name}": delete_tag(text),
        f"log-batch, tag: {name}": log_batch(tags=pairs(a="1", t=text), metrics=[metric()]),
        f"log-batch, run: {name}": log_batch(run_id=text),
    }


TEXT = [case for name, text in (NASTY | ODD).items() for case in cases("any", main_texts(name, text))] + [
    case for name, text in NASTY.items() for case in cases("any", other_texts(name, text))
]

ALL: list[Case] = [*BODY, *HEADERS, *TEXT]
