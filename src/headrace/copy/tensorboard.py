"""`python -m headrace.copy.tensorboard FILE`: folders of TensorBoard's event files as rows of a SQLite file.

Standard input says, as JSON, which folder (`source`). Each folder below it that has event files is a run, as in
TensorBoard, named by its path. Scalars become metrics, hyperparameters params; images, texts and sounds become
artifacts, and so do the event files themselves, which have all else (histograms, graphs, curves).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.copy.stage import Point, Run, Stage, key_of, param_of, portions, same_id, tag_of

FILES = "events.out.tfevents.*"
_EXPERIMENT = 1
# what is a file for each value: the plugin's name -> the folder and the files' suffix
_MEDIA = {"images": ("images", ".png"), "text": ("text", ".md"), "audio": ("audio", ".wav")}
_AHEAD, _BEHIND = struct.Struct("<QI"), struct.Struct("<I")  # of a record: length and its checksum; the content's
_STATUS = {0: "FINISHED", 1: "FINISHED", 2: "FAILED", 3: "RUNNING"}  # tensorboard's hparams/api.proto, Status


def main(file: str) -> None:
    """Make the database, and beside it the folder of artifacts."""
    folder = Path(json.load(sys.stdin)["source"]).resolve()
    artifacts = Path(file).with_name("artifacts")
    with contextlib.closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as database:
        stage = Stage(file, database)
        stage.experiment(_EXPERIMENT, folder.name, str(artifacts), 0, 0)
        for where in sorted({path.parent for path in folder.rglob(FILES)}):
            Session(folder, where, artifacts).put(stage)
        database.execute(
            "UPDATE experiments SET (creation_time, last_update_time) = "
            "(SELECT min(start_time), max(coalesce(end_time, start_time)) FROM runs)"
        )


class Session:
    """What one folder's event files have, which is a run."""

    def __init__(self, root: Path, where: Path, artifacts: Path) -> None:
        self._files = sorted(where.glob(FILES))
        self._name = root.name if where == root else where.relative_to(root).as_posix()
        self._artifacts, self._folder = artifacts, where
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._status = "FINISHED"
        self._begin = self._end = 0.0

    def put(self, stage: Stage) -> None:
        """Into the stage. What the run is called and when it began stands in the files, so they are read first."""
        points = list(self._points())
        if not self._begin:  # no event was written yet
            return
        run_id = same_id("tensorboard", self._name, self._begin)
        mine = self._artifacts / run_id
        if self._media.exists():
            self._media.rename(mine)
        for file in self._files:
            _link(file, mine / "tensorboard" / file.name)
        run = Run(
            run_id,
            _EXPERIMENT,
            self._name,
            "",
            self._status,
            round(self._begin * 1000),
            round(self._end * 1000) if self._status != "RUNNING" else None,
            str(mine),
            params=self._params,
            tags={"mlflow.runName": self._name, "mlflow.source.name": str(self._folder), **self._tags},
        )
        with stage.run(run):
            for portion in portions(points):
                stage.points(run_id, portion)
            stage.latest(run_id)

    @property
    def _media(self) -> Path:
        return self._artifacts / "of the session that is read"

    def _points(self) -> Iterator[Point]:
        """The scalars. What else there is, is kept on the way."""
        from tensorboard.util import tensor_util

        plugins: dict[str, str] = {}  # of a tag; its first value alone says so
        for file in self._files:
            for event in events(file):
                self._begin = min(self._begin or event.wall_time, event.wall_time)
                self._end = max(self._end, event.wall_time)
                for value in event.summary.value:
                    plugin = plugins.setdefault(value.tag, value.metadata.plugin_data.plugin_name)
                    if plugin == "scalars":
                        number = float(tensor_util.make_ndarray(value.tensor).item())
                        yield Point(key_of(value.tag), number, round(event.wall_time * 1000), event.step)
                    elif plugin == "hparams":
                        self._read_hyperparameters(value.metadata.plugin_data.content)
                    elif plugin in _MEDIA:
                        self._keep(plugin, value.tag, event.step, tensor_util.make_ndarray(value.tensor))

    def _read_hyperparameters(self, content: bytes) -> None:
        from tensorboard.plugins.hparams import plugin_data_pb2

        data = plugin_data_pb2.HParamsPluginData.FromString(content)
        for name, value in data.session_start_info.hparams.items():
            kind = value.WhichOneof("kind") or "string_value"
            self._params[key_of(name)] = param_of(None if kind == "null_value" else getattr(value, kind))
        if data.session_start_info.group_name:
            self._tags["tensorboard.group"] = tag_of(data.session_start_info.group_name)
        if data.HasField("session_end_info"):
            self._status = _STATUS[data.session_end_info.status]

    def _keep(self, plugin: str, tag: str, step: int, tensor: Any) -> None:
        """Images are width, height and one or more files; sounds are rows of a file and its label; texts are texts."""
        folder, suffix = _MEDIA[plugin]
        values = tensor.ravel().tolist()
        if plugin == "images":
            values = values[2:]
        elif plugin == "audio":
            values = tensor.reshape(-1, tensor.shape[-1])[:, 0].tolist()
        for number, content in enumerate(values):
            more = f"-{number}" if len(values) > 1 else ""
            file = self._media / folder / key_of(tag) / f"{step}{more}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else str(content).encode())


def events(file: Path) -> Iterator[Any]:
    """The events of a file, by TensorBoard's loader. That takes damage for the end of what is written so far, and says
    nothing: such a file raises ValueError. One whose end is not there yet is read up to there."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader, RawEventFileLoader

    class Records(RawEventFileLoader):  # type: ignore[misc]
        position = 0

        def Load(self) -> Iterator[bytes]:
            for record in super().Load():
                self.position += _AHEAD.size + len(record) + _BEHIND.size
                yield record

    class Events(EventFileLoader, Records):  # type: ignore[misc]
        """Parsed, of what Records has read."""

    loader = Events(str(file))
    yield from loader.Load()
    if _is_damaged(file, loader.position):
        raise ValueError(f"{file.name}: it is damaged at byte {loader.position}")


def _is_damaged(file: Path, position: int) -> bool:
    """Whether a record is there whole, or its length is, with another checksum than it has."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    with file.open("rb") as log:
        log.seek(position)
        head = log.read(_AHEAD.size)
        if len(head) < _AHEAD.size or not any(head):  # zeros are what a machine that died had not written
            return False
        length, checksum = _AHEAD.unpack(head)
        if masked_crc32c(head[:8]) != checksum:
            return True
        content, behind = log.read(length), log.read(_BEHIND.size)
    return len(behind) == _BEHIND.size and (masked_crc32c(content),) != _BEHIND.unpack(behind)


def _link(file: Path, there: Path) -> None:
    """The same file at two places, where the file system has that."""
    there.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, there)
    except OSError:
        shutil.copyfile(file, there)


if __name__ == "__main__":
    main(*sys.argv[1:])
