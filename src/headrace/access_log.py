"""`--access-log`: a line for each answered request on the standard output.

    2026-11-28T12:00:00.123Z 10.0.0.7 ada "POST /api/2.0/mlflow/runs/create" 200 412 0.0031 native
    {"access":"2026-11-28T12:00:00.123Z","client":"10.0.0.7","user":"ada","method":"POST","path":"...",...}

Client, user ("-" for nobody that we know), request, status (499: the client went away), bytes of the answer, seconds,
who answered, and the error's id where there is one. Queries are not written: they may hold what is secret.
"""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime

from headrace.asgi.types import PRINCIPAL, Scope


class AccessLog:
    """`as_json`: lines of JSON instead of text."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def write(self, scope: Scope, status: int, sent: int, seconds: float, by: str, error_id: str) -> None:
        """One line. `sent`: bytes of the body; `error_id`: empty for none."""
        who = scope.get(PRINCIPAL)
        entry = {
            "access": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "client": (scope.get("client") or ("",))[0],
            "user": who.user if who is not None else "",
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "bytes": sent,
            "seconds": round(seconds, 6),
            "answered_by": by,
        }
        if error_id:
            entry["error"] = error_id
        if self._as_json:
            line = json.dumps(entry, separators=(",", ":"))
        else:
            # as JSON writes texts: no line break, quote or control character of a client's can forge a line
            request = json.dumps(f"{entry.pop('method')} {entry.pop('path')}")
            user = json.dumps(entry["user"])[1:-1].replace(" ", "\\u0020") or "-"
            line = f"{entry['access']} {entry['client'] or '-'} {user} {request} {status} {sent} {seconds:.4f} {by}"
            line += f" {error_id}" if error_id else ""
        with contextlib.suppress(OSError):  # nobody reads it any more
            os.write(1, line.encode() + b"\n")
