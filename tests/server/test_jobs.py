"""`--enable-jobs`: MLflow's own job runner behind `headrace serve`, on a server that asks who somebody is.

The provider of the judge's model is a stand-in that answers one chat completion as OpenAI's API does; all else is real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import requests

from tests.server.conftest import Serve, Serving, run_headrace
from tests.support import fork_server
from tests.support.fork_server import client_environment, fork_of
from tests.support.processes import wait_until
from tests.unit.traces.spans import body, span

TOKEN = "0123456789abcdef0123456789abcdef"
PATIENCE_SECONDS = 300


TRACED = """
import json
import mlflow
from mlflow.genai.judges import make_judge
from mlflow.genai.scorers import ScorerSamplingConfig

experiment_id = mlflow.create_experiment("judged")
mlflow.set_experiment("judged")

@mlflow.trace
def answer(question: str) -> str:
    return "42"

answer("what")
mlflow.flush_trace_async_logging()
instructions = "Is {{ outputs }} an answer to {{ inputs }}?"
judge = make_judge(name="good", instructions=instructions, model="openai:/m", feedback_value_type=str)
by_itself = make_judge(name="by_itself", instructions=instructions, model="gateway:/judging", feedback_value_type=str)
by_itself.register().start(sampling_config=ScorerSamplingConfig(sample_rate=1.0))
print(json.dumps({
    "experiment_id": experiment_id,
    "serialized_scorer": json.dumps(judge.model_dump()),
    "trace_ids": [mlflow.get_last_active_trace_id()],
    "log_assessments": True,
}))
"""


class Provider(BaseHTTPRequestHandler):
    answers = Event()
    asked = 0

    def do_POST(self) -> None:
        Provider.asked += 1
        assert self.answers.wait(PATIENCE_SECONDS)
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        verdict = json.dumps({"result": "yes", "rationale": "because"})
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": verdict}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": asked["model"]}
        body = json.dumps(answer | {"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def provider() -> Iterator[str]:
    Provider.answers.set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def wait_for(done: Callable[[], bool], what: str) -> None:
    """Most of it takes a minute."""
    wait_until(done, what, PATIENCE_SECONDS, every=0.5)


def jobs_of(server: Serving) -> Sequence[psutil.Process]:
    def below(process: psutil.Process) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for child in (fork_of(process) or process).children():
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile, as MLflow's jobs do
                if "mlflow.server.jobs" in " ".join(child.cmdline()):
                    found += filter(None, (child, fork_of(child)))
                found += below(child)
        return found

    assert server.stock is not None
    return below(server.stock)


def test_judges_and_the_archive_and_another_server_that_takes_over(serve: Serve, tmp_path: Path) -> None:
    """One database for all: a judge that is asked, one that judges new traces by itself through the AI gateway, and the
    archive. The runner looks for the last two once a minute. Then one server's jobs are another's."""
    archive = tmp_path / "archive"
    configuration = tmp_path / "archival.yaml"
    configuration.write_text(
        f"trace_archival:\n  enabled: true\n  location: {archive.as_uri()}\n  retention: 365d\n  interval_seconds: 1\n"
    )
    with provider() as model:
        environment = fork_server.environment("jobs")
        environment |= {"HEADRACE_ADMIN_TOKEN": TOKEN, "OPENAI_API_KEY": "x", "OPENAI_API_BASE": model}
        environment |= {
            "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http",
            "MLFLOW_ONLINE_SCORING_DEFAULT_TRACE_COMPLETION_BUFFER_SECONDS": "0",
        }
        options = ("--auth", "--enable-all", "--trace-archival-config", str(configuration))
        server = serve(*options, env=environment)
        headers = {"Authorization": f"Bearer {TOKEN}"}

        def ask(method: str, path: str, of: Serving = server, **more: Any) -> Any:
            answer = requests.request(
                method, f"{of.url}/ajax-api/3.0/mlflow/{path}", headers=headers, timeout=120, **more
            )
            assert answer.status_code == 200, answer.text
            return answer.json()

        trace_id = os.urandom(16)  # of 2023
        otlp = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": "0"}
        sent = requests.post(
            f"{server.url}/v1/traces", body(span(trace_id=trace_id)), headers=headers | otlp, timeout=60
        )
        assert sent.status_code == 200, sent.text
        old = {"trace_id": f"tr-{trace_id.hex()}"}
        before = ask("GET", "traces/get", params=old)["trace"]["spans"]
        assert before

        secret = {"secret_name": "of the judge", "secret_value": {"api_key": "x"}, "auth_config": {"api_base": model}}
        made = ask("POST", "gateway/secrets/create", json=secret | {"provider": "openai"})["secret"]
        definition = {"name": "judge", "secret_id": made["secret_id"], "provider": "openai", "model_name": "m"}
        made = ask("POST", "gateway/model-definitions/create", json=definition)["model_definition"]
        uses = {"model_definition_id": made["model_definition_id"], "linkage_type": "PRIMARY", "weight": 1}
        ask("POST", "gateway/endpoints/create", json={"name": "judging", "model_configs": [uses]})

        client = client_environment() | {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_TRACKING_TOKEN": TOKEN}
        done = subprocess.run(
            [sys.executable, "-c", TRACED], env=client, capture_output=True, text=True, timeout=300, check=True
        )
        asked = json.loads(done.stdout.splitlines()[-1])

        def judge(of: Serving) -> str:
            (job,) = ask("POST", "scorer/invoke", of, json=asked)["jobs"]
            return str(job["job_id"])

        def succeeds(job_id: str, of: Serving) -> None:
            def ended() -> bool:
                return ask("GET", f"jobs/{job_id}", of)["status"] not in ("PENDING", "RUNNING")

            wait_for(ended, "the job has ended")
            assert ask("GET", f"jobs/{job_id}", of)["status"] == "SUCCEEDED"

        succeeds(judge(server), server)

        def given() -> set[tuple[str, str]]:
            trace = ask("GET", f"traces/{asked['trace_ids'][0]}")["trace"]["trace_info"]
            return {(each["assessment_name"], each["feedback"]["value"]) for each in trace["assessments"]}

        assert ("good", "yes") in given()
        wait_for(lambda: given() == {("good", "yes"), ("by_itself", "yes")}, "the judge judges by itself")

        wait_for(lambda: any(each.is_file() for each in archive.rglob("*")), "the old trace is archived")

        def archived() -> bool:
            info = ask("GET", f"traces/{old['trace_id']}")["trace"]["trace_info"]
            return bool(info["tags"].get("mlflow.trace.spansLocation") == "ARCHIVE_REPO")

        wait_until(archived, "the trace says so", 60)
        assert ask("GET", "traces/get", params=old)["trace"]["spans"] == before
        assert ask("GET", "server-info")["trace_archival_enabled"] is True
        url = f"{server.url}/api/2.0/mlflow/experiments/get?experiment_id=0"
        experiment = requests.get(url, headers=headers, timeout=60).json()["experiment"]
        assert experiment["effective_trace_archival_retention"] == "365d"

        Provider.answers.clear()
        Provider.asked = 0
        under_way = judge(server)
        wait_for(lambda: Provider.asked == 1, "the first server is at it")
        other = serve(*options, env=environment)
        waiting = judge(other)
        wait_for(lambda: Provider.asked == 2, "the first server has taken the other's job")
        assert not jobs_of(other)
        url = f"{other.url}/ajax-api/3.0/mlflow/issues/invoke"
        refused = requests.post(url, json={"trace_ids": asked["trace_ids"]}, headers=headers, timeout=60)
        assert (refused.status_code, refused.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
        Provider.answers.set()
        succeeds(under_way, other)
        succeeds(waiting, other)
        assert Provider.asked == 2  # each was done once

        Provider.answers.clear()
        broken_off = judge(server)
        wait_for(lambda: Provider.asked == 3, "the first server is at it")
        jobs = jobs_of(server)
        assert len(jobs) > 1
        server.process.stop()
        wait_until(lambda: not any(each.is_running() for each in jobs), "no job's process is left")
        wait_for(lambda: Provider.asked == 4, "the other has begun it anew")
        Provider.answers.set()
        succeeds(broken_off, other)


def test_an_archive_that_mlflow_can_not_use_keeps_the_server_from_starting(tmp_path: Path) -> None:
    (tmp_path / "archival.yaml").write_text("trace_archival: {enabled: true, location: 's3://b', retention: soon}\n")
    done = run_headrace(
        "serve", "--port", "0", "--enable-jobs", "--trace-archival-config", "archival.yaml", cwd=tmp_path
    )
    assert done.returncode == 2
    assert "retention" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "headrace: --trace-archival-config is archival.yaml, which MLflow can't"
    )
    assert "Traceback" not in done.stderr
