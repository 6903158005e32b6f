"""A database with rows of everything, and a folder with the artifacts of their runs and models."""

from __future__ import annotations

from pathlib import Path

from tests.support.databases import Database

OLD, YOUNG = 1_000_000, 2_000_000
# every table that has rows of a run, an experiment, a model or a trace
TABLES = (
    "runs", "metrics", "latest_metrics", "params", "tags", "inputs", "input_tags", "datasets", "entity_associations",
    "experiments", "experiment_tags", "logged_models", "logged_model_params", "logged_model_tags",
    "logged_model_metrics", "trace_info", "trace_tags", "spans", "online_scoring_configs", "scorers",
)  # fmt: skip


def run_id(letter: str) -> str:
    return letter * 32


def model_id(letter: str) -> str:
    return "m-" + letter * 32


class World:
    """A database with a folder of artifacts."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder

    def insert(self, table: str, **values: object) -> None:
        texts = [str(value).lower() if isinstance(value, int) else f"'{value}'" for value in values.values()]
        self.database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(texts)})")

    def experiment(self, number: int, deleted: int | None = None) -> None:
        stage = "active" if deleted is None else "deleted"
        self.insert(
            "experiments", experiment_id=number, name=f"e{number}", lifecycle_stage=stage, workspace="default",
            artifact_location=f"mlflow-artifacts:/{number}", last_update_time=deleted or YOUNG,
        )  # fmt: skip
        self.insert("experiment_tags", experiment_id=number, key="k", value="v")
        self.insert(
            "datasets", dataset_uuid=f"d{number}", experiment_id=number, name="d", digest="1",
            dataset_source_type="t", dataset_source="s",
        )  # fmt: skip
        self.insert("trace_info", request_id=f"t{number}", experiment_id=number, timestamp_ms=1, status="OK")
        self.insert("trace_tags", request_id=f"t{number}", key="k", value="v")
        self.insert(
            "spans", trace_id=f"t{number}", experiment_id=number, span_id="s", status="OK", start_time_unix_nano=1,
            content="{}",
        )  # fmt: skip
        self.insert("scorers", experiment_id=number, scorer_name="s", scorer_id=f"s{number}")
        self.insert(
            "online_scoring_configs", online_scoring_config_id=f"o{number}", scorer_id=f"s{number}", sample_rate=1,
            experiment_id=number,
        )  # fmt: skip
        self.insert(
            "entity_associations", association_id=f"e{number}", source_type="evaluation_dataset", source_id="1",
            destination_type="experiment", destination_id=number, created_time=1,
        )  # fmt: skip

    def run(self, letter: str, experiment: int, deleted: int | None = None, metrics: int = 3) -> None:
        uri = f"mlflow-artifacts:/{experiment}/{run_id(letter)}/artifacts"
        self.insert(
            "runs", run_uuid=run_id(letter), experiment_id=experiment, artifact_uri=uri, status="FINISHED",
            source_type="LOCAL", lifecycle_stage="active" if deleted is None else "deleted",
        )  # fmt: skip
        if deleted is not None:
            self.database.execute(f"UPDATE runs SET deleted_time = {deleted} WHERE run_uuid = '{run_id(letter)}'")
        rows = ", ".join(f"('{run_id(letter)}', 'm', 1, {step}, {step}, false)" for step in range(metrics))
        self.database.execute(f"INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan) VALUES {rows}")
        self.insert("latest_metrics", run_uuid=run_id(letter), key="m", value=1, timestamp=1, step=1, is_nan=False)
        self.insert("params", run_uuid=run_id(letter), key="p", value="v")
        self.insert("tags", run_uuid=run_id(letter), key="t", value="v")
        self.insert(
            "inputs", input_uuid=f"i{letter}", source_type="DATASET", source_id=f"d{experiment}",
            destination_type="RUN", destination_id=run_id(letter),
        )  # fmt: skip
        self.insert("input_tags", input_uuid=f"i{letter}", name="k", value="v")
        self.insert(
            "entity_associations", association_id=f"r{letter}", source_type="trace", source_id=f"t{experiment}",
            destination_type="run", destination_id=run_id(letter), created_time=1,
        )  # fmt: skip
        self.file(f"{experiment}/{run_id(letter)}/artifacts/deep/file")

    def model(self, letter: str, experiment: int, deleted: int | None = None) -> None:
        self.insert(
            "logged_models", model_id=model_id(letter), experiment_id=experiment, name="m",
            artifact_location=f"mlflow-artifacts:/{experiment}/models/{model_id(letter)}/artifacts",
            creation_timestamp_ms=1, last_updated_timestamp_ms=deleted or YOUNG, status=1,
            lifecycle_stage="active" if deleted is None else "deleted",
        )  # fmt: skip
        for table in ("param", "tag"):
            values = {f"{table}_key": "k", f"{table}_value": "v"}
            self.insert(f"logged_model_{table}s", model_id=model_id(letter), experiment_id=experiment, **values)
        self.file(f"{experiment}/models/{model_id(letter)}/artifacts/MLmodel")

    def version(self, name: str, source: str, run: str = "") -> None:
        self.insert("registered_models", name=name, workspace="default")
        self.insert(
            "model_versions", name=name, version=1, workspace="default", source=source, run_id=run,
            current_stage="None", status="READY",
        )  # fmt: skip

    def file(self, path: str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("x")

    @property
    def files(self) -> list[str]:
        return sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file())

    def rows(self) -> dict[str, int]:
        return {table: self.database.query(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in TABLES}
