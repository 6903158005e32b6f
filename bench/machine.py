"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.process import cpu_seconds, descendants


def facts(folder: Path) -> dict[str, Any]:
    """The machine, and the file system that the databases lie on."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "file_system": file_system(folder),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def file_system(folder: Path) -> str:
    """The type of the file system that a folder is on, as /proc/mounts has it; "unknown" where there is none."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except FileNotFoundError:
        return "unknown"
    place = folder.resolve()
    around = [mount for mount in mounts if place.is_relative_to(mount[1])]
    return max(around, key=lambda mount: len(mount[1]))[2] if around else "unknown"


class OthersMeter:
    """How much of the machine goes to processes that are not the bench's: they make the numbers worse than they are."""

    def __init__(self, roots: Sequence[int]) -> None:
        """`roots`: the processes whose trees belong to the bench."""
        self._roots = roots
        self._started = self._read()

    def _read(self) -> tuple[float, float, float]:
        own = cpu_seconds([pid for root in self._roots for pid in descendants(root)], ended_children=True)
        return time.monotonic(), busy_seconds(), own

    def cores(self) -> float:
        """The cores that others kept busy since the meter was made; a few hundredths are the kernel's own."""
        seconds, busy, own = (now - then for now, then in zip(self._read(), self._started, strict=True))
        return max((busy - own) / seconds, 0.0)


def busy_seconds() -> float:
    """The processor time that all cores have spent on anything but waiting (/proc/stat); 0 where there is none."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except FileNotFoundError:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def commit(repository: Path) -> str:
    """The repository's commit, with a plus where the work tree differs; empty outside of git."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=repository,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.stdout.strip()
