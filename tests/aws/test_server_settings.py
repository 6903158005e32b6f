"""Settings of the server that `headrace aws up --set` keeps in SSM: what is refused, where they go, who reads them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headrace.aws import execute, hosts, plan, server_settings, status, templates
from headrace.aws.client import Cloud
from headrace.aws.deployment import Choices
from headrace.aws.server_settings import SETTABLE, changes
from headrace.cli.aws import aws
from headrace.errors import AwsError, ConfigurationError
from headrace.settings.resolve import resolve
from headrace.settings.table import SETTINGS
from tests.aws.conftest import Account

NAME = "mlflow"
IMAGE = "example.org/headrace@sha256:" + 64 * "1"
SECRET = "oidc-secret-of-32-characters-or-so"
OIDC = {"oidc_issuer": "https://id.example.org", "oidc_client_id": "headrace", "oidc_roles": "ml=editor,*=viewer"}


@pytest.mark.parametrize(
    "typed", ["artifact_transfer", "artifact-transfer", "--artifact-transfer", "HEADRACE_ARTIFACT_TRANSFER"]
)
def test_a_setting_has_the_servers_names(typed: str) -> None:
    assert changes({}, {typed: "direct"}, ()).put == {"artifact_transfer": "direct"}
    assert changes({"artifact_transfer": "direct"}, {}, (typed,)).removed == ("artifact_transfer",)


def test_what_is_as_it_should_be_changes_nothing() -> None:
    assert not changes({"grants": "true"}, {"grants": "true"}, ())
    assert not changes({"grants": "true"}, {}, ())
    assert changes({**OIDC, "oidc_client_secret": "***"}, {"oidc_client_secret": SECRET}, ()).put


@pytest.mark.parametrize(
    ("found", "put", "unset", "says"),
    [
        ({}, {"grant": "true"}, (), "grant is no setting of the server. Is grants meant?"),
        ({}, {}, ("xyzzy",), "xyzzy is no setting of the server. docs/reference/settings.md"),
        ({}, {"grants": "maybe"}, (), "HEADRACE_GRANTS is 'maybe', but must be true or false"),
        ({}, {"workers": "0"}, (), "MLFLOW_WORKERS is '0', but must be a whole number from 1 to 256"),
        ({}, {"workers": ""}, (), "--set workers: SSM takes values of 1 to 4096"),
        ({}, {"oidc_scopes": "{{ssm:x}}"}, (), "--set oidc_scopes: SSM takes"),
        ({}, {"oidc_scopes": 4097 * "x"}, (), "--set oidc_scopes: SSM takes"),
        ({}, {"port": "80"}, (), "port can't be set: `headrace aws` does it by itself"),
        ({}, {"--trusted-proxies": "10.0.0.0/8"}, (), "--trusted-proxies can't be set"),
        ({}, {"HEADRACE_ADMIN_TOKEN": 40 * "x"}, (), "generated into SSM as ADMIN_TOKEN"),
        ({}, {}, ("grants",), "--unset grants: it is not set"),
        ({"grants": "true"}, {"grants": "false"}, ("grants",), "grants is in --set and in --unset"),
        # what does not go together, of what is set now and what was set before
        ({}, {"oidc_issuer": "https://id.example.org"}, (), "neither --oidc-client-id"),
        (OIDC, {}, ("oidc_roles",), "nobody has a role"),
        ({"grants": "true"}, {"enable_all": "true"}, (), "--enable-all and --grants are both set"),
    ],
)
def test_what_the_server_would_refuse_is_refused_before(
    found: dict[str, str], put: dict[str, str], unset: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        changes(found, put, unset)
    assert says in str(refused.value)


def test_every_setting_can_be_set_or_belongs_to_the_deployment() -> None:
    assert set(server_settings._OWNED) <= {each.name for each in SETTINGS}
    assert {"workers", "grants", "artifact_transfer", *OIDC, "oidc_client_secret"} <= SETTABLE.keys()


@pytest.fixture
def deployed(account: Account, say: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Account:
    """Both stacks with a host; nothing serves on it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", account.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", account.cloud().region)
    take(account.cloud(), plan.up(account.cloud(), Choices(image=IMAGE), say), say)
    return account


def take(cloud: Cloud, steps: list[plan.Step], say: Callable[[str], None]) -> None:
    live = execute.Live(cloud, say)
    for step in steps:
        if not isinstance(step, plan.MakeRole | plan.WaitHealthy | plan.TryOut | plan.RenewHosts):
            live.take(step)


def told(cloud: Cloud) -> int:
    """How often a host was told to look at its settings."""
    return len(cloud.call("ssm", "list_commands")["Commands"])


def test_settings_survive_in_ssm_and_the_server_reads_them(
    deployed: Account, say: Callable[[str], None], said: list[str]
) -> None:
    cloud = deployed.cloud()
    assert told(cloud) == 0, "without settings no host is asked for them"
    chosen = {**OIDC, "grants": "true", "oidc_client_secret": SECRET}
    take(cloud, plan.up(cloud, Choices(settings=chosen), say), say)
    assert "settings: " in "\n".join(said)
    assert SECRET not in "\n".join(said)
    assert told(cloud) == 1
    shown = status.status(cloud, NAME, drift=False)["settings"]
    assert shown == {**OIDC, "grants": "true", "oidc_client_secret": "***"}
    parameter = cloud.call("ssm", "describe_parameters", ParameterFilters=[
        {"Key": "Name", "Values": [f"/{NAME}/settings/oidc_client_secret"]}
    ])["Parameters"][0]  # fmt: skip
    assert parameter["Type"] == "SecureString"
    key = cloud.call("cloudformation", "describe_stacks", StackName=f"{NAME}-data")["Stacks"][0]["Outputs"]
    assert parameter["KeyId"] in {one["OutputValue"] for one in key}

    settings = resolve({}, {"HEADRACE_SSM_PREFIX": f"/{NAME}", "MLFLOW_WORKERS": "4"})  # as a new host starts it
    assert (settings.grants, settings.workers, settings.oidc_issuer) == (True, 4, OIDC["oidc_issuer"])
    assert settings.oidc_client_secret == SECRET
    before = server_settings.revision(cloud, NAME)

    take(cloud, plan.up(cloud, Choices(), say), say)
    assert server_settings.revision(cloud, NAME) == before, "nothing was changed"
    assert told(cloud) == 2, "after one that was broken off a host may lack them"
    take(cloud, plan.up(cloud, Choices(unset=tuple(OIDC), settings={"workers": "1"}), say), say)
    assert server_settings.find(cloud, NAME) == {"grants": "true", "oidc_client_secret": "***", "workers": "1"}
    assert server_settings.revision(cloud, NAME) != before
    assert resolve({}, {"HEADRACE_SSM_PREFIX": f"/{NAME}", "MLFLOW_WORKERS": "4"}).workers == 1


def test_a_server_that_does_not_start_with_them_goes_on_as_before(
    deployed: Account, say: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = deployed.cloud()

    def unhealthy(*_: Any) -> str:
        raise AwsError("run_container: not healthy")

    monkeypatch.setattr(hosts, "run", unhealthy)
    with pytest.raises(AwsError, match="The server goes on with its settings of before"):
        take(cloud, plan.up(cloud, Choices(settings={"grants": "true"}), say), say)
    assert server_settings.find(cloud, NAME) == {"grants": "true"}


def test_a_plan_shows_them_and_changes_nothing(account: Account) -> None:
    options = ["--image", IMAGE, "--set", "grants=true", "--oidc-issuer", OIDC["oidc_issuer"], "--oidc-client-secret"]
    more = ["--oidc-client-id", "headrace", "--oidc-roles", OIDC["oidc_roles"]]
    done = account.run("plan", "--json", *options, *more)
    assert done.returncode == 0, done.stderr
    (shown,) = [step["what"] for step in json.loads(done.stdout)["steps"] if step["what"].startswith("settings: ")]
    assert "grants=true" in shown
    assert "oidc_client_secret=***" in shown
    assert list(account.cloud().pages("ssm", "get_parameters_by_path", "Parameters", Path=f"/{NAME}/settings")) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--set", f"oidc_client_secret={SECRET}"], "would stay in the shell's history"),
        (["--set", "grants"], "give a value, as in grants=VALUE"),
        (["--set", "nothing=1"], "nothing is no setting of the server"),
    ],
)
def test_a_secret_is_no_argument(options: list[str], says: str) -> None:
    done = CliRunner().invoke(aws, ["up", *options], env={"AWS_REGION": "eu-central-1"})
    assert says in done.output + str(done.exception)
    assert SECRET not in done.output + str(done.exception)


def test_up_asks_for_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def stop(_cloud: Any, choices: Choices, _say: Any) -> None:
        given.append(dict(choices.settings))
        raise ConfigurationError("enough")

    monkeypatch.setattr(plan, "up", stop)
    monkeypatch.setattr("headrace.aws.tunnel.check_plugin", lambda: None)
    arguments = ["up", "--yes", "--oidc-client-secret", "--set", "grants=true"]
    CliRunner().invoke(aws, arguments, f"{SECRET}\n", env={"AWS_REGION": "eu-central-1"})
    assert given == [{"grants": "true", "oidc_client_secret": SECRET}]


def test_a_host_asks_ssm_for_the_settings_revision(tmp_path: Path) -> None:
    """Another revision is another setup, so that the container is made anew; no answer is a failure."""
    script = templates.script("run_container.sh")
    functions = "\n".join(
        script[script.index(f"\n{name}() {{") : script.index("\n}\n", script.index(f"\n{name}() {{")) + 3]
        for name in ("fail", "find_settings", "parameter", "setup")
    )
    for program, text in {"aws": "cat answer || exit 254", "docker": "echo sha256:1"}.items():
        (tmp_path / program).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / program).chmod(0o755)
    body = "set -euo pipefail\nsay() { echo $* >&2; }\nregion=r prefix=/mlflow port=5000 image=i env_file=e ca_file=c\n"

    def setup() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash"],
            input=f"{body}{functions}\nfind_settings\nsetup",
            cwd=tmp_path,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )

    assert setup().returncode == 1
    assert "SSM does not say which settings the server has" in setup().stderr
    found = []
    for revision in ("None", "1", "2", "2"):
        (tmp_path / "answer").write_text(f"{revision}\n")
        found.append(setup().stdout)
    assert len(set(found)) == 3
    assert found[2] == found[3]
