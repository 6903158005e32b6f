"""/metrics: what Prometheus is told, of all workers, and to whom; the dashboard of docs/ asks for what there is."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.server.conftest import Serve, run_headrace
from tests.support.databases import Databases
from tests.support.processes import wait_until
from tests.support.servers import PASSED_THROUGH

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docs" / "grafana-dashboard.json"


def scrape(url: str, headers: dict[str, str] | None = None) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = requests.get(f"{url}/metrics", headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def total(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (each, given), value in samples.items() if each == name and wanted <= given)


def test_all_workers_are_one(databases: Databases, serve: Serve) -> None:
    database = databases.migrated("postgresql")
    server = serve("--backend-store-uri", database.uri, "--workers", "2", "--stock", "never", until="/ready")
    api = f"{server.url}/api/2.0/mlflow"
    for number in range(30):  # each on a connection of its own: both workers get some
        assert requests.post(f"{api}/experiments/create", json={"name": f"e{number}"}, timeout=60).status_code == 200
    run = requests.post(f"{api}/runs/create", json={"experiment_id": "1"}, timeout=60).json()["run"]["info"]["run_id"]
    for step in range(20):
        metric = {"run_id": run, "key": "k", "value": 1, "timestamp": 1, "step": step}
        assert requests.post(f"{api}/runs/log-metric", json=metric, timeout=60).status_code == 200
    assert requests.get(f"{api}/runs/get?run_id=unknown", timeout=60).status_code == 404
    assert requests.get(f"{server.url}/nowhere/{run}", timeout=60).status_code == 404
    expected = {
        "2.0/mlflow/experiments/create": 30,
        "2.0/mlflow/runs/log-metric": 20,
        "2.0/mlflow/runs/get": 1,
        "other": 1,
    }

    def all_told() -> bool:
        found = scrape(server.url)
        told = [name for name, _ in found if name == "headrace_worker_resident_memory_bytes"]
        counted = all(total(found, "headrace_requests_total", endpoint=e) == count for e, count in expected.items())
        return counted and len(told) == 2  # the first may have answered all before the second was there

    wait_until(all_told, "each worker has told what it counted")
    samples = scrape(server.url)
    by = {"answered_by": "native"}
    assert total(samples, "headrace_requests_total", endpoint="2.0/mlflow/experiments/create", status="200", **by) == 30
    assert total(samples, "headrace_requests_total", endpoint="2.0/mlflow/runs/log-metric", status="200", **by) == 20
    assert total(samples, "headrace_request_seconds_count", endpoint="2.0/mlflow/runs/log-metric") == 20
    assert total(samples, "headrace_requests_total", endpoint="2.0/mlflow/runs/get", status="404") == 1
    assert total(samples, "headrace_group_commit_writes_sum") >= 20
    assert total(samples, "headrace_database_connections", state="open") >= 2
    assert total(samples, "headrace_queue_writes") == 0
    assert total(samples, "headrace_artifacts_in_flight") == 0
    assert total(samples, "headrace_requests_in_flight") >= 1, "this one"
    assert total(samples, "headrace_stock_running") == 0
    assert total(samples, "headrace_info") == 1
    assert not any(run in str(labels) for _, labels in samples), "no client's text is a label"

    killed = server.workers[0]
    killed.kill()
    wait_until(lambda: not psutil.pid_exists(killed.pid), "it has gone, and is no zombie")
    wait_until(lambda: len(server.workers) == 2 and server.answers("/ready"), "a new worker is there")
    samples = scrape(server.url)
    logged = total(samples, "headrace_requests_total", endpoint="2.0/mlflow/runs/log-metric", status="200")
    assert logged == 20, "what a killed worker has counted still counts"
    pids = {dict(labels)["pid"] for name, labels in samples if name == "headrace_worker_open_fds"}
    assert str(killed.pid) not in pids, "and its gauges have gone"


def test_what_is_not_answered_whole_is_counted_once(serve: Serve, tmp_path: Path) -> None:
    server = serve("--backend-store-uri", f"sqlite:///{tmp_path}/m.db", "--stock", "never", "--access-log", "json")
    path = "/api/2.0/mlflow/runs/search"
    address = (str(urlsplit(server.url).hostname), int(urlsplit(server.url).port or 0))
    with socket.create_connection(address) as leaving:
        leaving.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{".encode())
        wait_until(
            lambda: total(scrape(server.url), "headrace_requests_in_flight") == 2, "the server waits for the rest"
        )
    odd = {"filter": "metrics.a > 1 metrics.b > 1"}
    elsewhere = {"X-MLflow-Workspace": "w"}
    for message, headers, option in ((odd, {}, "--stock"), ({}, elsewhere, "--enable-workspaces")):
        answer = requests.post(server.url + path, json=message, headers=headers, timeout=60)
        assert answer.status_code == 501
        assert option in answer.json()["message"]
    assert requests.head(f"{server.url}/api/2.0/mlflow/runs/get?run_id=none", timeout=60).status_code == 404
    expected = {("POST", "499"): 1.0, ("POST", "501"): 2.0, ("HEAD", "404"): 1.0}

    def all_told() -> bool:
        found = scrape(server.url)
        counted = {
            (given["method"], given["status"]): value
            for (name, labels), value in found.items()
            if name == "headrace_requests_total" and "runs/" in (given := dict(labels))["endpoint"]
        }
        return counted == expected and total(found, "headrace_requests_in_flight") == 1

    wait_until(all_told, "each is counted, and only the one that asks is under way")
    found = scrape(server.url)
    of_stock = [each for each in found.items() if each[0][0] == "headrace_stock_requests_total"]
    assert [(dict(labels), number) for (_, labels), number in of_stock] == [
        ({"method": "POST", "endpoint": "2.0/mlflow/runs/search"}, 1.0)
    ]
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith('{"access"')]
    assert sorted(line["status"] for line in lines if "runs/" in line["path"]) == [404, 499, 501, 501]


def test_the_option_of_mlflow_server_works(databases: Databases, serve: Serve, tmp_path: Path) -> None:
    uri = databases.migrated("sqlite").uri
    server = serve("--backend-store-uri", uri, "--expose-prometheus", str(tmp_path / "new" / "metrics"))
    assert total(scrape(server.url), "headrace_requests_total", endpoint="/health") >= 1
    assert list((tmp_path / "new" / "metrics").glob("counter_*.db"))
    (tmp_path / "file").touch()
    done = run_headrace("serve", "--port", "0", "--expose-prometheus", str(tmp_path / "file"), cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"headrace: --expose-prometheus is .*file, but .*\. Name a folder.*\n", done.stderr)


def test_it_needs_a_right(databases: Databases, serve: Serve) -> None:
    token = "t" * 40
    uri = databases.migrated("sqlite").uri
    server = serve("--backend-store-uri", uri, "--auth", env={"HEADRACE_ADMIN_TOKEN": token})
    assert server.get("/metrics").status_code == 401
    samples = scrape(server.url, {"Authorization": f"Bearer {token}"})
    assert total(samples, "headrace_requests_total", endpoint="/metrics", status="401") == 1


def test_the_dashboard_asks_for_what_there_is(databases: Databases, serve: Serve) -> None:
    server = serve("--backend-store-uri", databases.migrated("sqlite").uri, "--stock", "never", until="/ready")
    server.get(PASSED_THROUGH)
    text = server.get("/metrics").text
    there = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    there |= {name + end for name in there for end in ("_bucket", "_sum", "_count")}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {name for panel in panels for t in panel["targets"] for name in re.findall(r"headrace_\w+", t["expr"])}
    assert len(asked) > 8
    assert asked <= there
