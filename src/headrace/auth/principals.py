"""Who sends a request, and what they may do.

right    viewer    editor    admin      on one experiment or registered model, as granted
READ     x         x         x          read
EDIT               x         x          edit: log, change and delete what is in it
MANAGE             x         x          manage: rename and delete it, too
ADMIN                        x
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Right(IntEnum):
    """What a request needs; each includes those before it. OPEN needs nobody, SIGNED_IN anybody that we know."""

    OPEN = -1
    SIGNED_IN = 0
    READ = 1
    EDIT = 2
    MANAGE = 3
    ADMIN = 4


ADMIN = "admin"  # the user of the first token and of HEADRACE_ADMIN_TOKEN
JOBS = "MLflow's jobs"
# role -> the most that it may do, anywhere on the server
ROLES = {"viewer": Right.READ, "editor": Right.MANAGE, "admin": Right.ADMIN}
# role of a token -> the most that it may do; "user": whatever its user may, grants and later promotions included
SCOPES = {"user": Right.ADMIN} | ROLES
# what can be granted on a single experiment or registered model
PERMISSIONS = {"read": Right.READ, "edit": Right.EDIT, "manage": Right.MANAGE}


class Principal(Struct, frozen=True):
    """Somebody that we know.

    `role` is the user's right on the server, `most` what the credential (a token's role) allows at most. `via` says how
    we know, for logs: "token laptop", "password", "session". `expires`: seconds since 1970.
    """

    user: str
    role: Right
    most: Right = Right.ADMIN
    via: str = ""
    groups: tuple[str, ...] = ()
    token_id: str | None = None
    session_id: str | None = None
    expires: float = float("inf")

    @property
    def right(self) -> Right:
        """What they may do anywhere on the server."""
        return self.role if self.role <= self.most else self.most
