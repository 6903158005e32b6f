"""From the source to a server that people use, step by step; each step goes on from the one before (`make rehearse`).

Real: Docker's engine, the image, the registry, PostgreSQL with TLS, `headrace aws`, the first boot's user data and
run_container.sh, MLflow's client. Stand-ins: moto for AWS's API and S3, session-manager-plugin, and a system container
for the EC2 host, whose package manager is a stub.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from tests.support.load import assert_all_there, load
from tests.support.processes import clean_environment, free_port, wait_until
from tests.support.servers import PASSED_THROUGH

from rehearsal.conftest import SEEDS_BUCKET, SERVER, Stage
from rehearsal.docker import docker, exists, image_size, inspect, remove
from rehearsal.parts import MASTER_PASSWORD, PREFIX, ROOT

MOST_ADDED = 350e6  # bytes that the image adds to its base
MOST_MEMORY = 400e6  # bytes, with stock running
READY_SECONDS = 2.0
SEED = f"{PREFIX}-seed"


def answers(url: str, path: str = "/health", token: str = "") -> bool:
    try:
        return requests.get(url + path, headers=bearer(token), timeout=10).status_code == 200
    except requests.RequestException:
        return False


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def wait_for(url: str, container: str, seconds: float = 60) -> None:
    """Until it answers; a failure shows what the container said."""
    try:
        wait_until(lambda: answers(url), "/health answers", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{logged(container)}") from None


def state(name: str) -> dict[str, object]:
    found: dict[str, object] = inspect(name)["State"]
    return found


def test_the_pipelines_script_publishes_the_image(stage: Stage) -> None:
    environment = (
        clean_environment()
        | stage.aws
        | {
            "DOCKER_REGISTRY": stage.ecr.address,
            "IMAGE_TAG": "first",
            "BUILD_OPTIONS": "--network host",
            **stage.rds.as_aws_has_them(),
            "PATH": f"{ROOT}/.venv-awscli/bin:{os.environ['PATH']}",
        }
    )
    for action in ("build", "push"):
        command = [ROOT / "container" / "publish.sh", action]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert stage.ecr.tags("mlflow") == {"first", "latest"}
    assert stage.client("ecr").describe_repositories()["repositories"][0]["repositoryName"] == "mlflow"


def test_the_image(stage: Stage) -> None:
    image = f"{stage.image}:first"
    base = os.environ.get("BASE_IMAGE", "python:3.12-slim")
    added = image_size(image) - image_size(base)
    print(f"\nthe image adds {added / 1e6:.0f} MB to its base")
    assert added < MOST_ADDED
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == ("10001:10001", ["headrace"], ["serve"])
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert docker("run", "--rm", image, "--version").startswith("headrace, version")


def test_the_image_has_the_byte_code_of_what_a_start_imports(stage: Stage) -> None:
    """Where it may write, Python would put down what is missing; in service it would compile that at each start."""
    port = free_port()
    remove(SEED)
    docker(
        *[
            "run",
            "--detach",
            "--user",
            "0",
            "--name",
            SEED,
            "-p",
            f"127.0.0.1:{port}:5000",
            "--env",
            "HEADRACE_AUTH=true",
        ],
        *[f"{stage.image}:first", "serve", "--stock", "lazy"],
    )
    wait_for(f"http://127.0.0.1:{port}", SEED)
    written = [line for line in docker("diff", SEED).splitlines() if line.endswith(".pyc")]
    remove(SEED)
    assert written == []


@pytest.fixture
def seeds_container(stage: Stage) -> Iterator[str]:
    """The command of the project's first deployment, word for word, on a database that does not exist yet."""
    port = free_port()
    aws = [f"--env={name}={value}" for name, value in stage.aws.items()]
    remove(SEED)
    docker(
        *[
            "run",
            "--env",
            f"BUCKET=s3://{SEEDS_BUCKET}/",
            "--env",
            "USERNAME=master",
            "--env",
            f"PASSWORD={MASTER_PASSWORD}",
        ],
        *["--env", f"HOST={stage.rds.host}", "--env", f"PORT={stage.rds.port}", "--env", "DATABASE=mlflow"],
        *["-p", f"127.0.0.1:{port}:5000", "-d", "--restart", "always", "--name", SEED],
        *[*aws, f"{stage.image}:first"],
    )
    yield f"http://127.0.0.1:{port}"
    remove(SEED)
    stage.rds.drop("mlflow")  # the next one is `headrace aws up`'s


def test_the_seeds_command(seeds_container: str) -> None:
    url = seeds_container
    wait_for(url, SEED, 120)
    token = logged(SEED).split("MLFLOW_TRACKING_TOKEN=")[1].split()[0]  # of the first administrator, shown this once
    wait_until(lambda: answers(url, PASSED_THROUGH, token), "stock answers", 60)
    wait_until(lambda: docker("inspect", "-f", "{{.State.Health.Status}}", SEED) == "healthy", "it is healthy", 30)
    memory = memory_of(SEED)
    starts = [start_again(url) for _ in range(3)]
    shown = ", ".join(f"{one:.2f}" for one in sorted(starts))
    load = os.getloadavg()[0]
    print(f"\n/health answers {shown} s after docker start (load {load:.1f}); {memory / 1e6:.0f} MB with stock")
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # others' work takes its share of the time
    assert min(starts) < READY_SECONDS * busy
    assert memory < MOST_MEMORY


def start_again(url: str) -> float:
    """Stop the container and start it on its database, which is initialised now. Seconds until it answers."""
    docker("stop", SEED)
    assert state(SEED)["ExitCode"] == 0  # the signal came through, and nothing had to be killed
    started = time.monotonic()
    docker("start", SEED)
    wait_for(url, SEED)
    return time.monotonic() - started


def logged(name: str) -> str:
    return subprocess.run(["docker", "logs", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def memory_of(name: str) -> float:
    """Proportional set size of a container's processes, bytes."""
    pids = [int(line) for line in docker("top", name, "-eo", "pid").split()[1:]]
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def test_up(stage: Stage) -> None:
    """One command from an empty account to a run in a bucket; the host boots with the user data that it has written."""
    digest = docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", f"{stage.image}:first")
    done = stage.headrace_aws("up", "--yes", "--image", digest)
    assert done.returncode == 0, done.stderr[-3000:] + boot_log(stage)
    assert "logged a param and an artifact, and read them back" in done.stderr
    assert inspect(SERVER)["Config"]["Image"] == digest
    calls = stage.host.calls()
    assert "dnf install --assumeyes --quiet docker amazon-ecr-credential-helper" in calls
    assert "systemctl enable --now docker.service" in calls
    assert f"docker-credential-ecr-login get {stage.ecr.address}" in calls
    config = json.loads(docker("exec", stage.host.name, "cat", "/home/ec2-user/.docker/config.json"))
    assert config == {"credHelpers": {"public.ecr.aws": "ecr-login", stage.ecr.address: "ecr-login"}}
    assert "docker" in docker("exec", stage.host.name, "id", "--name", "--groups", "ec2-user").split()


def boot_log(stage: Stage) -> str:
    if not exists(stage.host.name):
        return "\nthe host was never booted"
    return docker("exec", stage.host.name, "tail", "-n", "40", "/var/log/cloud-init-output.log")


def test_no_secret_shows_and_the_container_is_locked_up(stage: Stage) -> None:
    everything = json.dumps(inspect(SERVER)) + docker("top", SERVER) + logged(SERVER) + boot_log(stage)
    assert stage.parameter("DB_PASS") not in everything
    assert stage.token not in everything
    host = inspect(SERVER)["HostConfig"]
    assert host["RestartPolicy"]["Name"] == "always"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    sessions = "SELECT usename, ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE datname = 'mlflow'"
    rows = stage.rds.database("postgres").query(sessions)
    assert {(row["usename"], row["ssl"]) for row in rows} == {("mlflow", True)}
    assert "PGSSLMODE=verify-full" in inspect(SERVER)["Config"]["Env"]
    assert (stage.host.home / "db-ca.pem").read_bytes() == stage.rds.certificates.read_bytes(), "those of the image"


def test_a_person_logs_the_user_guides_run(stage: Stage, tmp_path: Path) -> None:
    """A light one: examples/churn_xgboost.py is the whole guide, and has its own test."""
    script = """
import mlflow
mlflow.set_experiment("churn-ada")
with mlflow.start_run(run_name="first") as run:
    mlflow.log_params({"objective": "binary:logistic", "max_depth": 4, "learning_rate": 0.005})
    mlflow.log_metric("Recall", 0.75)
    for step in range(50):
        mlflow.log_metric("Validation LogLoss", 0.7 / (step + 1), step=step)
    with open("SHAP_Xgboost.png", "wb") as picture:
        picture.write(b"a picture" * 1000)
    mlflow.log_artifact("SHAP_Xgboost.png")
    class Model(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input: list[str]) -> list[str]:
            return model_input
    mlflow.pyfunc.log_model(name="XGboost", python_model=Model(), pip_requirements=[])
print(run.info.experiment_id, run.info.run_id)
"""
    environment = clean_environment() | {"MLFLOW_TRACKING_URI": stage.url, "MLFLOW_TRACKING_TOKEN": stage.token}
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    experiment, run = done.stdout.split()[-2:]
    picture = stage.client("s3").get_object(Bucket=bucket(stage), Key=f"{experiment}/{run}/artifacts/SHAP_Xgboost.png")
    assert picture["Body"].read() == b"a picture" * 1000
    url, query = f"{stage.url}/api/2.0/mlflow/runs/get", {"run_id": run}
    assert requests.get(url, params=query, timeout=10).status_code == 401
    found = requests.get(url, params=query, headers=bearer(stage.token), timeout=10).json()["run"]["data"]["metrics"]
    assert {metric["key"]: metric["value"] for metric in found} == {"Recall": 0.75, "Validation LogLoss": 0.7 / 50}


def bucket(stage: Stage) -> str:
    return stage.parameter("BUCKET").removeprefix("s3://").rstrip("/")


def test_a_killed_container_comes_back(stage: Stage) -> None:
    before = state(SERVER)
    os.kill(int(str(before["Pid"])), signal.SIGKILL)
    wait_until(lambda: state(SERVER)["Pid"] not in (0, before["Pid"]), "the engine starts it again", 30)
    wait_for(stage.url, SERVER)


def test_the_script_run_again_changes_nothing(stage: Stage) -> None:
    before = inspect(SERVER)["Id"]
    done = stage.host.run_container(f"{stage.image}:first")
    assert (done.returncode, inspect(SERVER)["Id"]) == (0, before)
    assert "nothing to do" in done.stderr


def test_a_command_in_the_container(stage: Stage) -> None:
    password = "a password of nineteen"
    done = stage.headrace_aws("user", "add", "ada", "--role", "editor", given=f"{password}\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ada is a user with the role editor.\n"
    made = stage.headrace_aws("exec", "--", "headrace", "user", "token", "ada", "--name", "{{laptop}}")
    token = made.stdout.strip()
    url = f"{stage.url}/api/2.0/mlflow/experiments/search?max_results=1"
    assert requests.get(url, headers=bearer(token), timeout=10).status_code == 200, made.stderr
    assert requests.get(url, auth=("ada", password), timeout=10).status_code == 200
    kept = json.dumps(stage.client("ssm").list_commands()["Commands"], default=str)
    assert "docker exec" in kept
    assert not any(word in kept for word in (password, token, "laptop"))
    assert "ended with 1" in stage.headrace_aws("exec", "--", "headrace", "user", "add", "ada", "--no-password").stderr


def test_a_setting_survives_a_replaced_host(stage: Stage) -> None:
    """It reaches the server that runs; and the server of a host that takes the place of one which was ended."""
    before = inspect(SERVER)["Id"]
    done = stage.headrace_aws("up", "--yes", "--set", "expose_prometheus=x")
    assert (done.returncode, inspect(SERVER)["Id"]) == (2, before)
    done = stage.headrace_aws("up", "--yes", "--set", "grants=true", "--set", "access_log=json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert inspect(SERVER)["Id"] != before
    assert "settings: grants=true, access_log=json" in done.stderr
    answers(stage.url, "/version")
    assert '"path":"/version"' in logged(SERVER).replace(": ", ":")
    before = inspect(SERVER)["Id"]
    (host,) = stage.client("autoscaling").describe_auto_scaling_instances()["AutoScalingInstances"]
    remove(SERVER)
    stage.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=host["InstanceId"], ShouldDecrementDesiredCapacity=False
    )
    wait_until(lambda: exists(SERVER) and inspect(SERVER)["Id"] != before, "another host boots", 60)
    wait_for(stage.url, SERVER)
    answers(stage.url, "/version")
    assert '"path":"/version"' in logged(SERVER).replace(": ", ":")
    assert "grants" in stage.headrace_aws("status").stdout
    before = inspect(SERVER)["Id"]
    done = stage.headrace_aws("up", "--yes")
    assert (done.returncode, inspect(SERVER)["Id"]) == (0, before), done.stderr
    done = stage.headrace_aws("up", "--yes", "--unset", "grants", "--unset", "access_log")
    assert done.returncode == 0, done.stderr[-3000:]


def variant(stage: Stage, tag: str, *lines: str) -> str:
    """An image made from the first one, in the registry."""
    image = f"{stage.image}:{tag}"
    docker("build", "--quiet", "--tag", image, "-", stdin="\n".join([f"FROM {stage.image}:first", *lines]))
    docker("push", "--quiet", image)
    return image


def test_an_upgrade_under_load_loses_nothing(stage: Stage) -> None:
    second = variant(stage, "second", "LABEL version=2")
    before = inspect(SERVER)["Id"]
    with load(stage.url, clients=16, runs=8, token=stage.token) as running:
        running.wait_for_progress()
        done = stage.headrace_aws("upgrade", second, "--yes")
        assert done.returncode == 0, done.stderr
        running.wait_for_progress()
    print(
        f"\nupgraded under load: {sum(len(client.refusals) for client in running.clients)} answers asked to try again"
    )
    assert_all_there(stage.rds.database("mlflow"), running)
    assert inspect(SERVER)["Id"] != before
    assert inspect(SERVER)["Config"]["Image"] == second
    assert inspect(f"{SERVER}-previous")["HostConfig"]["RestartPolicy"]["Name"] == "no"


def test_a_boot_that_comes_late_keeps_the_upgrades_image(stage: Stage) -> None:
    """Its launch template has the image of before."""
    before = inspect(SERVER)
    done = stage.host.run_container(f"{stage.image}:first", HEADRACE_FIRST_BOOT="true")
    assert (done.returncode, inspect(SERVER)["Id"]) == (0, before["Id"]), done.stderr
    assert f"runs {before['Config']['Image']} already; nothing to do" in done.stderr


def test_an_image_that_never_gets_healthy_is_not_put_into_service(stage: Stage) -> None:
    broken = variant(stage, "broken", 'ENTRYPOINT ["sleep", "1000"]', "CMD []")
    before = inspect(SERVER)["Id"]
    with load(stage.url, clients=4, runs=2, token=stage.token) as running:
        with stage.patient(seconds=5):  # it never is, however long it is given
            done = stage.headrace_aws("upgrade", broken, "--yes")
        running.wait_for_progress()
    assert done.returncode == 4
    assert "was not healthy within 5 s" in done.stderr
    assert f"{stage.image}:second runs on" in done.stderr
    assert "goes on as before" in done.stderr
    assert not any(client.refusals for client in running.clients)
    assert (inspect(SERVER)["Id"], state(SERVER)["Running"]) == (before, True)
    assert not exists(f"{SERVER}-next")


def test_an_image_that_fails_in_service_is_rolled_back(stage: Stage) -> None:
    """It starts once, for the trial, and never again."""
    once = "import botocore.session as s; s.Session().create_client('ssm').put_parameter"
    start = f"""python -c "{once}(Name='/once', Value='x', Type='String')" && exec headrace serve"""
    fails = variant(stage, "fails", f"ENTRYPOINT {json.dumps(['sh', '-c', start])}", "CMD []")
    before = inspect(SERVER)["Id"]
    with load(stage.url, clients=4, runs=2, token=stage.token) as running:
        running.wait_for_progress()
        done = stage.headrace_aws("upgrade", fails, "--yes")
        running.wait_for_progress()
    assert done.returncode == 4
    assert "the previous server is back" in done.stderr
    assert_all_there(stage.rds.database("mlflow"), running)
    after = inspect(SERVER)
    assert (after["Id"], after["State"]["Running"]) == (before, True)
    assert after["HostConfig"]["RestartPolicy"]["Name"] == "always"


def test_rollback(stage: Stage) -> None:
    done = stage.headrace_aws("rollback", "--yes")
    assert done.returncode == 0, done.stderr
    assert answers(stage.url)
    assert inspect(SERVER)["Image"] == docker("image", "inspect", "--format", "{{.Id}}", f"{stage.image}:first")


def test_amazon_linux_2(stage: Stage) -> None:
    """The same host with yum instead of dnf, which finds its server running."""
    stage.host.start("yum", "amazon-linux-extras")
    done = stage.host.run_container(f"{stage.image}:first")
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stderr
    assert "amazon-linux-extras install -y docker" in stage.host.calls()
    assert "yum install --assumeyes --quiet amazon-ecr-credential-helper" in stage.host.calls()


def test_down_keeps_the_data(stage: Stage) -> None:
    kept = bucket(stage)
    done = stage.headrace_aws("down", "--yes")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not exists(SERVER) and not exists(stage.host.name), "the host is gone", 30)
    runs = stage.rds.database("mlflow").query("SELECT name FROM runs WHERE name = 'first'")
    assert runs == [{"name": "first"}]
    objects = stage.client("s3").list_objects_v2(Bucket=kept)["Contents"]
    assert any(one["Key"].endswith("SHAP_Xgboost.png") for one in objects)
    assert stage.token
    stacks = stage.client("cloudformation").describe_stacks()["Stacks"]
    assert [stack["StackName"] for stack in stacks] == ["mlflow-data"]
