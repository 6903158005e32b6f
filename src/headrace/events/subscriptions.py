"""What can be asked for: kinds of events, formats, and a subscription, checked."""

from __future__ import annotations

import math
from urllib.parse import urlsplit

from msgspec import Struct

from headrace.errors import InvalidParameter

RUN_KINDS = {"FINISHED": "run.finished", "FAILED": "run.failed", "KILLED": "run.killed"}
METRIC, VERSION, ALIAS = "metric.passed", "model_version.created", "model_version_alias.created"
KINDS = (*RUN_KINDS.values(), METRIC, VERSION, ALIAS)
FORMATS = ("webhook", "slack", "teams")


def chosen(kinds: tuple[str, ...], metric: str | None) -> tuple[str, ...]:
    """What was asked for; a metric asks for its event by itself, and nothing at all for all that need no metric."""
    if metric is not None:
        return tuple(dict.fromkeys((*kinds, METRIC)))
    return kinds or tuple(kind for kind in KINDS if kind != METRIC)


class Subscription(Struct, frozen=True):
    """Who is told what. `kinds`: of KINDS. `experiment_id`: only of its runs; None for all.

    `metric` with `above` or `below`: for METRIC, once for each run. `link`: the server's address as people see it.
    `url` and `secret` are empty where they were not asked for.
    """

    id: str
    name: str
    format: str
    kinds: tuple[str, ...]
    created_at: int
    url: str = ""
    secret: str = ""
    experiment_id: int | None = None
    metric: str | None = None
    above: float | None = None
    below: float | None = None
    link: str = ""

    def check(self, allow_private: bool = False) -> None:
        """Raises InvalidParameter, in words for who sets it up."""
        if not self.name.strip() or len(self.name) > 256 or not self.name.isprintable():
            raise InvalidParameter("A subscription's name has 1 to 256 printable characters.")
        if self.format not in FORMATS:
            raise InvalidParameter(f"The format is {self.format!r}, but must be one of {', '.join(FORMATS)}.")
        if not self.kinds:
            raise InvalidParameter(f"Say what to tell of: one or more of {', '.join(KINDS)}.")
        for kind in self.kinds:
            if kind not in KINDS:
                raise InvalidParameter(f"There is no event {kind!r}; there are {', '.join(KINDS)}.")
        _check_url(self.url, allow_private)
        if self.link and (urlsplit(self.link).scheme not in ("http", "https") or not urlsplit(self.link).hostname):
            raise InvalidParameter("The server's address must be http:// or https:// and a host.")
        if METRIC in self.kinds:
            if not self.metric or (self.above is None) == (self.below is None):
                raise InvalidParameter(f"{METRIC} needs a metric and one threshold: above which, or below which.")
            if not math.isfinite(self.above if self.above is not None else self.below or 0.0):
                raise InvalidParameter("A threshold is a finite number.")
        elif self.metric is not None or self.above is not None or self.below is not None:
            raise InvalidParameter(f"A metric and its threshold are for {METRIC} only.")

    def passes(self, value: float) -> bool:
        """Whether a value is beyond the threshold."""
        return value > self.above if self.above is not None else self.below is not None and value < self.below

    @property
    def address(self) -> str:
        """The URL without what is secret in it: a path, such as Slack's, is the key to a channel."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}/..."


def _check_url(url: str, allow_private: bool) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise InvalidParameter("The URL can't be read.") from None
    schemes = ("https", "http") if allow_private else ("https",)
    if parts.scheme not in schemes or not parts.hostname or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidParameter(
            "The URL must be https:// and a host, in ASCII"
            + ("." if allow_private else "; http:// only where --events-allow-private is set.")
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidParameter("The URL must not hold a user or a password: webhooks are signed instead.")
    if not allow_private and _is_private(parts.hostname):
        raise InvalidParameter(f"{parts.hostname} is not a public address; --events-allow-private allows it.")


def _is_private(host: str) -> bool:
    """Whether it is an address that nothing is sent to. What a name leads to is looked at each time."""
    from headrace.events.addresses import is_public  # an HTTP client, which only who tells events needs

    try:
        return not is_public(host)
    except ValueError:  # a name
        return False
