"""`python -m headrace.copy.wandb FILE`: W&B's runs on the disk as rows of a SQLite file.

Standard input says, as JSON, which folder (`source`): ./wandb, or one run in it. A project is an experiment. The
history's numbers become metrics, the configuration params; the run's files become artifacts, and so does its .wandb
file, which has all else (tables, texts, the system's own metrics). W&B writes one for offline and for synced runs.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headrace.copy.stage import Point, Run, Stage, key_of, param_of, portions, same_id, tag_of

_HEADER = b":W&B\xe1\xbe\x00"
_BLOCK = 32 * 1024
_PREFIX = struct.Struct("<IHB")  # checksum, length, kind
_WHOLE, _FIRST, _LAST = 1, 2, 4  # 3 is between


def main(file: str) -> None:
    """Make the database, and beside it the folder of artifacts."""
    folder = Path(json.load(sys.stdin)["source"]).resolve()
    artifacts = Path(file).with_name("artifacts")
    with contextlib.closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as database:
        stage = Stage(file, database)
        projects: dict[str, int] = {}
        for log in logs(folder):
            run = WandbRun(log)
            if run.read():
                run.put(stage, projects.setdefault(run.project, len(projects) + 1), artifacts)
        database.execute(
            "UPDATE experiments SET (creation_time, last_update_time) = (SELECT min(start_time), "
            "max(coalesce(end_time, start_time)) FROM runs WHERE runs.experiment_id = experiments.experiment_id)"
        )


def logs(folder: Path) -> list[Path]:
    """The .wandb files of the runs in a folder: of one run, of ./wandb, or of what has a folder `wandb`."""
    found = (log for pattern in ("", "*run-*/", "wandb/*run-*/") for log in folder.glob(f"{pattern}*.wandb"))
    return sorted({log.resolve() for log in found})  # latest-run is a link


class WandbRun:
    """A run, read from its log."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.project = "uncategorized"  # as W&B calls it
        self._run: Any = None
        self._config: dict[str, Any] = {}
        self._summary: dict[str, Any] = {}
        self._points: list[Point] = []
        self._status, self._last = "RUNNING", 0.0

    def read(self) -> bool:
        """Whether there is a run in it."""
        from wandb.proto.wandb_internal_pb2 import Record

        try:
            contents = list(records(self._log.read_bytes()))
        except ValueError as error:
            raise ValueError(f"{self._log.name}: {error}") from None
        for content in contents:
            record = Record.FromString(content)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self._run = record.run
                self.project = record.run.project or self.project
                self._change(self._config, record.run.config)
                self._change(self._summary, record.run.summary)
            elif kind == "config":
                self._change(self._config, record.config)
            elif kind == "summary":
                self._change(self._summary, record.summary)
            elif kind == "history":
                self._log_step(record.history)
            elif kind == "exit":
                self._status = "FAILED" if record.exit.exit_code else "FINISHED"
        return self._run is not None

    def put(self, stage: Stage, experiment_id: int, artifacts: Path) -> None:
        """Into the stage."""
        given = self._run
        name = given.display_name or given.run_id
        run_id = same_id("wandb", given.entity, given.project, given.run_id)
        begin = round(given.start_time.seconds * 1000 + given.start_time.nanos / 1e6)
        end = max(begin, round(self._last * 1000))
        stage.experiment(experiment_id, self.project, str(artifacts), begin, begin)
        self._copy_files(artifacts / run_id)
        row = Run(
            run_id,
            experiment_id,
            name,
            "",
            self._status,
            begin,
            end if self._status != "RUNNING" else None,
            str(artifacts / run_id),
            params={key_of(key): param_of(value) for key, value in _flat(self._config)},
            tags={"mlflow.runName": name, **self._tags()},
        )
        with stage.run(row):
            for portion in portions(self._points):
                stage.points(run_id, portion)
            stage.points(run_id, self._only_in_summary(end))
            stage.latest(run_id)

    def _log_step(self, history: Any) -> None:
        """One row of the history: values by key, and when it was."""
        row: dict[str, Any] = {}
        for item in history.item:
            _set(row, item)
        step = int(row.get("_step", history.step.num))
        self._last = max(self._last, row.get("_timestamp", 0.0))
        timestamp = round(row.get("_timestamp", self._last) * 1000)
        self._points += [Point(key, value, timestamp, step) for key, value in _numbers(row)]

    def _change(self, kept: dict[str, Any], record: Any) -> None:
        for item in record.update:
            _set(kept, item)
        for item in record.remove:
            kept.pop(_path(item)[0], None)

    def _only_in_summary(self, timestamp: int) -> list[Point]:
        logged = {point.key for point in self._points}
        step = max((point.step for point in self._points), default=0)
        return [Point(key, value, timestamp, step) for key, value in _numbers(self._summary) if key not in logged]

    def _tags(self) -> dict[str, str]:
        run = self._run
        tags = {
            "mlflow.note.content": run.notes,
            "mlflow.source.git.commit": run.git.commit,
            "mlflow.source.git.repoURL": run.git.remote_url,
            "wandb.run_id": run.run_id,
            "wandb.entity": run.entity,
            "wandb.group": run.run_group,
            "wandb.job_type": run.job_type,
            "wandb.sweep": run.sweep_id,
            "wandb.tags": ", ".join(run.tags),
        }
        return {key: tag_of(value) for key, value in tags.items() if value}

    def _copy_files(self, there: Path) -> None:
        """`run.save` makes links to files elsewhere: one whose file has gone, or that came without it, is left out."""
        files = self._log.parent / "files"
        if files.is_dir():
            shutil.copytree(files, there, ignore_dangling_symlinks=True)
        (there / "wandb").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._log, there / "wandb" / self._log.name)


def records(log: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format behind a header of its own, with zlib's CRC-32.

    A file whose end was not written (a run that is under way, a machine that died) is read up to there. Raises
    ValueError for what is no such file, or is damaged.
    """
    if not log.startswith(_HEADER):
        raise ValueError("it is no .wandb file of a version that is known")
    position, record = len(_HEADER), b""
    while position + _PREFIX.size <= len(log):
        if (rest := _BLOCK - position % _BLOCK) < _PREFIX.size:
            position += rest
            continue
        checksum, length, kind = _PREFIX.unpack_from(log, position)
        begin, position = position + _PREFIX.size, position + _PREFIX.size + length
        part = log[begin:position]
        if len(part) < length or not kind:
            return
        if zlib.crc32(part, zlib.crc32(bytes((kind,)))) != checksum:
            raise ValueError(f"it is damaged at byte {begin}")
        record = part if kind in (_WHOLE, _FIRST) else record + part
        if kind in (_WHOLE, _LAST):
            yield record


def _path(item: Any) -> list[str]:
    return list(item.nested_key) or [item.key]


def _set(kept: dict[str, Any], item: Any) -> None:
    *above, last = _path(item)
    for key in above:
        below = kept.get(key)
        kept[key] = kept = below if isinstance(below, dict) else {}
    kept[last] = _value(item)


def _value(item: Any) -> Any:
    """A history's item has had a field for each kind of value since wandb 0.31; all have JSON."""
    kind = item.WhichOneof("value") if "value" in item.DESCRIPTOR.oneofs_by_name else None
    if kind in (None, "value_json", "json"):
        return json.loads(item.json if kind == "json" else item.value_json or "null")
    return None if kind == "none" else getattr(item, kind)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dictionaries, with keys as W&B's pages write them: a.b. W&B's own begin with "_"."""
    for key, value in values.items():
        if key.startswith("_") and not above:
            continue
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Those of a history or summary that are metrics: not of an image, a table, ... which say their `_type`."""
    plain = {key: value for key, value in values.items() if not (isinstance(value, dict) and "_type" in value)}
    for key, value in _flat(plain):
        if isinstance(value, int | float):
            yield key_of(key), float(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
