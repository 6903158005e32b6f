"""server-info: the installed MLflow says which fields, the settings say what is in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.resources import server_info
from headrace.settings import Settings

# as MLflow 3.17 and 3.18 write them in mlflow/utils/server_info.py
OLD = {
    *("store_type", "workspaces_enabled", "trace_archival_enabled", "multipart_uploads_enabled", "features_enabled"),
    *("multipart_downloads_enabled", "presigned_upload_run_id_supported", "presigned_upload_model_id_supported"),
}
NEW = OLD | {
    *("artifact_serving_enabled", "skill_content_max_size", "skill_content_max_files", "tracking_auth"),
    *("model_artifact_presigned_downloads_supported", "artifacts_presigned_only"),
}
ON_S3 = Settings(artifacts_destination="s3://bucket/a")


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"):
        monkeypatch.delenv(name, raising=False)


def answer(monkeypatch: pytest.MonkeyPatch, fields: set[str], settings: Settings) -> dict[str, Any] | None:
    monkeypatch.setattr(server_info, "installed_fields", lambda: fields)
    made = server_info.server_info(settings)
    return None if made is None else json.loads(made)


def test_the_fields_are_read_from_the_source_one_on_several_lines_too() -> None:
    source = 'SERVER_INFO_A = "a"\nSERVER_INFO_LONG = (\n    "a_long_one"\n)\nSERVER_INFO_ENDPOINT = "/api/x"\n'
    assert server_info.fields_in(source) == {"a", "a_long_one"}


def test_of_3_17(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(monkeypatch, OLD, ON_S3)
    assert found is not None
    assert found.keys() == OLD
    assert found["multipart_uploads_enabled"] is found["multipart_downloads_enabled"] is True
    assert found["features_enabled"] == {"gateway": False}


def test_where_clients_do_not_reach_the_bucket_they_are_told_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Settings(artifacts_destination="s3://bucket/a", artifact_transfer="always-proxy")
    found = answer(monkeypatch, OLD, closed)
    assert found is not None
    assert found["multipart_uploads_enabled"] is found["multipart_downloads_enabled"] is False


def test_of_3_18_which_offers_the_buckets_urls_only_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(monkeypatch, NEW, ON_S3)
    assert found is not None
    assert found.keys() == NEW
    assert (found["multipart_uploads_enabled"], found["artifact_serving_enabled"]) == (False, True)
    assert (found["skill_content_max_size"], found["skill_content_max_files"]) == (26214400, 10000)
    assert found["features_enabled"] == {"gateway": False, "scheduled_issue_detection": False}
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    asked = answer(monkeypatch, NEW, ON_S3)
    assert asked is not None
    assert (asked["multipart_uploads_enabled"], asked["multipart_downloads_enabled"]) == (True, False)


def test_a_field_that_nobody_knows_is_stocks_and_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer(monkeypatch, NEW | {"brand_new"}, Settings()) is None
    assert "does not know: brand_new" in caplog.text
    without = answer(monkeypatch, NEW | {"brand_new"}, Settings(stock="never"))
    assert without is not None
    assert without.keys() == NEW


def test_whether_traces_are_archived_only_stock_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(monkeypatch, NEW, Settings(trace_archival_config="a.yaml", enable_jobs=True)) is None
