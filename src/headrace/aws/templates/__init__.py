"""The CloudFormation templates and the IAM policies of people, as texts."""

from __future__ import annotations

import re
from importlib.resources import files

_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
_INCLUDE = re.compile(r'^( *)- "# include (\S+)"$', re.M)


def data() -> str:
    """The data stack's template: what is kept for ever."""
    return _read("data.yaml")


def app() -> str:
    """The app stack's template: what runs; the scripts of a host's first boot are put in."""
    return _INCLUDE.sub(_include, _read("app.yaml"))


# what `headrace aws export` prints -> its file. IAM takes 6,144 characters a managed policy: the deployer's is two.
POLICIES = {
    "deployer-policy": "deployer-policy-1.json",
    "deployer-policy-2": "deployer-policy-2.json",
    "connect-policy": "connect-policy.json",
}


def policy(which: str, account: str, region: str, name: str) -> str:
    """An IAM policy (JSON) for this account, region and deployment: a key of POLICIES."""
    partition = next((each for start, each in _PARTITIONS.items() if region.startswith(start)), "aws")
    text = _read(POLICIES[which])
    for placeholder, value in {"PARTITION": partition, "ACCOUNT": account, "REGION": region, "NAME": name}.items():
        text = text.replace(placeholder, value)
    return text


def script(name: str) -> str:
    """A shell script of the package, for instance run_container.sh."""
    return files("headrace.aws").joinpath(name).read_text(encoding="utf-8")


def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _include(match: re.Match[str]) -> str:
    """The script as a YAML block scalar, one level deeper than its line."""
    indent, name = match.groups()
    lines = (f"{indent}  {line}".rstrip() for line in script(name).rstrip().splitlines())
    return f"{indent}- |-\n" + "\n".join(lines)
