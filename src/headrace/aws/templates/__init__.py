"""The CloudFormation templates and the deployer's IAM policy, as texts."""

from __future__ import annotations

import re
from importlib.resources import files

_INCLUDE = re.compile(r'^( *)- "# include (\S+)"$', re.M)


def data() -> str:
    """The data stack's template: what is kept for ever."""
    return _read("data.yaml")


def app() -> str:
    """The app stack's template: what runs; the scripts of a host's first boot are put in."""
    return _INCLUDE.sub(_include, _read("app.yaml"))


def deployer_policy() -> str:
    """The IAM policy (JSON) of who runs `headrace aws`; ACCOUNT, REGION and NAME are to be filled in."""
    return _read("deployer-policy.json")


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
