"""Everything of a release but the publishing: `make release VERSION=0.2.0`, from a clean checkout.

The first run writes the version and the day where they stand (pyproject.toml, the Helm chart, CHANGELOG.md) and stops,
for a person to look at them and to commit. The next one makes dist/: sdist, a wheel built from it, the SBOM of what
`pip install` brings along (CycloneDX), the notes, and the checksums; and says which commands publish them.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")


class Refused(Exception):
    """Why there is no release; one line, with what to do."""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("version", help="such as 0.2.0 or 0.2.0rc1")
    version = parser.parse_args(arguments).version
    try:
        release(ROOT, version)
    except Refused as reason:
        sys.exit(f"release: {reason}")


def release(root: Path, version: str) -> None:
    if not VERSION.fullmatch(version):
        raise Refused(f"{version} is no version. Write one such as 0.2.0 or 0.2.0rc1.")
    if changes := run(root, "git", "status", "--porcelain"):
        raise Refused(f"there are changes that are not committed. Commit them, or put them away:\n{changes}")
    if written := write_version(root, version, datetime.datetime.now(datetime.UTC).date()):
        print(f"{version} is written to {', '.join(written)}.\nLook at `git diff`, commit it, and run this again.")
        return
    dist = root / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    sdist, wheel = build(root, dist)
    (dist / "notes.md").write_text(notes((root / "CHANGELOG.md").read_text(), version))
    bill(root, dist / f"headrace-{version}.cdx.json")
    made = sorted(file for file in dist.iterdir())
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in made]
    (dist / "SHA256SUMS").write_text("".join(sums))
    print("".join(sums), end="")
    print(
        "Nothing is published yet. What does it:\n"
        f"  git tag --sign v{version} --file dist/notes.md && git push origin v{version}\n"
        f"  uv publish dist/{sdist.name} dist/{wheel.name}\n"
        f"  IMAGE_TAG={version} container/publish.sh build && IMAGE_TAG={version} container/publish.sh push"
    )


def write_version(root: Path, version: str, today: datetime.date) -> list[str]:
    """The files that did not say so yet; now they do."""
    written = []
    for name, pattern, text in (
        ("pyproject.toml", r'^version = ".*"$', f'version = "{version}"'),
        ("deploy/helm/Chart.yaml", r"^version: .*$", f"version: {version}"),
        ("deploy/helm/Chart.yaml", r"^appVersion: .*$", f"appVersion: {version}"),
        ("CHANGELOG.md", r"^## \S+ \(unreleased\)$", f"## {version} ({today})"),
    ):
        file = root / name
        before = file.read_text()
        after = re.sub(pattern, text, before, count=1, flags=re.MULTILINE)
        if after != before:
            file.write_text(after)
            written.append(name)
    if f"\n## {version} (" not in (root / "CHANGELOG.md").read_text():
        raise Refused(f"CHANGELOG.md has nothing of {version}. Begin a section `## {version} (unreleased)`.")
    return list(dict.fromkeys(written))


def notes(changelog: str, version: str) -> str:
    """A version's section of the changelog, without its heading."""
    _, _, rest = changelog.partition(f"\n## {version} (")
    return rest.partition("\n")[2].partition("\n## ")[0].strip() + "\n"


def build(root: Path, dist: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it as anybody would."""
    run(root, sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", dist)
    (sdist,) = dist.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (unpacked,) = Path(folder).iterdir()
        run(unpacked, sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist)
    (wheel,) = dist.glob("*.whl")
    return sdist, wheel


def bill(root: Path, file: Path) -> None:
    """The SBOM: Headrace and the packages that it is tested with, each with its hashes."""
    options = ["--pyproject", "pyproject.toml", "--output-reproducible", "--output-format", "JSON", "--validate"]
    run(root, BIN / "cyclonedx-py", "requirements", *options, "--output-file", file, "requirements/server.txt")


def run(folder: Path, *command: str | Path) -> str:
    """What it prints. Raises Refused with what it complains of."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"{Path(command[0]).name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
