"""The addresses of clients, written in one way, so that they can be compared wherever they come from."""

from __future__ import annotations

import ipaddress
import re

# As some load balancers write a client into X-Forwarded-For.
_WITH_PORT = re.compile(r"(?P<four>[\d.]+):\d+|\[(?P<six>[^\]]*)\](:\d+)?", re.ASCII)


def plain_address(text: str) -> str | None:
    """The address without port, brackets and zone; None for what is none.

    One of IPv4 is itself also as a socket of both families has it, ::ffff:10.0.0.1.
    """
    text = text.strip()
    if match := _WITH_PORT.fullmatch(text):
        text = match["four"] or match["six"]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def network_of(address: str) -> str:
    """What one client has: its address, or of IPv6, where who has one has 2**64 of them, the network of these."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
