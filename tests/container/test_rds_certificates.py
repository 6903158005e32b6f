"""What the image takes for the certificates of RDS (container/rds_certificates.py)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "container" / "rds_certificates.py"
CONTENT = b"-----BEGIN CERTIFICATE-----\n"


def fetch(url: str, expected: str, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, url, expected, target], capture_output=True, text=True)


def test_known_ones_alone_are_taken(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(CONTENT)
    known = hashlib.sha256(CONTENT).hexdigest()
    assert fetch(source.as_uri(), known, target).returncode == 0
    assert target.read_bytes() == CONTENT
    target.unlink()
    done = fetch(source.as_uri(), "0" * 64, target)
    assert done.returncode == 1
    assert f"RDS_CERTIFICATES_SHA256={known}" in done.stderr
    assert not target.exists()


def test_an_image_may_be_built_without(tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert fetch("", "0" * 64, target).returncode == 0
    assert target.read_bytes() == b""
    done = fetch((tmp_path / "none").as_uri(), "0" * 64, target)
    assert done.returncode == 1
    assert "can't be fetched" in done.stderr
    assert "Traceback" not in done.stderr
