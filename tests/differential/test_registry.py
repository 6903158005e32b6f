"""The registry's endpoints, step by step on a model of its own: status, JSON and rows are stock's."""

# ruff: noqa: E501  (a story is a row)

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from tests.differential.conftest import Pair
from tests.differential.harness import API, Subject
from tests.differential.stories import goes_on

# (method, endpoint, fields): M, N stand for names of models, R for a run's id
Step = tuple[str, str, dict[str, Any]]
NUMBERS = itertools.count(1)
TABLES = (
    "registered_models",
    "registered_model_tags",
    "registered_model_aliases",
    "model_versions",
    "model_version_tags",
)
_TIME = re.compile(r'((?:creation|last_updated)_time(?:stamp)?["\']?[:,] ?)\d{13}')
PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}


def create(**fields: Any) -> Step:
    return ("POST", "registered-models/create", {"name": "M"} | fields)


def version(**fields: Any) -> Step:
    return ("POST", "model-versions/create", {"name": "M", "source": "s3://bucket/model"} | fields)


def models(method: str, what: str, **fields: Any) -> Step:
    return (method, f"registered-models/{what}", {"name": "M"} | fields)


def versions(method: str, what: str, **fields: Any) -> Step:
    return (method, f"model-versions/{what}", {"name": "M", "version": "1"} | fields)


GET, SEARCH = models("GET", "get"), ("GET", "registered-models/search", {"filter": "name LIKE 'M%'"})
VERSIONS = ("GET", "model-versions/search", {"filter": "name = 'M'"})
STORIES: dict[str, list[Step]] = {
    "a model": [create(), GET, SEARCH, models("PATCH", "update", description="new"), GET, models("DELETE", "delete"), GET],
    "with tags": [create(tags=[{"key": "a", "value": "1"}, {"key": "b", "value": ""}], description="d"), GET, SEARCH],
    "a tag twice": [create(tags=[{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]), GET],
    "a name that is taken": [create(), create(), create(tags=[PROMPT])],
    "a prompt": [create(tags=[PROMPT]), create(), create(tags=[PROMPT]), GET, SEARCH,
                 ("GET", "registered-models/search", {"filter": "tags.`mlflow.prompt.is_prompt` = 'true' AND name = 'M'"})],
    "names": [create(name=name) for name in ("", " ", "a/b", "a:b", ".", "..", "a/../b", "x" * 257, "é", "a b", "a\nb")],
    "renamed": [create(), version(), version(), models("POST", "alias", alias="best", version="2"),
                models("POST", "rename", new_name="N"), GET, ("GET", "registered-models/get", {"name": "N"}),
                ("GET", "registered-models/alias", {"name": "N", "alias": "best"}), create(),
                models("POST", "rename", new_name="N"), models("POST", "rename", new_name=""),
                models("POST", "rename", new_name="a/b")],
    "no such model": [GET, models("PATCH", "update", description="x"), models("POST", "rename", new_name="N"),
                      models("DELETE", "delete"), models("POST", "set-tag", key="a", value="b"),
                      models("DELETE", "delete-tag", key="a"), models("POST", "alias", alias="a", version="1"),
                      models("DELETE", "alias", alias="a"), models("GET", "alias", alias="a"),
                      models("GET", "alias", alias="latest"), models("GET", "get-latest-versions"), version(),
                      versions("GET", "get"), versions("PATCH", "update", description="x"), versions("DELETE", "delete"),
                      versions("GET", "get-download-uri"), versions("POST", "set-tag", key="a", value="b"),
                      versions("DELETE", "delete-tag", key="a"),
                      versions("POST", "transition-stage", stage="Staging")],
    "tags": [create(), models("POST", "set-tag", key="a", value="b"), models("POST", "set-tag", key="a", value="c"),
             models("POST", "set-tag", key="e"), GET, models("DELETE", "delete-tag", key="a"),
             models("DELETE", "delete-tag", key="a"), GET,
             *(models("POST", "set-tag", key=key, value="v") for key in ("", "a/../b", "a*b", "k" * 251)),
             models("POST", "set-tag", key="long", value="v" * 100_001), models("DELETE", "delete-tag", key="")],
    "versions": [create(), version(), version(tags=[{"key": "a", "value": "1"}], description="d", run_link="l"),
                 versions("GET", "get"), versions("GET", "get", version="2"), VERSIONS, GET, SEARCH,
                 versions("PATCH", "update", description="new"), versions("GET", "get"), versions("PATCH", "update"),
                 versions("GET", "get"), versions("GET", "get-download-uri"), versions("DELETE", "delete"),
                 versions("GET", "get"), versions("DELETE", "delete"), VERSIONS, version(), VERSIONS],
    "numbers of versions": [create(), version(), *(versions("GET", "get", version=text)
                            for text in ("01", "+1", " 1", "1.0", "x", "", "2", "-1", "0", str(2**31), str(2**40)))],
    "version tags": [create(), version(), versions("POST", "set-tag", key="a", value="b"),
                     versions("POST", "set-tag", key="a", value="c"), versions("GET", "get"),
                     versions("DELETE", "delete-tag", key="a"), versions("DELETE", "delete-tag", key="a"),
                     versions("GET", "get"), versions("POST", "set-tag", key="a*b", value=""),
                     versions("POST", "set-tag", key="t", value="v" * 100_001),
                     versions("POST", "set-tag", version="7", key="a", value="b")],
    "aliases": [create(), version(), version(), models("POST", "alias", alias="best", version="1"),
                models("POST", "alias", alias="other", version="1"), models("POST", "alias", alias="best", version="2"),
                models("GET", "alias", alias="best"), models("GET", "alias", alias="latest"), GET,
                versions("GET", "get"), versions("DELETE", "delete"), models("GET", "alias", alias="other"),
                models("DELETE", "alias", alias="best"), models("DELETE", "alias", alias="best"),
                models("GET", "alias", alias="best"), GET,
                *(models("POST", "alias", alias=alias, version="2")
                  for alias in ("latest", "LATEST", "v1", "V2", "a b", "", "a" * 255, "a" * 256, "ü", "a-b_c")),
                models("POST", "alias", alias="x", version="9"), models("POST", "alias", alias="x", version="y")],
    "stages": [create(), version(), version(), version(), versions("POST", "transition-stage", stage="staging"),
               versions("POST", "transition-stage", version="2", stage="Staging", archive_existing_versions=True),
               versions("POST", "transition-stage", version="3", stage="Production"),
               versions("POST", "transition-stage", version="3", stage="nowhere"),
               versions("POST", "transition-stage", version="9", stage="Staging"),
               models("GET", "get-latest-versions"), models("POST", "get-latest-versions", stages=["Production"]),
               models("GET", "get-latest-versions", stages="x"), GET, VERSIONS],
    "deleted with all": [create(tags=[{"key": "a", "value": "1"}]), version(tags=[{"key": "a", "value": "1"}]),
                         models("POST", "alias", alias="x", version="1"), models("DELETE", "delete"), create(), GET],
    "sources": [create(), *(version(source=source) for source in (
        "", "s3://b/../c", "file:///etc", "/etc", "./a", "mlflow-artifacts:/0/x/artifacts/m", "runs:/R/model",
        "models:/M/1", "models:/m-0123456789abcdef", "s3://b/a%2e%2e/x", "s3://b/a#b", "http://h/x", "dbfs:/a",
        "mlflow-artifacts://h:1/0/x", "gs://b/a b", " ", "a", "file:a", "file://localhost/a",
        "file://h/a", "FILE:///a", "s3:a", "s3:/a", "s3://b", "s3://b/", "s3://b/.", "s3://b/./a", "s3://b//a/",
        "s3://b/a?x=1", "s3://b/a?../b", "s3://b/a;x", "s3://b/a%2Fb", "s3://b/a%00", "s3://b/a+b", "s3://b/..a",
        "s3://b/a%252e%252e/%252e%252e/c", "s3://b/a\\\\..\\\\c", "s3://b/a%5c..%5cc", "s3://b/a\nb", "S3://b/a",
        "ftp://h/a", "sftp://h/a", "hdfs://h/a", "hdfs:/a", "viewfs://h/a", "https://h/a", "r2://b@h/a", "b2://b@h/a",
        "abfss://f@a.dfs.core.windows.net/x", "wasbs://c@a.blob.core.windows.net/x", "FTP://h/a", "c:/a", "databricks",
        "databricks:/a", "mlflow-artifacts:", "mlflow-artifacts:/", "mlflow-artifacts:/../a", "models:", "models:/",
        "models://h/a", "models:/a/b/c", "models:/a/ ", "models:/@a", "models:/M@", "models:/M@x", "models:/M/7",
        "models:/M/latest", "models:/M/Staging", "models:/M/2000000000", "models:/no/1", "models:/M/1#x", "runs:/",
        "runs://h/R/model", "runs:R/model", "runs:/no/model", "dummy-source", "[", "s3://[/a", "é", "s3://b/é"))],
    "a long source": [create(), version(source="s3://b/" + "x" * 600)],
    "of a logged model": [create(), create(name="N"),
                 *(version(source=source, **more) for source in (
                     "models:/L", "models:/x", "models:/L/a", "mlflow-artifacts:/0/models/L/artifacts",
                     "mlflow-artifacts:/0/models/L/artifacts/sub%20folder", "mlflow-artifacts:/0/models/x/artifacts",
                     "mlflow-artifacts:/0", "runs:/R/model", "s3://b/a", "s3://b/../a", "/a", "models:/M/1")
                   for more in ({}, {"model_id": "L"}, {"model_id": "m-no"}, {"model_id": "L", "run_id": "R"},
                                {"run_id": "R"})),
                 version(name="N", source="models:/L", model_id="L", tags=[{"key": "a", "value": "1"}]),
                 versions("GET", "get-download-uri"), VERSIONS],
    "of another version": [create(), create(name="N"), create(name="MP", tags=[PROMPT]),
                 version(source="runs:/R/model", run_id="R"), version(),
                 version(name="MP", source="dummy-source", tags=[PROMPT]),
                 models("POST", "alias", alias="best", version="2"),
                 *(version(name="N", source=source, **more) for source in (
                     "models:/M/1", "models:/M/01", "models:/M/2", "models:/M@best", "models:/M/latest",
                     "models:/M@latest", "models:/M/None", "models:/MP/1")
                   for more in ({}, {"run_id": "R"}, {"run_id": ""}, {"run_id": "x"}, {"model_id": "L"})),
                 versions("GET", "get-download-uri", name="N"), ("GET", "model-versions/search", {"filter": "name = 'N'"})],
    "of a run": [create(), version(source="runs:/R/model", run_id="R"), version(source="runs:/R/model", run_id="x"),
                 version(source="mlflow-artifacts:/0/R/artifacts/model", run_id="R"),
                 version(source="mlflow-artifacts:/0/R/artifacts/../x", run_id="R"),
                 version(source="mlflow-artifacts:/1/R/artifacts/model", run_id="R"), VERSIONS,
                 ("GET", "model-versions/search", {"filter": "run_id = 'R'"})],
    "prompt versions": [create(tags=[PROMPT]), version(source="dummy-source", tags=[PROMPT, {"key": "mlflow.prompt.text", "value": "hi"}]),
                        version(source="s3://b/a", tags=[PROMPT]), versions("GET", "get"), VERSIONS,
                        version(source="dummy-source", tags=[PROMPT, {"key": "mlflow.prompt.text", "value": "x" * 100_001}])],
    "missing": [(method, endpoint, {}) for method, endpoint in (
        ("POST", "registered-models/create"), ("GET", "registered-models/get"), ("PATCH", "registered-models/update"),
        ("DELETE", "registered-models/delete"), ("GET", "registered-models/alias"), ("POST", "model-versions/create"),
        ("GET", "model-versions/get"), ("POST", "model-versions/transition-stage"))],
    "searches": [create(), version(), ("GET", "registered-models/search", {"max_results": 1001}),
                 ("GET", "model-versions/search", {"max_results": 0, "filter": "name = 'M'"}),
                 *(("GET", "model-versions/search", {"filter": text}) for text in (
                     "name = 'M' AND version_number = 1", "name = 'M' AND version_number > 1",
                     "name = 'M' AND version_number < 99999999999", "name IN ('M', 'x')",
                     "name ILIKE 'm%' AND name = 'M'", "source_path = 's3://bucket/model' AND name = 'M'",
                     "name = 'M' AND tags.a = 'b'", "nothing = 'x'", "name > 'M'", "name = M", "name = 'M' OR name = 'x'"))],
}  # fmt: skip


class Player:
    """One server, with the names of one story."""

    def __init__(self, subject: Subject, number: int) -> None:
        self.subject = subject
        self.names = {"MP": f"MP model {number}", "M": f"M model {number}", "N": f"N model {number}"}
        self.names["R"] = subject.create_run()
        given = {"experiment_id": "0", "name": "model", "source_run_id": self.names["R"]}
        made = subject.request("POST", f"{API}logged-models", json=given)
        self.names["L"] = made.json()["model"]["info"]["model_id"]

    def send(self, step: Step) -> tuple[int, Any]:
        method, endpoint, fields = step
        given = {name: self.fill(value) for name, value in fields.items()}
        how = {"params": given} if method == "GET" else {"json": given}
        answer = self.subject.request(method, API + endpoint, **how)
        text = self.unfill(answer.text)
        try:
            body = in_order(json.loads(text))
        except ValueError:
            body = text
        return answer.status_code, body

    def fill(self, value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\b(?:MP|[MNRL])\b", lambda match: self.names[match[0]], value)
        return value

    def unfill(self, text: str) -> str:
        for short, name in self.names.items():
            text = text.replace(name, short)
        return _TIME.sub(r"\g<1>0", text)

    def rows(self) -> dict[str, list[str]]:
        names = (self.names["M"], self.names["N"], self.names["MP"])
        return {
            table: sorted(self.unfill(repr(sorted(row.items()))) for row in self.subject.rows_of(table, "name", names))
            for table in TABLES
        } | {"tags of the logged model": self.logged_model_tags()}

    def logged_model_tags(self) -> list[str]:
        of_model = f"SELECT tag_key, tag_value FROM logged_model_tags WHERE model_id = '{self.names['L']}'"
        return sorted(self.unfill(repr(row)) for row in self.subject.query(of_model))


def in_order(value: Any) -> Any:
    """Tags, aliases and latest versions have no order."""
    if isinstance(value, list):
        items = [in_order(item) for item in value]
        return sorted(items, key=repr)
    if isinstance(value, dict):
        value.pop("aliases", None) if "current_stage" in value else None  # stock leaves them out of searches
        return {name: in_order(item) for name, item in value.items()}
    return value


@pytest.mark.parametrize("name", STORIES)
def test_story(pair: Pair, name: str) -> None:
    number = next(NUMBERS)
    stock, headrace = Player(pair.stock, number), Player(pair.headrace, number)
    for step in STORIES[name]:
        expected, found = stock.send(step), headrace.send(step)
        if not goes_on(step, expected, found):
            return
    assert headrace.rows() == stock.rows()
