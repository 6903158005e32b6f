"""What people get wrong every day: a mistyped filter, a wrong order. Stock says what it is; Headrace says the same, and
does not start stock for it. And what they choose: an experiment's place."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import requests

from tests.differential.conftest import Pair

FILTERS = (
    *("x", "name", "name =", "= 'x'", "name = x", "name 'x'", "name == 'x'", "name = 'x", "name = 'a' OR name = 'b'"),
    *("nothing = 'x'", "nothing.at = 'x'", "metrics.m = 'x'", "metrics.m >", "metrics.m LIKE 'x'", "params.p = 1"),
    *("params.p > 'x'", "tags.t = 5", "tags.t IN ('x')", "tags. = 'x'", "attributes.start_time > 'now'", "name IN ()"),
    *(
        "(name = 'x')",
        "name = 'x';",
        "name = 'x' AND",
        "name = 'x' AND AND y",
        "SELECT 1",
        "name = 'x' -- no",
        "status",
    ),
    *("metrics.m > 1 AND params.lr = 0.1", 'tags."a b" = c', "`", "'", "name LIKE 5", "name = 'x' ORDER BY name"),
    *("creation_time > 0.50", "created_time > -1e3", "version_number = 1."),
    *("timestamp_ms > 'x'", "span.color = 'x'", "creation_time > 'x'", "version_number = 'x'", "日本", "name != ''''"),
)
ORDERS = ("x", "name UP", "metrics.m DESC ASC", "metrics", "nothing.at", "", "'", "name DESC, start_time", "params.")
# the search -> (method, path, what it needs, the names of its filter and its order)
SEARCHES: dict[str, tuple[str, str, dict[str, Any], str, str]] = {
    "runs": ("POST", "2.0/mlflow/runs/search", {"experiment_ids": ["0"]}, "filter", "order_by"),
    "experiments": ("POST", "2.0/mlflow/experiments/search", {"max_results": 9}, "filter", "order_by"),
    "models": ("GET", "2.0/mlflow/registered-models/search", {}, "filter", "order_by"),
    "versions": ("GET", "2.0/mlflow/model-versions/search", {}, "filter", "order_by"),
    "logged models": ("POST", "2.0/mlflow/logged-models/search", {"experiment_ids": ["0"]}, "filter", ""),
    "datasets": ("POST", "3.0/mlflow/datasets/search", {"experiment_ids": ["0"]}, "filter_string", "order_by"),
    "traces": (
        "POST",
        "3.0/mlflow/traces/search",
        {"locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}]},
        "filter",
        "order_by",
    ),
}
# what stock's parser takes, and something behind it does not
LATER = {("traces", "timestamp_ms > 'x'"), ("versions", "version_number = 'x'"), ("logged models", "tags. = 'x'")}
NUMBERS = itertools.count(1)


def ask(url: str, method: str, path: str, message: dict[str, Any]) -> requests.Response:
    given: dict[str, Any] = {"params": message} if method == "GET" else {"json": message}
    return requests.request(method, f"{url}/api/{path}", timeout=60, **given)


@pytest.mark.parametrize("what", SEARCHES)
def test_a_search_that_cannot_be_read(pair: Pair, what: str) -> None:
    method, path, needs, of_filter, of_order = SEARCHES[what]
    mistakes: list[dict[str, Any]] = [{of_filter: text} for text in FILTERS if (what, text) not in LATER]
    mistakes += [{of_order: [text]} for text in ORDERS if of_order]
    wrong, refused, in_its_words = [], 0, 0
    for mistake in mistakes:
        stock, headrace = (ask(each.server.url, method, path, needs | mistake) for each in (pair.stock, pair.headrace))
        if stock.status_code == 200:
            continue  # stock reads it somehow
        refused += 1
        by = headrace.headers["headrace-answered-by"]
        same = stock.status_code == 500 or headrace.json()["error_code"] == stock.json()["error_code"]
        in_its_words += headrace.json() == stock.json()
        if not same or headrace.status_code != 400 or by != "native":
            wrong.append(
                f"{mistake} {by}\n  {stock.status_code} {stock.text}\n  {headrace.status_code} {headrace.text}"
            )
    assert not wrong, "\n".join(wrong)
    assert refused > len(mistakes) / 2
    assert in_its_words > refused * 0.8


@pytest.mark.parametrize(
    ("what", "mistake"),
    [
        ("traces", {"filter": "prompt LIKE 'a/1'"}),
        ("versions", {"filter": "version_number LIKE '1'"}),
        ("versions", {"max_results": 200_001}),
        ("models", {"max_results": 1_001}),
    ],
)
def test_what_stocks_parser_takes_is_refused_in_its_words_too(pair: Pair, what: str, mistake: dict[str, Any]) -> None:
    method, path, needs, _, _ = SEARCHES[what]
    stock, headrace = (ask(each.server.url, method, path, needs | mistake) for each in (pair.stock, pair.headrace))
    assert (headrace.status_code, headrace.json()) == (400, stock.json())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "experiments/create?name=in+the+query"),
        ("POST", "runs/search?experiment_ids=0"),
        ("PATCH", "registered-models/update?name=in+the+query&description=x"),
        ("DELETE", "registered-models/delete?name=in+the+query"),
    ],
)
def test_fields_that_are_in_the_query(pair: Pair, method: str, path: str) -> None:
    """Any page may send the first, where a browser names no origin, and logs keep all of them."""
    answers = [subject.request(method, f"/api/2.0/mlflow/{path}") for subject in (pair.stock, pair.headrace)]
    stock, headrace = ((answer.status_code, answer.json()["error_code"]) for answer in answers)
    assert headrace == stock == (400, "INVALID_PARAMETER_VALUE")


PLACES = (
    *("s3://bucket", "s3://bucket/", "s3://bucket/a/b", "s3://bucket/a b", "s3://bucket/a//b", "s3://bucket/./a"),
    *("gs://bucket/a", "mlflow-artifacts:/a/b", "mlflow-artifacts:/", "mlflow-artifacts:", "mlflow-artifacts://host/a"),
    *(
        "s3:///a",
        "s3://bucket/a/../b",
        "s3://bucket/%2e%2e/b",
        "s3://bucket?a=b",
        "s3://bucket#a",
        "runs:/a/b",
        "s3://",
    ),
    *(
        "http://host/a",
        "dbfs:/a",
        "S3://bucket/a",
        "s3://bucket/" + "a" * 100,
        "s3://bucket/" + "a" * 189,
        "s3://b/\u00fc",
    ),
)


@pytest.mark.parametrize("place", PLACES)
def test_an_experiment_with_a_place_of_its_own(pair: Pair, place: str) -> None:
    name = f"at a place {next(NUMBERS)}"
    found = []
    for subject in (pair.stock, pair.headrace):
        made = ask(
            subject.server.url, "POST", "2.0/mlflow/experiments/create", {"name": name, "artifact_location": place}
        )
        if subject is pair.headrace:
            plain = place in PLACES[:3] or place in PLACES[6:8] or place == "s3://bucket/" + "a" * 100
            assert made.headers["headrace-answered-by"] == ("native" if plain else "stock")
        if made.status_code == 200:
            again = ask(subject.server.url, "GET", "2.0/mlflow/experiments/get", made.json())
            run = ask(subject.server.url, "POST", "2.0/mlflow/runs/create", made.json()).json().get("run")
            uri = run["info"]["artifact_uri"].replace(run["info"]["run_id"], "") if run else "too long"
            found.append((again.json()["experiment"]["artifact_location"], uri))
        else:
            found.append((made.status_code, made.json()["error_code"]))
    assert found[0] == found[1]
