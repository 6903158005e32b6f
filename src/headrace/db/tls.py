"""TLS to PostgreSQL, as libpq has it: sslmode, certificates, keys, who is trusted, what is revoked."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping

from headrace.database_url import Host, PostgresURL


class Unreadable(ConnectionError):
    """A certificate or a key; the text says all."""


class _Context(ssl.SSLContext):
    """A context that knows whom it expects: asyncpg takes the address that it connects to for the host's name."""

    host: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.host, session)


def contexts(database: PostgresURL, host: Host) -> Iterator[ssl.SSLContext | None]:
    """What to try in turn; None is without TLS. libpq's sslmode."""
    mode = "disable" if host.is_socket else database.parameters.get("sslmode", "prefer")
    if mode in ("disable", "allow"):
        yield None
    if mode != "disable":
        yield _context(database.parameters, mode, host)
    if mode == "prefer":
        yield None


def _context(given: Mapping[str, str], mode: str, host: Host) -> ssl.SSLContext:
    """As libpq's: the certificates are read anew for each connection, since they are changed under a running server.

    Raises Unreadable.
    """
    home = os.path.join(os.path.expanduser("~"), ".postgresql")
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    context.host = None if given.get("sslsni") == "0" else host.name
    root = given.get("sslrootcert") or _there(f"{home}/root.crt")
    if mode.startswith("verify") and not root:
        raise Unreadable(
            f"sslmode={mode} needs the certificate of who signed the server's. Name its file with sslrootcert, or put "
            f"it at {home}/root.crt; sslrootcert=system takes those of the operating system"
        )
    try:
        if mode in ("allow", "prefer") or not root:
            context.verify_mode = ssl.CERT_NONE
        else:
            _trust(context, root, given, home)
        certificate = _there(given.get("sslcert") or f"{home}/postgresql.crt")  # libpq goes without, too
        if certificate and given.get("sslcertmode") != "disable":
            key = given.get("sslkey") or _there(f"{home}/postgresql.key")
            context.load_cert_chain(certificate, key, password=given.get("sslpassword", ""))
    except OSError as error:  # ssl.SSLError, too
        raise Unreadable(
            f"a certificate or key can't be read: {error}. Look at sslrootcert, sslcert, sslkey, sslpassword and sslcrl"
        ) from None
    if log := given.get("sslkeylogfile"):
        context.keylog_filename = log
    context.minimum_version = _version(given.get("ssl_min_protocol_version", "TLSv1.2"))
    if highest := given.get("ssl_max_protocol_version"):
        context.maximum_version = _version(highest)
    context.set_alpn_protocols(["postgresql"])
    return context


def _trust(context: ssl.SSLContext, root: str, given: Mapping[str, str], home: str) -> None:
    """Who may have signed the server's certificate, and which are revoked."""
    if root == "system":
        context.load_default_certs()
    else:
        context.load_verify_locations(root)
    folder = given.get("sslcrldir")
    revoked = given.get("sslcrl") or (None if folder else _there(f"{home}/root.crl"))
    if revoked or folder:
        context.load_verify_locations(revoked, folder)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _there(path: str) -> str | None:
    return path if os.path.exists(path) else None


def _version(name: str) -> ssl.TLSVersion:
    return ssl.TLSVersion[name.replace(".", "_")]
