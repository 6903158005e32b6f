"""Which objects a message names: in the field that the handler reads, in the place where it reads it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headrace.auth import objects
from headrace.auth.objects import ObjectRef
from headrace.auth.principals import Right
from headrace.errors import Forbidden, InvalidParameter


def test_the_field_that_is_there_counts() -> None:
    run = objects.Run("run_id", "run_uuid")
    assert run.objects(SimpleNamespace(run_id="a", run_uuid="a")) == [ObjectRef("run", "a")]
    with pytest.raises(Forbidden, match="in run_id and in run_uuid"):
        run.objects(SimpleNamespace(run_id="a", run_uuid="b"))
    assert run.objects(SimpleNamespace(run_id="", run_uuid="b")) == [ObjectRef("run", "b")]
    experiments = objects.Experiment("experiment_ids").objects(SimpleNamespace(experiment_ids=["1", "2"]))
    assert experiments == [ObjectRef("experiment", "1"), ObjectRef("experiment", "2")]
    nested = SimpleNamespace(trace={"info": {"experiment_id": 7}})
    assert objects.Experiment("trace.info.experiment_id").objects(nested) == [ObjectRef("experiment", "7")]


@pytest.mark.parametrize("value", [None, "", [], True, 1.5, {"run_id": "a"}, ["a", {"b": 1}], "a\0", [True]])
def test_what_can_not_be_checked_is_refused(value: object) -> None:
    with pytest.raises(Forbidden):
        objects.Run("run_id").objects(SimpleNamespace(run_id=value))


def test_models_that_are_named_beside_a_run() -> None:
    run = objects.Run("run_id")
    one = objects.WithModels(run).objects(SimpleNamespace(run_id="a", model_id="m-1"))
    assert one == [ObjectRef("run", "a"), ObjectRef("logged-model", "m-1")]
    assert objects.WithModels(run).objects(SimpleNamespace(run_id="a", model_id="")) == [ObjectRef("run", "a")]
    items = [SimpleNamespace(model_id=model) for model in ("m-2", "", "m-1", "m-2")]
    many = objects.WithModels(run, "metrics", Right.READ).objects(SimpleNamespace(run_id="a", metrics=items))
    assert many[1:] == [ObjectRef("logged-model", model, Right.READ) for model in ("m-2", "m-1")]


def test_several_targets() -> None:
    message = SimpleNamespace(run_id="r", trace_ids=["t", "u"], model_id="")
    both = objects.Both(objects.Run("run_id"), objects.Trace("trace_ids"))
    assert both.objects(message) == [ObjectRef("run", "r"), ObjectRef("trace", "t"), ObjectRef("trace", "u")]
    with pytest.raises(Forbidden):
        objects.Both(objects.Run("run_id"), objects.LoggedModel("model_id")).objects(message)
    assert objects.OneOf(objects.Run("run_id"), objects.LoggedModel("model_id")).objects(message) == [
        ObjectRef("run", "r")
    ]


@pytest.mark.parametrize(
    "path", ["1", "1/", "1/run/artifacts/a b.txt", "12/models/m-1/MLmodel", "1/..a", "1/a..b", "1/50%.txt", "1/a%20b#?"]
)
def test_a_path_is_in_its_experiments_folder(path: str) -> None:
    assert objects.folder(path).alone() == ObjectRef("experiment", path.partition("/")[0])
    # in another workspace than the default one: auth/access.py looks at whether it is the request's
    there = f"workspaces/team-a/{path}"
    assert objects.folder(there).alone() == objects.folder(path).alone()
    assert (objects.folder(there).path or "").startswith("workspaces/")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a/1",
        "../1",
        "1/..",
        "1/../2",
        "1/./2",
        "1//2",
        "1/%2e%2e/2",
        "1/%252e%252e/2",
        "1/%2f2",
        "1%2f2",
        "1\\2",
        "1/a\\..\\2",
        "workspaces/1/",
        "workspaces/W/1",
        "workspaces/../1",
        "workspaces/%2e%2e/1",
        "workspaces//1",
        "workspaces/w/workspaces/v/1",
    ],
)
def test_a_path_that_is_in_none(path: str) -> None:
    with pytest.raises(Forbidden):
        objects.folder(path)


@pytest.mark.parametrize(
    "case",
    [
        ("runs:/r/model", ObjectRef("run", "r")),
        ("models:/m-1", ObjectRef("logged-model", "m-1")),
        ("mlflow-artifacts:/3/r/artifacts/model", ObjectRef("experiment", "3", path="3/r/artifacts/model")),
        ("models:/name/7", ObjectRef("model", "name"), ObjectRef("model-version", "7/name")),
        ("prompt-template",),
    ],
)
def test_the_source_of_a_model_version(case: tuple[Any, ...]) -> None:
    source, *expected = case
    wanted = objects.ModelSource("source").objects(SimpleNamespace(source=source))
    assert wanted == [each._replace(right=Right.READ) for each in expected]


@pytest.mark.parametrize(
    ("source", "expected"), [("models:/m-1", [ObjectRef("run", "r", Right.READ)]), ("models:/n/7", [])]
)
def test_the_run_of_a_model_version(source: str, expected: list[ObjectRef]) -> None:
    assert objects.VersionRun("run_id").objects(SimpleNamespace(source=source, run_id="r")) == expected


@pytest.mark.parametrize("version", ["3", "03", "+3", " 3 "])
def test_the_files_of_a_model_version(version: str) -> None:
    refs = objects.ModelVersionFiles("name", "version").objects(SimpleNamespace(name="m", version=version))
    assert refs == [ObjectRef("model", "m"), ObjectRef("model-version", "3/m")]


@pytest.mark.parametrize("version", ["", "x", "1_0", "3.0", None])
def test_a_version_that_stock_may_read_in_another_way(version: str | None) -> None:
    with pytest.raises(InvalidParameter):
        objects.ModelVersionFiles("name", "version").objects(SimpleNamespace(name="m", version=version))


@pytest.mark.parametrize("source", ["s3://bucket/1/model", "file:///etc", "models:/name/1", "mlflow-artifacts:/../1"])
def test_another_source(source: str) -> None:
    with pytest.raises(Forbidden):
        objects.source(source)
