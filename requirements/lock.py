"""Write the lock files: every dependency pinned with its hashes, for Python 3.11 to 3.14 and every platform.

A lock holds no index and no download address. `python requirements/lock.py --upgrade` moves to newer releases.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# lock -> what it is made from; the order matters: dev.in is constrained by server.txt
LOCKS = {
    "uv.txt": "uv.in",
    "build.txt": "build.in",
    "server.txt": "../pyproject.toml",
    "container.txt": "../pyproject.toml",
    "slim.txt": "../pyproject.toml",
    "dev.txt": "dev.in",
    "oldest.txt": "oldest.in",
    "old-client.txt": "old-client.in",
    "bench-client.txt": "bench-client.in",
    "fasttrackml.txt": "fasttrackml.in",
    "stock.txt": "stock.in",
    "awscli.txt": "awscli.in",
    "checkov.txt": "checkov.in",
    "deploy.txt": "deploy.in",
    "release.txt": "release.in",
    "docs.txt": "docs.in",
}
# more options for a lock: the image's is the server's without what only clients need, the slim one without stock's, too
_IMAGE = ["--constraints", "server.txt", "--excludes", "container-without.txt"]
OPTIONS = {
    "container.txt": _IMAGE,
    "slim.txt": [*_IMAGE, "--excludes", "slim-without.txt"],
    "oldest.txt": ["--no-deps"],
}


def main() -> None:
    for lock, source in LOCKS.items():
        print(f"locking {lock}", flush=True)
        sources = [source] if lock != "dev.txt" else [source, "../pyproject.toml"]
        subprocess.run(
            [
                Path(sys.executable).with_name("uv"),
                *["pip", "compile", "--quiet", "--universal", "--python-version", "3.11"],
                *["--generate-hashes", "--no-header", "--no-annotate"],
                *[*sources, *OPTIONS.get(lock, []), "--output-file", lock, *sys.argv[1:]],
            ],
            cwd=HERE,
            check=True,
        )


if __name__ == "__main__":
    main()
