"""checkov's second opinion on the templates, from an environment of its own (requirements/checkov.txt).

Each exception stands in the templates, with its reason, beside the resource.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from headrace.aws import templates

CHECKOV = Path(__file__).parents[2] / ".venv-checkov" / "bin" / "checkov"


def test_checkov_finds_nothing_more(tmp_path: Path) -> None:
    assert CHECKOV.exists(), "make .venv-checkov/.ready installs it; make test does that"
    for name, text in (("data", templates.data()), ("app", templates.app())):
        (tmp_path / f"{name}.yaml").write_text(text)
    options = ["--framework", "cloudformation", "--skip-download", "--quiet", "--output", "json"]
    done = subprocess.run([CHECKOV, "--directory", tmp_path, *options], capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert [f"{one['check_id']} {one['resource']}" for one in report["results"]["failed_checks"]] == []
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 40
    assert report["summary"]["skipped"] == 7
