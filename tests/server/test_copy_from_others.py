"""`headrace copy` from TensorBoard's and W&B's runs, written by what people write them with."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import run_headrace
from tests.support.databases import Database, Databases
from tests.support.processes import clean_environment

TENSORBOARD = """
import numpy
from tensorboard.summary import Writer
from tensorboardX import SummaryWriter

with SummaryWriter("board/first") as writer:
    for step in range(3):
        writer.add_scalar("loss/train", 1 / (step + 1), step, walltime=1700000000.5 + step)
    writer.add_scalar("acc", 50, 2, walltime=1700000009)
    writer.add_scalars("both", {"a": 1.0}, 2, walltime=1700000010)
    writer.add_text("note", "# größe", 1)
    writer.add_image("pictures/one", numpy.zeros((3, 4, 5)), 2)
    writer.add_histogram("weights", numpy.arange(10.0), 0)
    writer.add_hparams({"lr": 0.5, "name": "adam", "flag": True}, {"best": 0.25}, name="tuned", global_step=1)
own = Writer("board/second run")
own.add_scalar("Acc@1 (%)", 2.0, 7)
own.close()
"""
WANDB = """
import math, pathlib, sys
import numpy, wandb

run = wandb.init(
    project="churn", name="größe", mode="offline", config={"lr": 0.5, "model": {"layers": [1, 2], "name": "x"}},
    tags=["a", "b"], notes="why", group="sweep",
)
for step in range(3):
    run.log({"loss": 1 / (step + 1), "val": {"acc": step / 2}, "nan": math.nan, "text": "words"})
run.log({"picture": wandb.Image(numpy.zeros((4, 4, 3), dtype="uint8")), "inf": math.inf, "loss": 0.125})
run.summary["best"] = 0.875
for name in ("kept.txt", "gone.txt"):
    pathlib.Path(name).write_text(name)
    run.save(name, policy="end")
print("said on the way")
run.finish(exit_code=int(sys.argv[1]))
"""


def write(script: str, folder: Path, *arguments: str) -> None:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    environment = clean_environment() | {"WANDB_SILENT": "true", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def copied(source: str, target: Database, cwd: Path, *options: str) -> dict[str, Any]:
    done = run_headrace("copy", source, target.uri, "--artifacts-destination", "there", "--json", *options, cwd=cwd)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def run_named(target: Database, name: str) -> dict[str, Any]:
    (run,) = target.query(f"SELECT * FROM runs WHERE name = '{name}'")
    return run


def of_run(target: Database, table: str, columns: str, run: dict[str, Any]) -> list[tuple[Any, ...]]:
    order = ", step" if table == "metrics" else ""
    rows = target.query(f"SELECT {columns} FROM {table} WHERE run_uuid = '{run['run_uuid']}' ORDER BY key{order}")
    return [tuple(row.values()) for row in rows]


def test_tensorboard(databases: Databases, tmp_path: Path) -> None:
    write(TENSORBOARD, tmp_path)
    target = databases.migrated("sqlite")
    report = copied("board", target, tmp_path)
    assert (report["experiments"], report["runs"]) == (1, 4), report
    assert [row["name"] for row in target.query("SELECT name FROM experiments WHERE name <> 'Default'")] == ["board"]
    run = run_named(target, "first")
    assert (run["status"], run["start_time"] <= 1700000000500) == ("FINISHED", True)
    assert of_run(target, "metrics", "key, value, timestamp, step", run) == [
        ("acc", 50, 1700000009000, 2),
        ("loss/train", 1.0, 1700000000500, 0),
        ("loss/train", 0.5, 1700000001500, 1),
        ("loss/train", pytest.approx(1 / 3), 1700000002500, 2),
    ]
    assert of_run(target, "latest_metrics", "key, step", run) == [("acc", 2), ("loss/train", 2)]
    files = tmp_path / "there" / str(run["experiment_id"]) / run["run_uuid"] / "artifacts"
    assert (files / "text/note/text_summary/1.md").read_text() == "# größe"
    assert (files / "images/pictures/one/2.png").read_bytes().startswith(b"\x89PNG")
    # the whole, with histograms, as TensorBoard has it
    (events,) = (tmp_path / "board/first").glob("events.out.*")
    assert (files / "tensorboard" / events.name).read_bytes() == events.read_bytes()
    tuned = run_named(target, "first/tuned")
    assert of_run(target, "params", "key, value", tuned) == [("flag", "true"), ("lr", "0.5"), ("name", "adam")]
    assert of_run(target, "metrics", "key, value, step", tuned) == [("best", 0.25, 1)]
    assert of_run(target, "metrics", "key, value, step", run_named(target, "second run")) == [("Acc_1 ___", 2, 7)]
    # again: what was logged since comes, and nothing twice
    write(
        'from tensorboardX import SummaryWriter as W\nwith W("board/first") as w: w.add_scalar("more", 1, 1)', tmp_path
    )
    copied("board", target, tmp_path)
    assert [key for key, _ in of_run(target, "latest_metrics", "key, step", run)] == ["acc", "loss/train", "more"]
    assert len(target.query("SELECT run_uuid FROM runs")) == 4


def test_wandb(databases: Databases, tmp_path: Path) -> None:
    write(WANDB, tmp_path, "0")
    write(WANDB, tmp_path, "1")
    (tmp_path / "gone.txt").unlink()  # the run's folder has a link to it
    target = databases.migrated("sqlite")
    report = copied("wandb", target, tmp_path, "--experiment", "churn")
    assert (report["experiments"], report["runs"]) == (1, 2), report
    assert sorted(row["status"] for row in target.query("SELECT status FROM runs")) == ["FAILED", "FINISHED"]
    (run,) = target.query("SELECT * FROM runs WHERE status = 'FINISHED'")
    assert (run["name"], run["start_time"] < run["end_time"]) == ("größe", True)
    assert of_run(target, "metrics", "key, value, step, is_nan", run) == [
        ("best", 0.875, 3, 0),
        ("inf", sys.float_info.max, 3, 0),
        *(("loss", value, step, 0) for step, value in enumerate((1, 0.5, 1 / 3, 0.125))),
        *(("nan", 0, step, 1) for step in range(3)),
        *(("val.acc", step / 2, step, 0) for step in range(3)),
    ]
    assert of_run(target, "params", "key, value", run) == [
        ("lr", "0.5"), ("model.layers", "[1, 2]"), ("model.name", "x"),
    ]  # fmt: skip
    tags = dict(of_run(target, "tags", "key, value", run))
    assert (tags["mlflow.note.content"], tags["wandb.tags"], tags["wandb.group"]) == ("why", "a, b", "sweep")
    files = tmp_path / "there" / str(run["experiment_id"]) / run["run_uuid"] / "artifacts"
    assert "said on the way" in (files / "output.log").read_text()
    assert [file.name for file in files.glob("*.txt") if file.name != "requirements.txt"] == ["kept.txt"]
    assert (files / "kept.txt").read_text() == "kept.txt"
    (picture,) = (files / "media/images").iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")
    (log,) = (tmp_path / "wandb").glob(f"*/run-{tags['wandb.run_id']}.wandb")
    assert (files / "wandb" / log.name).read_bytes() == log.read_bytes()
    assert math.isclose(run["end_time"], run["start_time"], abs_tol=60_000)
    again = copied(str(log.parent), target, tmp_path)
    assert len(target.query("SELECT run_uuid FROM runs")) == 2, again


def test_their_files_go_along(tmp_path: Path) -> None:
    (tmp_path / "board").mkdir()
    (tmp_path / "board/events.out.tfevents.1").touch()
    done = run_headrace("copy", "board", "sqlite:///new.db", "--without-artifacts", cwd=tmp_path)
    assert done.returncode == 2
    assert "--without-artifacts is for files that stay where they are; those of SOURCE do not." in done.stderr
