"""Rows of many runs -> runs: what both backends share when they answer a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Raw

from headrace.entities import EncodedRun, KeyValue, Metric, Run, RunData, number
from headrace.errors import Declined
from headrace.resources.runs.records import inputs_and_outputs, run_info

RUN_COLUMNS = (
    "run_uuid",
    "name",
    "experiment_id",
    "user_id",
    "status",
    "start_time",
    "end_time",
    "lifecycle_stage",
    "artifact_uri",
)
"""What run_info takes, in its order: the first columns of the rows of a search."""
RUN_INFO = ", ".join(RUN_COLUMNS)


class RunRows:
    """The runs of a page, and their data as it is read.

    Raises Declined for rows of old or foreign servers that stock renders in its own way.
    """

    def __init__(self, rows: Iterable[Sequence[Any]]) -> None:
        width = len(RUN_COLUMNS)
        self._infos = [tuple(row)[:width] for row in rows]
        for _, _, _, user_id, _, start_time, *_ in self._infos:
            if start_time is None or user_id is None:
                raise Declined("a run has no start_time or user_id")
        self._data = {info[0]: RunData([], [], []) for info in self._infos}
        self._linked: dict[str, list[Mapping[str, Any]]] = {}
        self.run_ids = list(self._data)

    def nameless(self) -> list[str]:
        """The ids of runs without a name of their own."""
        return [info[0] for info in self._infos if not info[1]]

    def name(self, rows: Iterable[Sequence[Any]]) -> None:
        """(run_uuid, name) of runs whose name is in their tag."""
        names = {row[0]: row[1] for row in rows}
        self._infos = [(info[0], names.get(info[0]) or info[1], *info[2:]) for info in self._infos]

    def add_metrics(self, rows: Iterable[Sequence[Any]]) -> None:
        """(run_uuid, key, value, timestamp, step); NaN as a float or as text."""
        data = self._data
        for run_id, key, value, timestamp, step in rows:
            data[run_id].metrics.append(Metric(key, number(value), timestamp, step))

    def add_params(self, rows: Iterable[Sequence[Any]]) -> None:
        """(run_uuid, key, value)."""
        data = self._data
        for run_id, key, value in rows:
            data[run_id].params.append(KeyValue(key, value))

    def add_tags(self, rows: Iterable[Sequence[Any]]) -> None:
        """(run_uuid, key, value)."""
        data = self._data
        for run_id, key, value in rows:
            if value is None:
                raise Declined("a run has a tag without a value")
            data[run_id].tags.append(KeyValue(key, value))

    def add_linked(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """run_id, and what records.inputs_and_outputs reads."""
        for row in rows:
            self._linked.setdefault(row["run_id"], []).append(row)

    def metrics(self) -> Iterable[tuple[str, Sequence[Metric]]]:
        """The metrics that were added, of each run that has some."""
        return ((run_id, data.metrics) for run_id, data in self._data.items() if data.metrics)

    def encoded(self, *parts: tuple[str, Mapping[str, str]]) -> list[EncodedRun]:
        """The runs with data that is JSON: a part is a name of RunData's, and for each run the members of its list."""
        runs = []
        for info in self._infos:
            run_id = info[0]
            lists = ",".join(f'"{name}":[{members[run_id]}]' for name, members in parts if run_id in members)
            inputs, outputs = inputs_and_outputs(self._linked.get(run_id, ()))
            runs.append(EncodedRun(run_info(*info), Raw(f"{{{lists}}}".encode()), inputs, outputs))
        return runs

    def runs(self) -> list[Run]:
        return [
            Run(run_info(*info), self._data[info[0]], *inputs_and_outputs(self._linked.get(info[0], ())))
            for info in self._infos
        ]
