"""Which artifact paths are answered here: a name is what it is, `#`, `?` and `%` in it included.

Stock decodes a path until it no longer changes (mlflow.utils.uri.validate_path_is_safe), takes `a%20b` for `a b`, cuts
names at some signs and refuses `#`. Here a path is only looked at so: what decoding makes of it must lead nowhere else,
for what is declined is stock's to decode.
"""

from __future__ import annotations

from urllib.parse import unquote

from headrace.errors import Declined, Malformed

_DECODINGS = 10
UPLOADING = ".artifact.uploading."  # stock's LocalArtifactRepository and ours write to files of this name first


def safe(path: str) -> str:
    """`path` itself, which is relative, below its root, and stays there however often somebody decodes it.

    Raises:
        Declined: it has a corner, or would have decoded: a backslash, a control character, a scheme, a part that is
            empty, `.` or `..`. Stock takes some of these, and only fails at others.
    """
    decoded = plain(path)
    for _ in range(_DECODINGS):
        decoded, before = unquote(decoded), decoded
        if decoded == before:
            return path
        plain(decoded)
    raise Declined("a path encoded too often")


def plain(path: str) -> str:
    """`path` itself. Raises Malformed, a Declined, for what `safe` does not take, without decoding."""
    if any(ord(c) < 32 or c in "\x7f\\\ufffd" for c in path):
        raise Malformed("a character in the path")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or ":" in parts[0]:
        raise Malformed("a path that is not plain")
    if any(part.startswith(UPLOADING) for part in parts):
        raise Malformed("a reserved name")
    return path
