"""Which artifact paths are answered here. Whatever could be meant, or read, in two ways is stock's to refuse or allow.

Source: mlflow.utils.uri.validate_path_is_safe, which decodes a path until it no longer changes.
"""

from __future__ import annotations

from urllib.parse import unquote, urlparse, urlunparse

from headrace.errors import Declined

_DECODINGS = 10
UPLOADING = ".artifact.uploading."  # stock's LocalArtifactRepository and ours write to files of this name first


def safe(path: str) -> str:
    """The path that stock makes of a request's: decoded, relative, below its root.

    Raises:
        Declined: it is none, or one with a corner: a backslash, a control character, `#`, a scheme, a part that is
            empty, `.` or `..`.
    """
    return plain(_decoded(path))


def plain(path: str) -> str:
    """`path` itself. Raises Declined for what `safe` does not take, without decoding."""
    _check_characters(path)
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or ":" in parts[0]:
        raise Declined("a path that is not plain")
    if any(part.startswith(UPLOADING) for part in parts):
        raise Declined("a reserved name")
    return path


def _check_characters(path: str) -> None:
    if any(ord(c) < 32 or c in "\x7f\\#\ufffd" for c in path):
        raise Declined("a character in the path")


def _decoded(path: str) -> str:
    """mlflow.utils.uri._decode."""
    for _ in range(_DECODINGS):
        try:
            decoded = unquote(path)
            _check_characters(decoded)  # urlparse drops line ends
            decoded = urlunparse(urlparse(decoded))
        except ValueError as error:
            raise Declined("a path that is no path of a URL") from error
        if decoded == path:
            return path
        path = decoded
    raise Declined("a path encoded too often")
