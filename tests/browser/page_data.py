"""Something for every page of the UI, made by MLflow's client: `python page_data.py URL` prints the ids as JSON."""

from __future__ import annotations

import json
import sys

import mlflow
import pandas
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import AssessmentSource, AssessmentSourceType
from mlflow.genai.datasets import create_dataset
from mlflow.pyfunc.model import PythonModel

NAME = "pages"


class Echo(PythonModel):
    """The smallest model there is."""

    def predict(self, context: object, model_input: list[str], params: dict[str, object] | None = None) -> list[str]:
        return list(model_input)


@mlflow.trace
def answer(question: str) -> str:
    """A turn of a session."""
    mlflow.update_current_trace(metadata={"mlflow.trace.session": "a-session", "mlflow.trace.user": "me"})
    return question.upper()


def main(url: str) -> None:
    """Make it."""
    mlflow.set_tracking_uri(url)
    experiment = mlflow.set_experiment(NAME).experiment_id
    for name, depth in (("first", 4), ("second", 5)):
        with mlflow.start_run(run_name=name) as run:
            mlflow.log_param("depth", depth)
            for step in range(5):
                mlflow.log_metric("loss", depth / (step + 1), step=step)
            mlflow.log_text("a note", "note.txt")
            mlflow.log_table({"question": ["a question"], "answer": ["an answer"]}, "table.json")
            mlflow.log_input(from_pandas(pandas.DataFrame({"a": [1]}), name="frame"), context="training")
            answer(f"within {name}")
    with mlflow.start_run(run_id=run.info.run_id):
        model = mlflow.pyfunc.log_model(
            name="echo", python_model=Echo(), pip_requirements=["mlflow"], registered_model_name=f"{NAME}-model"
        )
        mlflow.log_metric("accuracy", 0.9, model_id=model.model_id)
    mlflow.MlflowClient().set_registered_model_alias(f"{NAME}-model", "champion", "1")
    for text in ("Say {{word}}.", "Say {{word}} twice."):
        mlflow.genai.register_prompt(f"{NAME}-prompt", text)
    mlflow.genai.set_prompt_alias(f"{NAME}-prompt", "production", 1)
    mlflow.flush_trace_async_logging()
    trace = mlflow.search_traces(locations=[experiment], return_type="list")[0].info.trace_id
    person = AssessmentSource(source_type=AssessmentSourceType.HUMAN, source_id="me")
    mlflow.log_feedback(trace_id=trace, name="good", value=True, source=person)
    dataset = create_dataset(name=f"{NAME}-questions", experiment_id=[experiment])
    dataset.merge_records([{"inputs": {"question": "of a record"}, "expectations": {"answer": "y"}}])
    runs = [each.info.run_id for each in mlflow.search_runs([experiment], output_format="list")]
    ids = {"run": run.info.run_id, "model": model.model_id, "trace": trace, "dataset": dataset.dataset_id}
    print(json.dumps({"experiment": experiment, "runs": json.dumps(runs), **ids}))


if __name__ == "__main__":
    main(sys.argv[1])
