"""URLs for all parts of a multipart upload from the first one's: they differ in a number and the signature.

botocore takes 0.4 ms for each, of which S3 has up to 10,000: four seconds in which the worker's other requests wait for
their turns. Source: Amazon S3's API reference, "Authenticating Requests: Using Query Parameters".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

_NUMBER, _SIGNATURE = "partNumber", "X-Amz-Signature"


def all_parts(first: str, secret: str, count: int) -> list[str] | None:
    """The URLs of the parts 1 to `count`. `first`: the first one's, as botocore has signed it with this secret.

    None where that is not what is reckoned here: another kind of signature, or another secret.
    """
    parts = urlsplit(first)
    pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in parts.query.split("&"))]
    given = dict(pairs)
    if pairs[-1][0] != _SIGNATURE or given.get(_NUMBER) != "1" or len(given) < len(pairs):
        return None
    signed = pairs[:-1]
    path = f"{first.partition('?')[0]}?"
    sign = _signer(given, secret)
    if sign is None:
        return None
    before, after = _around(signed)
    ordered_before, ordered_after = _around(sorted(signed))
    head, tail = (
        f"PUT\n{parts.path}\n{ordered_before}",
        f"{ordered_after}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD",
    )
    urls = [
        f"{path}{before}{number}{after}&{_SIGNATURE}={sign(f'{head}{number}{tail}')}" for number in range(1, count + 1)
    ]
    return urls if urls and urls[0] == first else None


def _around(pairs: list[tuple[str, str]]) -> tuple[str, str]:
    """The query before and behind the part's number."""
    names = [name for name, _ in pairs]
    at = names.index(_NUMBER)
    texts = [f"{name}={value}" for name, value in pairs]
    before, after = texts[:at], texts[at + 1 :]
    return "&".join([*before, f"{_NUMBER}="]), "".join(f"&{text}" for text in after)


def _signer(given: dict[str, str], secret: str) -> Callable[[str], str] | None:
    """The signature of a canonical request; None for another way to sign."""
    if given.get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256" or "X-Amz-Credential" not in given:
        return None
    _, _, scope = unquote(given["X-Amz-Credential"]).partition("/")
    key = f"AWS4{secret}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    start = f"AWS4-HMAC-SHA256\n{given.get('X-Amz-Date')}\n{scope}\n"

    def sign(request: str) -> str:
        digest = hashlib.sha256(request.encode()).hexdigest()
        return hmac.digest(key, f"{start}{digest}".encode(), "sha256").hex()

    return sign
