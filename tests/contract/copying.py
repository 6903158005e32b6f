"""A database with something in every table, and files; copies of it, and what moves in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headrace.copy.ends import open_store
from headrace.copy.options import Options
from headrace.copy.report import Report
from headrace.copy.store import Store
from headrace.copy.whole import copy
from headrace.database_url import PostgresURL, SqliteURL, parse
from headrace.db import schema
from headrace.settings import Settings
from tests.support.databases import Database

LARGEST = 1.7976931348623157e308  # as MLflow stores infinity
# every table that a copy takes rows of
COPIED = (
    "experiments", "experiment_tags", "datasets", "scorers", "scorer_versions", "online_scoring_configs",
    "label_schemas", "review_queues", "review_queue_users", "review_queue_items", "review_queue_label_schemas",
    "issues", "runs", "params", "tags", "metrics", "latest_metrics", "inputs", "input_tags", "entity_associations",
    "logged_models", "logged_model_params", "logged_model_tags", "logged_model_metrics", "trace_info", "trace_tags",
    "trace_request_metadata", "trace_metrics", "spans", "span_metrics", "assessments", "evaluation_datasets",
    "evaluation_dataset_tags", "evaluation_dataset_records", "registered_models", "registered_model_tags",
    "model_versions", "model_version_tags", "registered_model_aliases", "workspaces",
)  # fmt: skip
# those whose rows are not a run's, or any of its experiment's
NOT_COPIED = {
    "sql_trace_rollup_rebuild_queue", "webhooks", "webhook_events",
    # stock's alone: of its gateway, its jobs and its registry of MCP servers
    "budget_policies", "endpoints", "guardrails", "jobs", "mcp_servers", "model_definitions", "secrets",
}  # fmt: skip
VALUES: dict[str, Any] = {
    "text": "größe\t\\N,\"'\n", "int": 7, "bigint": 2**53 + 1, "float": 0.1 + 0.2, "bool": True, "json": '{"a": [1]}',
}  # fmt: skip
LOCATION = "file:///nowhere/1"  # its artifacts are nobody's concern where rows are compared


def run_id(letter: str) -> str:
    return letter * 32


def model_id(letter: str) -> str:
    return "m-" + letter * 32


class Ends:
    """A source, a target, and what a copy between them says."""

    def __init__(self, source: Database, target: Database, folder: Path) -> None:
        self.source, self.target, self.folder = source, target, folder

    def insert(self, table: str, at: Database | None = None, /, **given: Any) -> None:
        """A row, with a value in each of the columns that `given` does not name."""
        kinds = {column.lower(): kind for column, kind in schema.TABLES[table].items()}
        values = {column: VALUES[kind] for column, kind in kinds.items() if (table, column) != ("spans", "duration_ns")}
        values |= given
        names = ", ".join(f":{column}" for column in values)
        (at or self.source).execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({names})", **values)

    def experiment(self, number: int, name: str = "", at: Database | None = None, **given: Any) -> None:
        given = {"lifecycle_stage": "active", "workspace": "default", "artifact_location": LOCATION} | given
        self.insert("experiments", at, experiment_id=number, name=name or f"e{number}", **given)

    def run(self, letter: str, experiment: int, at: Database | None = None, metrics: int = 3, **given: Any) -> None:
        run = run_id(letter)
        given = {"lifecycle_stage": "active", "status": "FINISHED", "source_type": "LOCAL"} | given
        given.setdefault("artifact_uri", f"{LOCATION}/{run}/artifacts")
        self.insert("runs", at, run_uuid=run, experiment_id=experiment, **given)
        for step in range(metrics):
            self.metric(letter, "loss", step / 3, step, at)
        for table in ("params", "tags"):
            self.insert(table, at, run_uuid=run, key="k")
        self.insert("latest_metrics", at, run_uuid=run, key="loss", value=2 / 3, step=2, timestamp=2, is_nan=False)

    def metric(self, letter: str, key: str, value: float, step: int, at: Database | None = None, **given: Any) -> None:
        given = {"is_nan": False, "timestamp": step} | given
        self.insert("metrics", at, run_uuid=run_id(letter), key=key, value=value, step=step, **given)

    def of_model(self) -> None:
        """What hangs on model a of experiment 3."""
        for table, key in (("params", "param_key"), ("tags", "tag_key")):
            self.insert(f"logged_model_{table}", model_id=model_id("a"), experiment_id=3, **{key: "k"})
        self.insert(
            "logged_model_metrics", model_id=model_id("a"), experiment_id=3, run_id=run_id("a"), metric_name="m",
            dataset_uuid="d", dataset_name="d", dataset_digest="1",
        )  # fmt: skip

    def everything(self) -> None:
        """A row at least in each table."""
        self.insert("workspaces", name="team")
        self.experiment(5, "e", workspace="team", lifecycle_stage="deleted")
        self.experiment(3)
        self.insert("experiment_tags", experiment_id=3, key="k")
        self.insert("datasets", experiment_id=3, dataset_uuid="d", name="d", digest="1")
        self.insert("scorers", experiment_id=3, scorer_id="s", scorer_name="s")
        self.insert("scorer_versions", scorer_id="s", scorer_version=1)
        self.insert("online_scoring_configs", experiment_id=3, online_scoring_config_id="c", scorer_id="s")
        self.insert("label_schemas", experiment_id=3, schema_id="l", name="l", type="t", input_type="t")
        self.insert("review_queues", experiment_id=3, queue_id="q", name="q", queue_type="t", name_key="q")
        self.insert("review_queue_users", queue_id="q", user_id="u")
        self.insert("review_queue_items", queue_id="q", item_id="t", item_type="t", status="s")
        self.insert("review_queue_label_schemas", queue_id="q", schema_id="l")
        for letter, stage in (("a", "active"), ("b", "deleted")):
            self.run(letter, 3, lifecycle_stage=stage, deleted_time=1 if stage == "deleted" else None)
        self.run("c", 5)
        self.metric("a", "nan", 0, -(2**63), is_nan=True, timestamp=2**63 - 1)
        for step, value in enumerate((LARGEST, -LARGEST, 5e-324, -0.0, 0.1)):
            self.metric("a", "ends", value, step)
        kinds = {"source_type": "DATASET", "source_id": "d", "destination_type": "RUN"}
        self.insert("inputs", input_uuid="i", destination_id=run_id("a"), **kinds)
        self.insert("input_tags", input_uuid="i", name="n")
        self.insert("issues", issue_id="i", experiment_id=3, source_run_id=run_id("a"), status="s", severity="s")
        self.insert(
            "logged_models", model_id=model_id("a"), experiment_id=3, name="m", lifecycle_stage="active", status=2,
            source_run_id=run_id("a"), artifact_location=f"{LOCATION}/models/{model_id('a')}/artifacts",
        )  # fmt: skip
        kinds = {"source_type": "RUN_OUTPUT", "source_id": run_id("a"), "destination_type": "MODEL_OUTPUT"}
        self.insert("inputs", input_uuid="o", destination_id=model_id("a"), **kinds)
        self.of_model()
        self.trace("t", 3)
        self.insert("evaluation_datasets", dataset_id="v", name="v", digest="1", workspace="default")
        self.insert("evaluation_dataset_tags", dataset_id="v", key="k")
        self.insert("evaluation_dataset_records", dataset_id="v", dataset_record_id="r", source_id="s", input_hash="1")
        for source, destination in (("evaluation_dataset", "experiment"), ("trace", "run")):
            which = {"source_id": "v" if destination == "experiment" else "t"}
            which["destination_id"] = "3" if destination == "experiment" else run_id("a")
            self.insert(
                "entity_associations", association_id=source, source_type=source, destination_type=destination, **which
            )
        self.version(1, run=run_id("a"))
        self.insert("registered_model_tags", name="churn", key="k", workspace="default")
        self.insert("model_version_tags", name="churn", version=1, key="k", workspace="default")
        self.insert("registered_model_aliases", name="churn", version=1, alias="prod", workspace="default")

    def trace(self, which: str, experiment: int, location: str = "file:///nowhere/t") -> None:
        self.insert("trace_info", request_id=which, experiment_id=experiment, status="OK", client_request_id=None)
        self.insert("trace_tags", request_id=which, key="k")
        self.insert("trace_tags", request_id=which, key="mlflow.artifactLocation", value=location)
        self.insert("trace_request_metadata", request_id=which, key="k")
        self.insert("trace_metrics", request_id=which, key="k")
        span = {"end_time_unix_nano": 2**53 + 11}
        self.insert("spans", trace_id=which, experiment_id=experiment, span_id="s", status="OK", **span)
        self.insert("span_metrics", trace_id=which, span_id="s", key="k")
        self.insert(
            "assessments", assessment_id=f"a-{which}", trace_id=which, assessment_type="feedback", run_id=None,
            source_type="HUMAN", experiment_id=experiment,
        )  # fmt: skip

    def version(self, number: int, at: Database | None = None, run: str | None = None, **given: Any) -> None:
        there = (at or self.source).query("SELECT 1 FROM registered_models WHERE name = 'churn'")
        if not there:
            self.insert("registered_models", at, name="churn", workspace="default")
        given = {"source": f"runs:/{run}/model", "storage_location": None} | given
        self.insert(
            "model_versions", at, name="churn", version=number, run_id=run, workspace="default", current_stage="None",
            status="READY", **given,
        )  # fmt: skip

    def rows(self, database: Database, *without: str) -> dict[str, list[str]]:
        """By table, without what a new database has and some columns."""
        return {
            table: sorted(
                repr([_plain(value) for column, value in row.items() if column not in without])
                for row in database.query(f"SELECT * FROM {table}")
                if row.get("name") not in ("Default", "default")
            )
            for table in COPIED
        }

    async def copy(self, *experiments: str, **given: Any) -> Report:
        """Without artifacts, unless `given` says so."""
        options = {"artifacts": False} | given
        settings = Settings(backend_store_uri=self.target.uri, artifacts_destination=str(self.folder / "target"))
        source, target = (_opened(each, each is self.target) for each in (self.source, self.target))
        return await copy(source, target, settings, Options(experiments, **options), lambda _: None)


def _opened(database: Database, writes: bool) -> Store:
    url = parse(database.uri)
    assert isinstance(url, PostgresURL | SqliteURL)
    return open_store(url, writes)


def _plain(value: Any) -> Any:
    """As both databases have it."""
    return json.dumps(value) if isinstance(value, dict) else int(value) if isinstance(value, bool) else value


class Artifacts:
    """Files of a run, a logged model and a trace, behind a server whose folder is `folder`."""

    def __init__(self, ends: Ends, root: str = "mlflow-artifacts:/3") -> None:
        self.ends, self.folder, self.target = ends, ends.folder / "source", ends.folder / "target"
        ends.experiment(3, artifact_location=root)
        ends.run("a", 3, artifact_uri=f"{root}/{run_id('a')}/artifacts")
        ends.run("b", 3, artifact_uri=f"{root}/{run_id('b')}/artifacts")
        model = f"{root}/models/{model_id('a')}/artifacts"
        ends.insert(
            "logged_models", model_id=model_id("a"), experiment_id=3, name="m", lifecycle_stage="active", status=2,
            artifact_location=model,
        )  # fmt: skip
        ends.trace("t", 3, f"{root}/traces/t/artifacts")
        source = f"{root}/{run_id('a')}/artifacts/model"
        ends.version(1, run=run_id("a"), source=source, storage_location=f"{model}/")
        self.paths = [
            f"{run_id('a')}/artifacts/model/MLmodel", f"{run_id('a')}/artifacts/größe ü.txt",
            f"models/{model_id('a')}/artifacts/MLmodel", "traces/t/artifacts/traces.json",
        ]  # fmt: skip
        for path in self.paths:
            file = self.folder / "3" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(path)

    def copied(self) -> dict[str, str]:
        """Path -> what is in it."""
        files = [file for file in self.target.rglob("*") if file.is_file()]
        return {str(file.relative_to(self.target)): file.read_text() for file in files}

    def locations(self) -> set[str]:
        texts = [
            "SELECT artifact_uri AS uri FROM runs", "SELECT artifact_location AS uri FROM logged_models",
            "SELECT value AS uri FROM trace_tags WHERE key = 'mlflow.artifactLocation'",
            "SELECT source AS uri FROM model_versions", "SELECT storage_location AS uri FROM model_versions",
        ]  # fmt: skip
        return {row["uri"] for text in texts for row in self.ends.target.query(text)}
