"""URIs as they may be shown: without the passwords in them. What a database's URL means is database_url.py's."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

_IN_TEXT = re.compile(r"(://[^:/@\s]*):\S*@")
_IN_QUERY = re.compile(r"((?:ssl|oauth_client_)?(?:password|secret)=)[^&\s]+")
_PASSWORD = re.compile(r"://[^:/@]*:([^@]*)@")


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


# A password of three letters would be cut out of every word that has them.
_SHORTEST = 4
