"""What the README and docs/ show is true: the example runs, the commands exist, the links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import requests

from tests.server.guarded import ADMIN_TOKEN, PASSWORD, start_guarded
from tests.support.databases import Databases
from tests.support.fork_server import client_environment
from tests.support.pages import DOCS, README, ROOT, blocks, typed
from tests.support.servers import Server, start_headrace

PAGES = [README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def test_the_readme_example_runs(databases: Databases, tmp_path: Path) -> None:
    (shown,) = blocks(README, "python")
    server = start_headrace(databases.migrated("sqlite"), tmp_path, until="/health")
    try:
        script = shown.replace("http://localhost:5000", server.url)
        assert script != shown
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=client_environment()
        )
        assert done.returncode == 0, done.stderr
        search = {"experiment_ids": ["1"], "max_results": 5}
        found = requests.post(f"{server.url}/api/2.0/mlflow/runs/search", json=search, timeout=60).json()["runs"]
        (shown,) = blocks(DOCS / "tutorials" / "data-scientist.md", "text")
        filtered = requests.post(
            f"{server.url}/api/2.0/mlflow/runs/search", json=search | {"filter": shown.strip()}, timeout=60
        )
        assert (filtered.status_code, filtered.headers["headrace-answered-by"]) == (200, "native")
    finally:
        server.stop()
    assert [run["info"]["run_name"] for run in found] == ["first"]
    assert found[0]["data"]["metrics"][0]["step"] == 99


def test_what_reviewer_and_administrator_type_works(databases: Databases, tmp_path: Path) -> None:
    """On the server that the reviewer's tutorial starts: its request, and each command of security.md but the import of
    basic-auth (test_user_commands.py has it)."""
    serve, curl = typed(DOCS / "tutorials" / "security-reviewer.md")
    guarded = start_guarded(databases.migrated("sqlite"), tmp_path, *shlex.split(serve)[2:], users={"ben": "viewer"})
    try:
        asked, _, status = curl.partition("#")
        url = guarded.server.url
        command = shlex.split(asked.replace("http://localhost:5000", url))
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert url in command[-1]
        assert done.stdout.splitlines()[0].split()[1] == status.strip() == "401"

        made = {"experiments/create": "churn", "registered-models/create": "churn-xgboost"}
        for path, name in made.items():
            assert guarded.status("POST", f"/api/2.0/mlflow/{path}", ADMIN_TOKEN, json={"name": name}) == 200
        commands = [
            shlex.split(line, comments=True)[1:] for line in typed(DOCS / "security.md") if "import" not in line
        ]
        said = {" ".join(words): guarded.headrace(*words, stdin=PASSWORD) for words in commands}
    finally:
        guarded.server.stop()
    assert len(said) == 9
    assert said["user token ada --name laptop"].startswith("hr_")
    assert said["user link ada --url https://mlflow.example.com"].startswith("https://mlflow.example.com/headrace/")
    assert "churn-xgboost" in said["user grants"]


def test_make_has_what_the_readme_names() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z]+)`", README.read_text())) <= targets


def test_s3_takes_what_the_artifacts_page_shows(s3: Server) -> None:
    lifecycle, cors = map(json.loads, blocks(DOCS / "artifacts.md", "json"))
    client = boto3.client("s3", endpoint_url=s3.url, aws_access_key_id="k", aws_secret_access_key="s")
    client.create_bucket(Bucket="of-the-docs")
    client.put_bucket_lifecycle_configuration(Bucket="of-the-docs", LifecycleConfiguration=lifecycle)
    client.put_bucket_cors(Bucket="of-the-docs", CORSConfiguration=cors)
    (rule,) = client.get_bucket_lifecycle_configuration(Bucket="of-the-docs")["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert client.get_bucket_cors(Bucket="of-the-docs")["CORSRules"] == cors["CORSRules"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []
