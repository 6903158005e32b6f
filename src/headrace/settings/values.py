"""The values of settings, read from their texts. A docstring ends the sentence "--option is ..., but must be"."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from headrace.settings import is_loopback


def number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not low <= (value := int(text)) <= high:
            raise ValueError
        return value

    parse.__doc__ = f"a whole number from {low} to {high}"
    return parse


def seconds(text: str) -> float:
    """a number of seconds, 0 or more"""
    if not 0 <= (value := float(text)) < 86400:
        raise ValueError
    return value


_AGE = re.compile(r"(?:([0-9.]{1,9})d)?(?:([0-9.]{1,9})h)?(?:([0-9.]{1,9})m)?(?:([0-9.]{1,9})s)?")


def parse_age(text: str) -> float:
    """a time such as 30d, 12h, 90m or 2d8h"""
    if not (seconds := parse_age_or_zero(text)):
        raise ValueError
    return seconds


def parse_age_or_zero(text: str) -> float:
    """a time such as 30d, 12h, 90m, 2d8h or 0s"""
    match = _AGE.fullmatch(text.strip())
    if match is None or not any(parts := match.groups()):
        raise ValueError
    return sum(float(part) * unit for part, unit in zip(parts, (86_400, 3_600, 60, 1), strict=True) if part)


_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)([kMGT]?)B?")


_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_quota(text: str) -> dict[str, dict[str, int]]:
    """Experiment ("" for each that has none of its own) -> artifacts (bytes) or metrics (points) -> at most so many."""
    quotas: dict[str, dict[str, int]] = {}
    for part in filter(None, (each.strip() for each in text.split(";"))):
        experiment, _, amounts = part.rpartition(":")
        for each in amounts.split(","):
            what, _, amount = each.strip().partition("=")
            match = _AMOUNT.fullmatch(amount)
            if what not in ("artifacts", "metrics") or match is None:
                raise ValueError
            quotas.setdefault(experiment.strip(), {})[what] = int(float(match[1]) * _UNITS[match[2]])
    return quotas


def quota(text: str) -> str:
    """artifacts=50GB,metrics=10M for each experiment, and ;NAME:artifacts=1TB for one"""
    if not parse_quota(text):
        raise ValueError
    return text


def parse_boolean(text: str) -> bool:
    """true or false"""
    if (lower := text.strip().lower()) in ("1", "true", "t", "yes", "y", "on"):
        return True
    if lower in ("0", "false", "f", "no", "n", "off"):
        return False
    raise ValueError


def choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    parse.__doc__ = "one of " + ", ".join(choices)
    return parse


_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")


def prefix(text: str) -> str:
    """a path such as /mlflow: it begins with "/", does not end with one, and is written as in a URL without quoting"""
    if not _PREFIX.fullmatch(text.strip()):  # what else is at its ends is told to who asks
        raise ValueError
    return text


def text(text: str) -> str:
    """a text"""
    return text


def host(text: str) -> str:
    """an address or a name of this machine, such as 127.0.0.1; 0.0.0.0 is every address"""
    text = text.removeprefix("[").removesuffix("]")
    if not text or re.search(r"[*/@?#\[\]]|^[^:]*:[^:]*$", text):
        raise ValueError
    try:
        return socket.inet_ntoa(socket.inet_aton(text))  # 127.1 and 0 are short for something
    except OSError:
        return text


def admin_token(text: str) -> str:
    """a random text of 32 characters or more without spaces, such as `openssl rand -hex 32` makes"""
    if len(text) < 32 or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return text


def networks(text: str) -> str:
    """addresses or networks separated by commas, such as 10.0.0.0/16"""
    given = [part.strip() for part in text.split(",") if part.strip()]
    if not given:
        raise ValueError
    return ",".join(str(ipaddress.ip_network(part)) for part in given)


def issuer(text: str) -> str:
    """an https:// address (http:// on this machine only)"""
    parts = urlsplit(text)
    local = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or not (local or parts.scheme == "https") or parts.query or parts.fragment:
        raise ValueError
    return text


def roles(text: str) -> str:
    """GROUP=ROLE separated by commas, with the roles viewer, editor and admin"""
    for part in text.split(","):
        group, _, role = part.rpartition("=")
        if not group.strip() or role.strip() not in ("viewer", "editor", "admin"):
            raise ValueError
    return text


def load_balancer(text: str) -> str:
    """an ARN such as arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/mlflow/0123456789abcdef"""
    if not re.fullmatch(r"arn:aws[\w-]*:elasticloadbalancing:[a-z0-9-]+:\d+:loadbalancer/app/\S+", text):
        raise ValueError
    return text


def app(text: str) -> str:
    """basic-auth, which is taken for --auth; other apps of MLflow's plugins would not see what Headrace answers"""
    if text != "basic-auth":
        raise ValueError
    return text
