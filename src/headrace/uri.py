"""URIs as they may be shown: without the passwords in them; and which runs and models they name.

What a database's URL means is database_url.py's.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urlsplit

# The slashes or the colon before them may be missing.
_IN_TEXT = re.compile(r"((?://|^[\w+]+:/?)[^:/@\s]*):\S*@")
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*(?=:)")
_IN_QUERY = re.compile(r"((?:ssl|oauth_client_)?(?:password|secret)=)[^&\s]+")
_PASSWORD = re.compile(r"://[^:/@]*:([^@]*)@")
# A password of three letters would be cut out of every word that has them.
_SHORTEST = 4
_RUN = re.compile(r"(?:^runs:/|/)([0-9a-f]{32})(?=/|$)")
_MODEL = re.compile(r"(?:^models:/|/models/)(m-[0-9a-f]{32})(?=/|$)")


def scheme_of(text: str) -> str:
    """What is before the colon of a URI, in small letters; "" for a path."""
    found = _SCHEME.match(text)
    return found[0].lower() if found else ""


def what_is_wrong(address: str) -> str:
    """Why a text is no address of a server; "" if it is one."""
    if not address.startswith(("http://", "https://")):
        return "does not begin with http:// or https://"
    try:
        parts = urlsplit(address)
        good = parts.hostname and (parts.port or 1) and address == address.strip() and " " not in address
    except ValueError:
        good = False
    return "" if good else "has no host, a port that is none, or a blank in it"


def redact(text: str, *uris: str | None) -> str:
    """`text` with the passwords of every URI in it, and those of `uris` wherever they appear, as `***`."""
    text = _IN_QUERY.sub(r"\1***", _IN_TEXT.sub(r"\1:***@", text))
    for uri in uris:
        found = _PASSWORD.search(uri) if uri else None
        if found is not None and len(found[1]) >= _SHORTEST:
            password = unquote(found[1])
            for secret in {password, quote(password, safe="")}:
                text = text.replace(secret, "***")
    return text


def runs_in(source: str) -> list[str]:
    """The ids of runs in the source of a model version."""
    return _RUN.findall(source)


def models_in(source: str) -> list[str]:
    """The ids of logged models in it."""
    return _MODEL.findall(source)
