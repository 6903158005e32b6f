"""Which image a host starts (host_boot.sh): a real bash, with a fake `aws` that answers as Systems Manager does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.asgi.security import SecurityPolicy
from headrace.aws import hosts, templates
from headrace.aws.client import Cloud
from headrace.aws.hosts import Host
from headrace.settings.resolve import resolve

LAUNCHED, WANTED, PUT = (f"example.org/headrace:{tag}" for tag in ("launched", "wanted", "put"))
NONE = "None"  # what the CLI makes of a list without a first
THROTTLED = "An error occurred (ThrottlingException) when calling the GetParameters operation: Rate exceeded"
NO_NETWORK = 'Could not connect to the endpoint URL: "https://ssm.us-east-1.amazonaws.com/"'
DENIED = "An error occurred (AccessDeniedException) when calling the GetParameters operation: not yet"
INSTANCE = "/var/lib/cloud/data/instance-id"
UNKNOWN = (
    "An error occurred (ValidationError) when calling the CompleteLifecycleAction operation: No active Lifecycle "
    "Action found with instance ID i-1"
)


def programs(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)


def bash(folder: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash"], input=script, cwd=folder, env=path | environment, capture_output=True, text=True, timeout=60
    )


def started(folder: Path, answer: str, kept: str = "", first_boot: bool = True) -> subprocess.CompletedProcess[str]:
    """run_container.sh up to the image's name. An answer of SSM with a blank is an error; `kept` is on the host."""
    programs(
        folder, aws='case $ANSWER in *" "*) echo "$ANSWER" >&2; exit 254;; esac; echo "a warning" >&2; echo "$ANSWER"'
    )
    (folder / "image").write_text(kept)
    script = templates.script("run_container.sh").removesuffix('main "$@"\n')
    return bash(
        folder,
        f"{script}\nfind_names\necho $image from $registry\n",
        ANSWER=answer,
        HEADRACE_HOME=str(folder),
        HEADRACE_IMAGE=LAUNCHED,
        HEADRACE_REGION="us-east-1",
        HEADRACE_FIRST_BOOT=str(first_boot).lower(),
    )


@pytest.mark.parametrize(
    ("answer", "kept", "image"),
    [
        (NONE, "", LAUNCHED),
        (WANTED, "", WANTED),  # an upgrade migrates the database
        (WANTED, PUT, WANTED),
        (NONE, PUT, PUT),  # one has ended before the boot came so far
    ],
)
def test_which_image_a_boot_starts(tmp_path: Path, answer: str, kept: str, image: str) -> None:
    """An old one on a migrated schema would never become healthy; one on another would be a silent way back."""
    assert started(tmp_path, answer, kept).stdout == f"{image} from example.org\n"


@pytest.mark.parametrize("failure", [THROTTLED, NO_NETWORK, DENIED])
def test_only_a_parameter_that_is_not_there_means_the_launch_templates_image(tmp_path: Path, failure: str) -> None:
    done = started(tmp_path, failure)
    assert done.returncode == 1
    assert done.stdout == ""
    assert failure in done.stderr


def test_an_upgrade_says_itself_which_image(tmp_path: Path) -> None:
    assert started(tmp_path, WANTED, PUT, first_boot=False).stdout == f"{LAUNCHED} from example.org\n"


def boot(folder: Path, *answers: str, starts: int, record: str = "") -> str:
    """The boot log of a host whose run_container.sh fails but for the last of so many `starts`."""
    programs(
        folder,
        aws=record
        + 'read -r line <answers; sed -i 1d answers; case $line in *" "*) echo "$line" >&2; exit 254;; esac\n'
        'echo "a warning" >&2; echo "$line"',
        sleep=":",
    )
    programs(
        folder, **{"run_container.sh": f'echo "$HEADRACE_FIRST_BOOT" >>started; [ "$(wc -l <started)" -ge {starts} ]'}
    )
    (folder / "answers").write_text("".join(f"{one}\n" for one in answers))
    _, mark, text = templates.script("host_boot.sh").partition("# The database's role may come after the host")
    script = (mark + text).replace("/usr/local/bin/", f"{folder}/").replace(INSTANCE, f"{folder}/instance-id")
    (folder / "instance-id").write_text("i-1\n")
    done = bash(folder, script, HEADRACE_IMAGE=LAUNCHED, HEADRACE_REGION="us-east-1", HEADRACE_SSM_PREFIX="/mlflow")
    assert done.returncode == 0, done.stderr
    assert (folder / "started").read_text().split() == ["true"] * starts
    return done.stdout + done.stderr


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
    boot(tmp_path, *answers, starts=3, record=record)
    told = (tmp_path / "told").read_text().splitlines()
    assert len(told) == asked
    assert "--instance-ids i-1" in told[0]
    assert "complete-lifecycle-action" in told[-1]
    assert "--auto-scaling-group-name group --instance-id i-1 --lifecycle-hook-name serves" in told[-1]


def server_env(folder: Path, domain: str = "", cpus: int = 2, memory_kb: int = 3_900_000) -> dict[str, str]:
    """What the host's file tells the server."""
    programs(folder, nproc=f"echo {cpus}")
    (folder / "meminfo").write_text(f"MemTotal:        {memory_kb} kB\nMemFree:          1 kB\n")
    text = templates.script("host_boot.sh").partition("\ncat > /usr/local/bin/")[0]
    text = text.replace("/etc/headrace", str(folder)).replace("/proc/meminfo", str(folder / "meminfo"))
    given = {"HEADRACE_DOMAIN": domain, "HEADRACE_PROXIES": PROXIES, "HEADRACE_SSM_PREFIX": "/mlflow"}
    assert bash(folder, text, **given).returncode == 0
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


LOCK = "/var/lock/run_container.lock"


def of_server(folder: Path, command: Callable[[Cloud, list[Host], Callable[[str], None]], None]) -> str:
    """The script that a host is given, with a lock of its own."""
    given: list[str] = []

    def take(_: Cloud, host: str, script: str, *__: object) -> str:
        given.append(script.replace(LOCK, f"{folder}/lock"))
        return host

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hosts, "run", take)
        command(Cloud("us-east-1"), [Host("i-1", "Pending:Wait", "Healthy", True)], print)
    return given[0]


@pytest.mark.parametrize(("command", "word"), [(hosts.stop_servers, "stop"), (hosts.start_servers, "start")])
def test_a_host_that_boots_may_have_no_server(
    tmp_path: Path, command: Callable[[Cloud, list[Host], Callable[[str], None]], None], word: str
) -> None:
    script = of_server(tmp_path, command)
    programs(tmp_path, docker='echo "$@" >>calls; [ "$SERVER" ]')
    assert bash(tmp_path, script, SERVER="").returncode == 0
    assert bash(tmp_path, script, SERVER="there").returncode == 0
    look = "container inspect mlflow-server"
    assert (tmp_path / "calls").read_text().splitlines() == [look, look, f"{word} mlflow-server"]


def test_a_server_is_not_stopped_in_the_midst_of_its_boot(tmp_path: Path) -> None:
    """What holds the lock ends first; run_container.sh holds it, too."""
    assert f"exec 9>{LOCK}" in templates.script("run_container.sh")
    programs(tmp_path, docker="echo stopped >>calls", slow="until [ -e asked ]; do :; done; echo booted >>calls")
    programs(tmp_path, flock='touch asked; exec /usr/bin/flock "$@"')
    boot = subprocess.Popen(["/usr/bin/flock", "lock", "-c", "echo held; ./slow"], cwd=tmp_path, stdout=subprocess.PIPE)
    assert boot.stdout is not None
    with boot.stdout:
        assert boot.stdout.readline() == b"held\n"
        assert bash(tmp_path, of_server(tmp_path, hosts.stop_servers)).returncode == 0
    assert boot.wait() == 0
    assert (tmp_path / "calls").read_text().split() == ["booted", "stopped", "stopped"]


OUTSIDE, GOVCLOUD = "https://truststore.pki.rds.amazonaws.com", "https://truststore.pki.us-gov-west-1.rds.amazonaws.com"
CHINA = "https://rds-truststore.s3.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize(
    ("region", "reached", "carried", "url", "kept"),
    [
        ("us-east-1", True, "image's", OUTSIDE, "AWS's"),
        ("us-east-1", False, "image's", OUTSIDE, "image's"),
        ("us-east-1", False, "", OUTSIDE, None),  # an image that was built without them
        ("us-gov-west-1", True, "", GOVCLOUD, "AWS's"),
        ("us-gov-west-1", False, "image's", GOVCLOUD, None),  # which are of other authorities
        ("cn-northwest-1", True, "image's", CHINA, "AWS's"),
        ("cn-northwest-1", False, "image's", CHINA, None),
    ],
)
def test_where_the_databases_certificates_come_from(
    tmp_path: Path, region: str, reached: bool, carried: str, url: str, kept: str | None
) -> None:
    programs(
        tmp_path,
        curl='echo "${@: -1}" >asked; [ "$REACHED" ] || exit 6; echo "AWS\'s" >"${@: -2:1}"',
        docker='case $1 in create) echo made;; cp) printf %s "$CARRIED" >"$3";; esac',
    )
    script = templates.script("run_container.sh").removesuffix('main "$@"\n')
    done = bash(
        tmp_path,
        f"{script}\nregion={region} image=i\nfetch_certificates\n",
        HEADRACE_HOME=str(tmp_path),
        REACHED="yes" if reached else "",
        CARRIED=carried,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text().strip() == f"{url}/global/global-bundle.pem"
    file = tmp_path / "db-ca.pem"
    assert (file.read_text().strip() if file.exists() else None) == kept
    assert ("not verified" in done.stderr) is (kept is None)
    if kept is not None:
        assert file.stat().st_mode & 0o777 == 0o644, "the server's user reads it"
