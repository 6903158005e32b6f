"""The Docker engine of the rehearsal, by its command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any


class DockerError(Exception):
    """The command failed; the text is what it said."""


def docker(*arguments: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run `docker ARGUMENTS` and return what it prints."""
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, env=env)
    if done.returncode:
        raise DockerError(f"docker {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def inspect(name: str) -> dict[str, Any]:
    """What the engine knows of a container."""
    found: dict[str, Any] = json.loads(docker("container", "inspect", name))[0]
    return found


def exists(name: str) -> bool:
    return subprocess.run(["docker", "container", "inspect", name], capture_output=True).returncode == 0


def remove(*names: str) -> None:
    """Remove containers that may be there."""
    if names:
        subprocess.run(["docker", "rm", "--force", "--volumes", *names], capture_output=True)


def image_size(image: str) -> int:
    """Bytes."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", image))
