"""Fourteen things that people do with MLflow's client every day, each a function; run by test_flows.py in one process.

`python flows.py URL NAME` says before each which one begins, and waits for a line on its standard input.
Every name is new to the server when it is first used.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow.entities import AssessmentSource, AssessmentSourceType, SpanType
from mlflow.pyfunc.model import PythonModel

FLOWS: list[Callable[[str], None]] = []


def flow(each: Callable[[str], None]) -> Callable[[str], None]:
    """Put a flow into the list, in the order in which they are written."""
    FLOWS.append(each)
    return each


class Constant(PythonModel):
    """The smallest model there is."""

    def predict(self, context: object, model_input: list[str], params: dict[str, object] | None = None) -> list[str]:
        return list(model_input)


@mlflow.trace(span_type=SpanType.CHAIN)
def answer(question: str) -> str:
    """A traced function that calls a second one."""
    return look_up(question).upper()


@mlflow.trace(span_type=SpanType.RETRIEVER)
def look_up(question: str) -> str:
    """The second one."""
    return f"about {question}"


@flow
def log_a_run(name: str) -> None:
    """Params, metrics, tags, files."""
    mlflow.set_experiment(name)
    with mlflow.start_run(run_name="first") as run, tempfile.TemporaryDirectory() as folder:
        mlflow.log_params({"depth": 4, "rate": 0.1})
        for step in range(3):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.set_tags({"team": "a"})
        (Path(folder) / "notes.txt").write_text("a note")
        mlflow.log_artifact(f"{folder}/notes.txt", "notes")
        mlflow.log_text("text", "text.txt")
        mlflow.log_dict({"a": 1}, "dict.json")
    client = mlflow.MlflowClient()
    assert [file.path for file in client.list_artifacts(run.info.run_id, "notes")] == ["notes/notes.txt"]
    assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/text.txt") == "text"
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 3


@flow
def autolog(name: str) -> None:
    """scikit-learn's, with its model."""
    from sklearn.linear_model import LogisticRegression

    mlflow.sklearn.autolog(silent=True)
    with mlflow.start_run(run_name="autologged"):
        LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
    mlflow.sklearn.autolog(disable=True)


@flow
def log_model(name: str) -> None:
    """A model of our own, loaded again."""
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name="constant", python_model=Constant(), pip_requirements=["mlflow"], params={"a": "1"}
        )
        mlflow.log_metric("accuracy", 0.9, model_id=logged.model_id)
    assert mlflow.pyfunc.load_model(logged.model_uri).predict(["a"]) == ["a"]
    client = mlflow.MlflowClient()
    client.set_logged_model_tags(logged.model_id, {"stage": "new"})
    client.delete_logged_model_tag(logged.model_id, "stage")
    assert client.get_logged_model(logged.model_id).params == {"a": "1"}


@flow
def registry(name: str) -> None:
    """A registered model's whole life."""
    client = mlflow.MlflowClient()
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name="registered", python_model=Constant(), pip_requirements=["mlflow"], registered_model_name=name
        )
    second = mlflow.register_model(logged.model_uri, name)
    client.set_registered_model_tag(name, "team", "a")
    client.set_model_version_tag(name, second.version, "good", "yes")
    client.update_registered_model(name, description="ours")
    client.update_model_version(name, second.version, description="the second")
    client.set_registered_model_alias(name, "champion", second.version)
    assert client.get_model_version_by_alias(name, "champion").version == second.version
    assert len(client.search_model_versions(f"name = '{name}'")) == 2
    assert len(client.search_registered_models(f"name = '{name}'")) == 1
    assert client.get_model_version_download_uri(name, second.version)
    client.delete_registered_model_tag(name, "team")
    client.delete_model_version_tag(name, second.version, "good")
    client.rename_registered_model(name, f"{name} renamed")
    client.rename_registered_model(f"{name} renamed", name)
    client.delete_model_version(name, "1")


@flow
def load_by_alias(name: str) -> None:
    """What a service does with a registered model."""
    assert mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(["a"]) == ["a"]
    client = mlflow.MlflowClient()
    client.delete_registered_model_alias(name, "champion")
    client.create_registered_model(f"{name} short-lived")
    client.delete_registered_model(f"{name} short-lived")


@flow
def trace(name: str) -> None:
    """Traced functions, within a run and without."""
    assert answer("x") == "ABOUT X"
    with mlflow.start_run():
        answer("y")
    mlflow.flush_trace_async_logging()


@flow
def otlp(name: str) -> None:
    """Spans from OpenTelemetry's own exporter."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    url = f"{mlflow.get_tracking_uri()}/v1/traces"
    exporter = OTLPSpanExporter(url, headers={"x-mlflow-experiment-id": _id(name)})
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("third party")
    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner") as span:
        span.set_attribute("gen_ai.request.model", "a model")
    provider.shutdown()


@flow
def read_traces(name: str) -> None:
    """Search, look at, tag, delete."""
    found = mlflow.search_traces(locations=[_id(name)], return_type="list")
    assert len(found) == 3
    by_name = mlflow.search_traces(
        locations=[_id(name)], filter_string="trace.status = 'OK'", return_type="list", max_results=2
    )
    assert len(by_name) == 2
    one = mlflow.get_trace(by_name[0].info.trace_id)
    assert one.data.spans
    client = mlflow.MlflowClient()
    client.set_trace_tag(one.info.trace_id, "seen", "yes")
    client.delete_trace_tag(one.info.trace_id, "seen")
    answer("gone soon")
    mlflow.flush_trace_async_logging()
    client.delete_traces(_id(name), trace_ids=[_text(mlflow.get_last_active_trace_id())])


@flow
def feedback(name: str) -> None:
    """Feedback and expectations, given, changed and taken back."""
    (trace,) = mlflow.search_traces(locations=[_id(name)], return_type="list", max_results=1)
    person = AssessmentSource(source_type=AssessmentSourceType.HUMAN, source_id="me")
    given = mlflow.log_feedback(trace_id=trace.info.trace_id, name="good", value=True, source=person)
    mlflow.log_expectation(trace_id=trace.info.trace_id, name="expected", value="ABOUT X", source=person)
    mlflow.get_assessment(trace.info.trace_id, _text(given.assessment_id))
    mlflow.override_feedback(
        trace_id=trace.info.trace_id, assessment_id=_text(given.assessment_id), value=False, source=person
    )
    mlflow.delete_assessment(trace_id=trace.info.trace_id, assessment_id=_text(given.assessment_id))


@flow
def prompts(name: str) -> None:
    """Register, alias, load, search."""
    prompt = f"{name}-prompt"
    mlflow.genai.register_prompt(prompt, "Say {{word}}.", commit_message="first")
    mlflow.genai.register_prompt(prompt, "Say {{word}} twice.", commit_message="second")
    mlflow.genai.set_prompt_alias(prompt, "production", 2)
    assert mlflow.genai.load_prompt(f"prompts:/{prompt}@production").version == 2
    assert mlflow.genai.load_prompt(f"prompts:/{prompt}/1").format(word="hi") == "Say hi."
    assert mlflow.genai.load_prompt("prompts:/there-is-none/1", allow_missing=True) is None
    assert [each.name for each in mlflow.genai.search_prompts(f"name = '{prompt}'")] == [prompt]
    mlflow.genai.set_prompt_tag(prompt, "team", "a")
    mlflow.genai.delete_prompt_alias(prompt, "production")


@flow
def nested_sweep(name: str) -> None:
    """A parent with three children."""
    with mlflow.start_run(run_name="sweep") as parent:
        for depth in range(3):
            with mlflow.start_run(nested=True, run_name=f"depth {depth}"):
                mlflow.log_param("depth", depth)
                mlflow.log_metric("loss", 1 / (depth + 1))
    children = mlflow.search_runs(
        experiment_names=[name],
        filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'",
        order_by=["metrics.loss ASC"],
    )
    assert list(children["params.depth"]) == ["2", "1", "0"]


@flow
def searches(name: str) -> None:
    """Of runs, experiments and logged models."""
    client = mlflow.MlflowClient()
    assert mlflow.get_experiment_by_name(f"{name}, which is not there") is None
    assert len(mlflow.search_experiments(filter_string=f"name = '{name}'")) == 1
    assert len(mlflow.search_runs(experiment_names=[name], filter_string="metrics.loss < 0.4")) == 2
    assert len(mlflow.search_logged_models(experiment_ids=[_id(name)], output_format="list")) >= 3
    run_id = mlflow.search_runs(experiment_names=[name], output_format="list")[0].info.run_id
    client.delete_run(run_id)
    client.restore_run(run_id)
    short = client.create_experiment(f"{name} short-lived")
    client.delete_experiment(short)


@flow
def datasets(name: str) -> None:
    """log_input, log_table, and an evaluation dataset with records."""
    import pandas
    from mlflow.data.pandas_dataset import from_pandas

    frame = pandas.DataFrame({"a": [1, 2], "b": [3, 4]})
    with mlflow.start_run() as run:
        mlflow.log_input(from_pandas(frame, name="frame"), context="training")
        mlflow.log_table(frame, "table.json")
        mlflow.log_table(frame, "table.json")
    assert len(mlflow.load_table("table.json", run_ids=[run.info.run_id])) == 4
    from mlflow.genai.datasets import create_dataset, delete_dataset, get_dataset, search_datasets

    made = create_dataset(name=f"{name}-questions", experiment_id=[_id(name)], tags={"team": "a"})
    made.merge_records([{"inputs": {"question": "x"}, "expectations": {"answer": "ABOUT X"}}])
    assert len(get_dataset(dataset_id=made.dataset_id).to_df()) == 1
    assert [each.name for each in search_datasets(experiment_ids=[_id(name)])] == [made.name]
    delete_dataset(dataset_id=made.dataset_id)


@flow
def evaluate(name: str) -> None:
    """mlflow.genai.evaluate with scorers of one's own: a function on a dataset with expectations, then its traces."""
    from mlflow.entities import Feedback
    from mlflow.genai import scorer
    from mlflow.genai.datasets import create_dataset

    @scorer
    def exact(outputs: str, expectations: dict[str, str]) -> bool:
        return outputs == expectations["answer"]

    @scorer
    def length(inputs: dict[str, str], outputs: str) -> Feedback:
        return Feedback(value=len(outputs), rationale=f"of what was said about {inputs['question']}")

    mlflow.set_experiment(f"{name} evaluated")
    questions = create_dataset(name=f"{name}-evaluated", experiment_id=[_id(f"{name} evaluated")])
    questions.merge_records(
        [
            {"inputs": {"question": "x"}, "expectations": {"answer": "ABOUT X"}, "tags": {"kind": "easy"}},
            {"inputs": {"question": "y"}, "expectations": {"answer": "nothing"}},
        ]
    )
    done = mlflow.genai.evaluate(data=questions, predict_fn=answer, scorers=[exact, length])
    assert (done.metrics["exact/mean"], done.metrics["length/mean"]) == (0.5, 7.0)
    traces = mlflow.search_traces(run_id=done.run_id, return_type="list")
    assert len(traces) == 2
    for trace in traces:
        said = {each.name: each.value for each in trace.info.assessments or ()}
        assert said["exact"] == (said["answer"] == "ABOUT X")
        assert said["length"] == 7
    again = mlflow.genai.evaluate(data=traces, scorers=[exact, length])
    assert again.metrics["exact/mean"] == 0.5
    assert len(mlflow.search_runs([_id(f"{name} evaluated")], filter_string="metrics.`exact/mean` = 0.5")) == 2


def _id(name: str) -> str:
    experiment = mlflow.get_experiment_by_name(name)
    assert experiment is not None
    return str(experiment.experiment_id)


def _text(given: str | None) -> str:
    assert given is not None
    return given


def main(url: str, name: str) -> None:
    """Do the flows."""
    mlflow.set_tracking_uri(url)
    for each in FLOWS:
        print(f"begins: {each.__name__}", flush=True)
        sys.stdin.readline()  # the test has looked at what the server has done so far
        each(name)
    print("ends: all", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
