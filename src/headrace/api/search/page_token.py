"""The page tokens of searches: where the next page begins.

Stock's is base64 of `{"offset": n}`. Headrace's has the keys of the page's last row, too, so that the next page is
found by key: page 500 costs what page 1 costs, and a run that is created meanwhile neither repeats nor hides another.
As the offset is in it, stock can go on with it should it have to.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import msgspec

from headrace.api.search.ast import KeysetValue
from headrace.errors import ApiError, Declined

_MAX_LENGTH = 200_000


class BadPageToken(ApiError):
    """The token can't be a token of this search."""

    status = 400
    error_code = "INVALID_PARAMETER_VALUE"


class PageToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """`offset`: rows before the page. `after`: keys of the last of them. `query`: fingerprint of the search."""

    offset: int
    after: tuple[KeysetValue, ...] | None = None
    query: str = ""


def fingerprint(*parts: object) -> str:
    """What tells one search from another; `parts` is all of a search but the size of its pages."""
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=9).hexdigest()


def encode(token: PageToken) -> str:
    """The token as a client sees it; without `after`, letter by letter stock's."""
    content = b'{"offset": %d}' % token.offset if token.after is None else msgspec.json.encode(token)
    return base64.b64encode(content).decode()


def decode(text: str, query: str) -> PageToken:
    """The token that a client gave with the search of this fingerprint; of the first page when there is none.

    Raises:
        BadPageToken: it is one of Headrace's, but of another search, or none at all.
        Declined: it is stock's, and odd.
    """
    if not text:
        return PageToken(0)
    if len(text) > _MAX_LENGTH:
        raise BadPageToken("The page_token is too long to be one of this server's.")
    given = _read(text)
    offset = given["offset"]
    if type(offset) is not int or offset >= 2**31:
        raise Declined("a page token with an odd offset")
    if "after" not in given:
        return PageToken(offset)
    try:
        token = msgspec.convert(given, PageToken)
    except msgspec.ValidationError as error:
        raise BadPageToken(f"The page_token is not one that this server gave: {error}.") from error
    if token.query != query:
        raise BadPageToken(
            "The page_token belongs to another search. Send it with the experiment_ids, filter, run_view_type and "
            "order_by of the request that it came from, or leave it out to begin at the first page."
        )
    return token


def _read(text: str) -> dict[str, Any]:
    """As SearchUtils.parse_start_offset_from_page_token reads it. Raises BadPageToken, Declined."""
    bad = BadPageToken("The page_token is not one that this server gave. Leave it out to begin at the first page.")
    try:
        decoded = base64.b64decode(text.encode("ascii"))
    except UnicodeEncodeError:
        raise bad from None
    except ValueError:
        raise BadPageToken("Invalid page token, could not base64-decode") from None
    try:
        given = json.loads(decoded)
    except RecursionError:
        raise bad from None
    except ValueError:
        raise BadPageToken(f"Invalid page token, decoded value={decoded!r}") from None
    if not isinstance(given, dict):
        raise bad
    offset = given.get("offset")
    if not offset:
        raise BadPageToken(f"Invalid page token, parsed value={given}")
    if isinstance(offset, str):
        try:
            offset = int(offset)
        except ValueError:
            raise BadPageToken(f"Invalid page token, not stringable {offset}") from None
    if not isinstance(offset, int) or not 1 <= offset < 2**63:
        raise bad
    return given
