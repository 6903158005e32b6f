"""The server's own settings, kept in SSM below /NAME/settings, where every host's server reads them at its start.

The parameter /NAME/SETTINGS is their revision: another one means that a container must be made anew
(run_container.sh), so that a host which was replaced meanwhile is left alone.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping
from typing import NamedTuple

from headrace.aws.client import Cloud
from headrace.errors import ConfigurationError
from headrace.settings import table
from headrace.settings.resolve import resolve
from headrace.settings.table import Setting
from headrace.ssm import SETTINGS

_LONGEST = 4096  # characters of a parameter's value
_CHANGING = "changing-"  # how a revision begins while they are put
# what the deployment sets by itself -> how that is changed
_OWNED = {
    "host": "the container's, which publishes its port",
    "port": "the container's, which publishes its port",
    "static_prefix": "none here: the balancer asks for /health, and `connect` leads to /",
    "backend_store_uri": "of the data stack's database",
    "registry_store_uri": "of the data stack's database",
    "workspace_store_uri": "of the data stack's database",
    "default_artifact_root": "of the data stack's bucket",
    "artifacts_destination": "of the data stack's bucket",
    "ssm_prefix": "--name's",
    "db_auth": "--db-auth's",
    "allowed_hosts": "--domain's",
    "cors_allowed_origins": "--domain's",
    "trusted_proxies": "of the balancer's subnets",
    "keep_alive": "longer than the balancer's",
    "admin_token": "generated into SSM as ADMIN_TOKEN",
    "expose_prometheus": "none here: the container's file system is read-only",
}
SETTABLE = {each.name: each for each in table.SETTINGS if each.name not in _OWNED}


class Changed(NamedTuple):
    """What `up` does to the settings: `put` (name -> value), and `removed`."""

    put: Mapping[str, str]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.put or self.removed)


def find(cloud: Cloud, name: str) -> dict[str, str]:
    """Setting -> its value as it is in SSM; that of a secret shows as ***."""
    found = cloud.pages("ssm", "get_parameters_by_path", "Parameters", Path=f"/{name}/{SETTINGS}")
    values = {one["Name"].rpartition("/")[2]: one for one in found}
    return {key: "***" if one["Type"] == "SecureString" else one["Value"] for key, one in sorted(values.items())}


def changes(found: Mapping[str, str], put: Mapping[str, str], unset: tuple[str, ...]) -> Changed:
    """What is to be done. `put` has the names as they were typed, and texts.

    Raises ConfigurationError for what the server would refuse, each setting by itself and all together.
    """
    chosen = {_setting(name).name: text for name, text in put.items()}
    removed = tuple(_setting(name).name for name in unset)
    if both := chosen.keys() & set(removed):
        raise ConfigurationError(f"{sorted(both)[0]} is in --set and in --unset. Leave one out.")
    if missing := [name for name in removed if name not in found]:
        raise ConfigurationError(f"--unset {missing[0]}: it is not set. `headrace aws status` shows what is.")
    for name, text in chosen.items():
        if not text or "{{" in text or len(text) > _LONGEST:
            raise ConfigurationError(
                f"--set {name}: SSM takes values of 1 to {_LONGEST} characters, without {{{{. With --unset {name} the "
                "server has its default."
            )
    after = {name: text for name, text in found.items() if name not in removed} | chosen
    environment = {SETTABLE[name].environment: text for name, text in after.items() if name in SETTABLE}
    resolve({"backend_store_uri": "postgresql://mlflow@database/mlflow", "host": "0.0.0.0"}, environment)  # noqa: S104
    return Changed({name: text for name, text in chosen.items() if secret(name) or found.get(name) != text}, removed)


def secret(name: str) -> bool:
    """Whether a setting's value may be shown nowhere. Raises ConfigurationError for what is no setting of `up`."""
    return _setting(name).secret


def store(cloud: Cloud, name: str, key: str, changed: Changed) -> None:
    """Put the changes into SSM, secrets encrypted with the KMS key `key`, and then a new revision."""
    now = str(time.time_ns())
    _put_revision(cloud, name, f"{_CHANGING}{now}")
    for setting, text in changed.put.items():
        kind = {"Type": "SecureString", "KeyId": key} if secret(setting) else {"Type": "String"}
        cloud.call("ssm", "put_parameter", Name=f"/{name}/{SETTINGS}/{setting}", Value=text, Overwrite=True, **kind)
    for setting in changed.removed:
        cloud.drop_parameter(f"/{name}/{SETTINGS}/{setting}")
    _put_revision(cloud, name, now)


def revision(cloud: Cloud, name: str) -> str | None:
    """What a host's container must have been made with; None where no setting was ever set."""
    return cloud.parameter(_revision(name))


def unfinished(cloud: Cloud, name: str) -> bool:
    """Whether `store` was broken off: a host that came meanwhile may have some of the changes."""
    return (revision(cloud, name) or "").startswith(_CHANGING)


def _put_revision(cloud: Cloud, name: str, value: str) -> None:
    cloud.put_parameter(_revision(name), value, "Headrace: the revision of the server's settings")


def _revision(name: str) -> str:
    return f"/{name}/SETTINGS"


def _setting(typed: str) -> Setting:
    """As the server's flag, its environment variable, or the setting's own name. Raises ConfigurationError."""
    known = {alias: each for each in table.SETTINGS for alias in (each.name, each.environment)}
    name = typed if typed in known else typed.removeprefix("--").replace("-", "_").lower()
    if name not in known:
        near = difflib.get_close_matches(name, SETTABLE, 1)
        meant = f" Is {near[0]} meant?" if near else ""
        raise ConfigurationError(
            f"{typed} is no setting of the server.{meant} docs/reference/settings.md has all of them."
        )
    setting = known[name]
    if setting.name in _OWNED:
        raise ConfigurationError(f"{typed} can't be set: `headrace aws` does it by itself ({_OWNED[setting.name]}).")
    return setting
