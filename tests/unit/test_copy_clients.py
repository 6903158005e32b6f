"""Files that MLflow's client can't download: the others of their run are copied all the same, and each is told."""

from __future__ import annotations

from pathlib import Path

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException

from headrace.copy.clients import download


class Repository:
    """A stand-in for a store that lists a file but does not give it, as stock one with a leading blank."""

    def list_artifacts(self, path: str | None) -> list[FileInfo]:
        return [FileInfo("d/good", False, 1), FileInfo("d/bad", False, 1)] if path else [FileInfo("d", True, None)]

    def download_artifacts(self, path: str, folder: str) -> None:
        if path:
            file = Path(folder, path)
            file.parent.mkdir(exist_ok=True)
            file.write_text("x")
        if path != "d/good":
            raise MlflowException("404")


def test_one_that_fails_leaves_no_other(tmp_path: Path) -> None:
    (tmp_path / "a half").write_text("")
    assert download(Repository(), str(tmp_path)) == {"d/bad": "404"}
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["good"]
