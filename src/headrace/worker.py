"""A worker process: what `headrace.workers` spawns."""

from __future__ import annotations

from headrace import child


def main() -> None:
    """Serve until SIGTERM, or until the parent ends."""
    parent = child.Parent()
    with child.importing():
        from headrace.server import serve
    serve(parent)


if __name__ == "__main__":
    main()
