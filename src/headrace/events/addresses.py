"""Where nothing is ever sent: loopback, link-local and private addresses. A name is looked up once, and what was
checked is what is connected to, so that a name which changes its mind meanwhile changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

import httpcore

_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Of no host of the internet (IANA's special-purpose registries), which Python's older releases take for public. A
# cloud's metadata are at 192.0.0.192.
_SPECIAL = [ipaddress.ip_network(each) for each in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")]


class Refused(httpcore.ConnectError):
    """The name leads to an address where nothing is sent."""


def is_public(text: str) -> bool:
    """Whether it is an address of the public internet, also where an IPv6 address stands for one of IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        for inner in (address.ipv4_mapped, address.sixtofour, (address.teredo or (None, None))[1]):
            if inner is not None and not is_public(str(inner)):
                return False
        if address in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
        if address.ipv4_mapped is not None:
            return True
        if address not in _UNICAST:
            return False
    if any(address in network for network in _SPECIAL if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class PublicOnly(httpcore.AsyncNetworkBackend):
    """httpcore's network, which connects to public addresses only; `allow_private`: to any."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Look the name up, check every address that it has, and connect to one of them. Raises Refused."""
        try:
            async with asyncio.timeout(timeout):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} is not found in time") from None
        except (OSError, UnicodeError):
            raise httpcore.ConnectError(f"there is no address of {host}") from None
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not self._allow_private:
            for address in addresses:
                if not is_public(address):
                    raise Refused(
                        f"{host} is {address}, which is not a public address (--events-allow-private allows it)"
                    )
        error: Exception = httpcore.ConnectError(f"there is no address of {host}")
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as reason:
                error = reason
        raise error

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)
