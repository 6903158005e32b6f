"""Which image a host starts (host_boot.sh): a real bash, with a fake `aws` that answers as Systems Manager does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from headrace.asgi.security import SecurityPolicy
from headrace.aws import templates
from headrace.settings.resolve import resolve

LAUNCHED, WANTED = "example.org/headrace:launched", "example.org/headrace:wanted"
NONE = "None"  # what the CLI makes of a list without a first
THROTTLED = "An error occurred (ThrottlingException) when calling the GetParameters operation: Rate exceeded"
NO_NETWORK = 'Could not connect to the endpoint URL: "https://ssm.us-east-1.amazonaws.com/"'
DENIED = "An error occurred (AccessDeniedException) when calling the GetParameters operation: not yet"


INSTANCE = "/var/lib/cloud/data/instance-id"
UNKNOWN = (
    "An error occurred (ValidationError) when calling the CompleteLifecycleAction operation: No active Lifecycle "
    "Action found with instance ID i-1"
)


def boot(folder: Path, *answers: str, starts: int | None = None, record: str = "") -> tuple[list[str], str]:
    """The images that run_container.sh was given, and what the boot log has. Answers with a blank are errors."""
    for name, text in {
        "aws": record
        + 'read -r line <answers; sed -i 1d answers; case $line in *" "*) echo "$line" >&2; exit 254;; esac\n'
        'echo "a warning" >&2; echo "$line"',
        "sleep": ":",
        "run_container.sh": 'echo "$HEADRACE_IMAGE" >>started; [ "$(wc -l <started)" -ge "$STARTS" ]',
    }.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    (folder / "answers").write_text("".join(f"{one}\n" for one in answers))
    (folder / "started").unlink(missing_ok=True)
    _, mark, text = templates.script("host_boot.sh").partition("# While an upgrade migrates the database")
    script = (mark + text).replace("/usr/local/bin/", f"{folder}/").replace(INSTANCE, f"{folder}/instance-id")
    (folder / "instance-id").write_text("i-1\n")
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HEADRACE_IMAGE": LAUNCHED,
        "HEADRACE_REGION": "us-east-1",
        "HEADRACE_SSM_PREFIX": "/mlflow",
        "STARTS": str(sum(" " not in one for one in answers) if starts is None else starts),
    }
    done = subprocess.run(
        ["bash"], input=script, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return (folder / "started").read_text().split(), done.stdout + done.stderr


@pytest.mark.parametrize("failure", [THROTTLED, NO_NETWORK, DENIED])
def test_only_a_parameter_that_is_not_there_means_the_launch_templates_image(tmp_path: Path, failure: str) -> None:
    started, log = boot(tmp_path, failure, failure, WANTED)
    assert started == [WANTED], "an old image on a migrated schema would never become healthy"
    assert failure in log


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        (("group", "done"), 2),
        ((THROTTLED, "group", THROTTLED, "group", "done"), 5),
        (("group", UNKNOWN), 2),  # nobody waits for it: the first host of a stack may be before the hook
        (("group", DENIED, "group", "done"), 4),  # what IAM was told has no effect yet
    ],
)
def test_the_group_is_told_once_the_server_is_healthy(tmp_path: Path, answers: tuple[str, ...], asked: int) -> None:
    """Until then it keeps the host whose place this one takes."""
    record = 'case $1 in autoscaling) echo "$@" >>told;; esac\n'
    started, _ = boot(tmp_path, NONE, *answers, starts=1, record=record)
    assert started == [LAUNCHED]
    told = (tmp_path / "told").read_text().splitlines()
    assert len(told) == asked
    assert "--instance-ids i-1" in told[0]
    assert "complete-lifecycle-action" in told[-1]
    assert "--auto-scaling-group-name group --instance-id i-1 --lifecycle-hook-name serves" in told[-1]


def server_env(folder: Path, domain: str = "", cpus: int = 2, memory_kb: int = 3_900_000) -> dict[str, str]:
    """What the host's file tells the server."""
    (folder / "nproc").write_text(f"#!/bin/bash\necho {cpus}\n")
    (folder / "nproc").chmod(0o755)
    (folder / "meminfo").write_text(f"MemTotal:        {memory_kb} kB\nMemFree:          1 kB\n")
    text = templates.script("host_boot.sh").partition("\ncat > /usr/local/bin/")[0]
    text = text.replace("/etc/headrace", str(folder)).replace("/proc/meminfo", str(folder / "meminfo"))
    given = {"HEADRACE_DOMAIN": domain, "HEADRACE_PROXIES": PROXIES, "HEADRACE_SSM_PREFIX": "/mlflow"}
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **given}
    subprocess.run(["bash"], input=text, env=environment, text=True, check=True)
    return dict(line.split("=", 1) for line in (folder / "server.env").read_text().splitlines())


@pytest.mark.parametrize(
    ("cpus", "memory_kb", "workers"),
    [(2, 930_000, 1), (2, 1_900_000, 2), (2, 7_800_000, 2), (16, 63_000_000, 16), (1, 430_000, 1)],
)
def test_workers_are_by_the_hosts_cpus_and_memory(tmp_path: Path, cpus: int, memory_kb: int, workers: int) -> None:
    """MemTotal as machines of 1, 2, 8, 64 and 0.5 GiB have it."""
    assert server_env(tmp_path, cpus=cpus, memory_kb=memory_kb) == {"MLFLOW_WORKERS": str(workers)}


PROXIES = "100.64.0.0/26,100.64.0.64/26"


@pytest.mark.parametrize("domain", ["", "ml.example.org"])
def test_what_the_server_is_told_of_its_balancer(tmp_path: Path, domain: str) -> None:
    lines = server_env(tmp_path, domain)
    if not domain:
        assert len(lines) == 1
        return
    settings = resolve({"backend_store_uri": "postgresql://h/d"}, lines)
    assert (settings.trusted_proxies, settings.keep_alive) == (PROXIES, 360)
    policy = SecurityPolicy(settings)
    assert [name for name in HOSTS if policy.allows_host(name.encode())] == ["ml.example.org", "localhost:5000"]


HOSTS = ("ml.example.org", "localhost:5000", "10.evil.example.com", "172.evil.example.com", "example.org")


def test_a_host_asks_anew_each_time(tmp_path: Path) -> None:
    assert boot(tmp_path, NONE)[0] == [LAUNCHED]
    assert boot(tmp_path, NONE, WANTED, THROTTLED, NONE)[0] == [LAUNCHED, WANTED, LAUNCHED]


OUTSIDE, GOVCLOUD = "https://truststore.pki.rds.amazonaws.com", "https://truststore.pki.us-gov-west-1.rds.amazonaws.com"


@pytest.mark.parametrize(
    ("region", "reached", "carried", "url", "kept"),
    [
        ("us-east-1", True, "image's", OUTSIDE, "AWS's"),
        ("us-east-1", False, "image's", OUTSIDE, "image's"),
        ("us-east-1", False, "", OUTSIDE, None),  # an image that was built without them
        ("us-gov-west-1", True, "", GOVCLOUD, "AWS's"),
        ("us-gov-west-1", False, "image's", GOVCLOUD, None),  # which are of other authorities
    ],
)
def test_where_the_databases_certificates_come_from(
    tmp_path: Path, region: str, reached: bool, carried: str, url: str, kept: str | None
) -> None:
    for name, text in {
        "curl": 'echo "${@: -1}" >asked; [ "$REACHED" ] || exit 6; echo "AWS\'s" >"${@: -2:1}"',
        "docker": 'case $1 in create) echo made;; cp) printf %s "$CARRIED" >"$3";; esac',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = templates.script("run_container.sh").removesuffix('main "$@"\n')
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HEADRACE_HOME": str(tmp_path),
        "REACHED": "yes" if reached else "",
        "CARRIED": carried,
    }
    done = subprocess.run(
        ["bash"],
        input=f"{script}\nregion={region} image=i\nfetch_certificates\n",
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text().strip() == f"{url}/global/global-bundle.pem"
    file = tmp_path / "db-ca.pem"
    assert (file.read_text().strip() if file.exists() else None) == kept
    assert ("not verified" in done.stderr) is (kept is None)
    if kept is not None:
        assert file.stat().st_mode & 0o777 == 0o644, "the server's user reads it"
