"""What a copy has done, or would do."""

from __future__ import annotations

from msgspec import Struct, field


class Mapped(Struct, frozen=True):
    """What has another id at the target."""

    kind: str
    source: str
    target: str


class Left(Struct, frozen=True):
    """What was not copied. `kind`: run, logged model, trace, experiment, registered model, files of a run, ..."""

    kind: str
    id: str
    reason: str


class Report(Struct):
    """What is new at the target; `metrics` are points, `bytes` those of the files.

    `completed`: runs, models and traces that were there and lacked something.
    """

    experiments: int = 0
    runs: int = 0
    metrics: int = 0
    logged_models: int = 0
    traces: int = 0
    registered_models: int = 0
    model_versions: int = 0
    evaluation_datasets: int = 0
    files: int = 0
    bytes: int = 0
    completed: int = 0
    mapped: list[Mapped] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def map(self, kind: str, source: object, target: object) -> None:
        """Say it once."""
        if (each := Mapped(kind, str(source), str(target))) not in self.mapped:
            self.mapped.append(each)

    def leave(self, kind: str, which: object, reason: object) -> None:
        """Say it once."""
        if (each := Left(kind, str(which), str(reason))) not in self.left:
            self.left.append(each)
