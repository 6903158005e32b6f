"""A stand-in for RDS's IAM authentication, in front of a real PostgreSQL.

As RDS it takes no password but a token, in clear within TLS (that is what PAM asks for), of the members of rds_iam; it
checks the signature with botocore and the hour, and refuses with RDS's own words. Everybody else PostgreSQL itself asks
for what it asks them. What it can't show: the permission rds-db:connect, which IAM decides.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import struct
import threading
from pathlib import Path
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import boto3
import psycopg2

from tests.support.listening import Listening

_SSL_REQUEST = 80877103
_CANCEL_REQUEST = 80877102  # a connection of its own, with no user
GOOD_SECONDS = 900


class Rds(Listening):
    """Serves `host`:`port` of this machine. Tokens are good for GOOD_SECONDS, and none of before `since`."""

    def __init__(self, target: int, certificate: Path, key: Path, host: str) -> None:
        super().__init__()
        self.since, self.refuses = datetime.datetime.min, False  # in UTC, as tokens have it
        self.let_in, self.tokens = 0, set[str]()
        self._target, self._host = target, host
        self._one_at_a_time = threading.Lock()  # botocore's clock is everybody's
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)

    def is_good(self, token: str, user: str) -> bool:
        """What the token says, signed anew by botocore with the same keys at its time, is the token."""
        try:
            query = parse_qs(urlsplit(f"https://{token}").query)
            signed_at = datetime.datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ")
        except (ValueError, KeyError):
            return False
        age = (_now() - signed_at).total_seconds()
        with self._one_at_a_time, mock.patch("botocore.auth.get_current_datetime", return_value=signed_at):
            client = boto3.client("rds", "us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing")
            mine = client.generate_db_auth_token(self._host, self.port, user)
        return token == mine and age <= GOOD_SECONDS and signed_at >= self.since

    def age(self) -> None:
        """The tokens that were made until now are as old as none may be."""
        self.since = _now().replace(microsecond=0) + datetime.timedelta(seconds=1)

    def serve(self, client: socket.socket) -> None:
        with client:
            self._talk(client)

    def _talk(self, plain: socket.socket) -> None:
        assert _code(_start_packet(plain)) == _SSL_REQUEST, "RDS takes no token without TLS"
        plain.sendall(b"S")
        with self._context.wrap_socket(plain, server_side=True) as client:
            self._let_in(client, _start_packet(client))

    def _let_in(self, client: ssl.SSLSocket, start: bytes) -> None:
        if _code(start) != _CANCEL_REQUEST:
            words = start[8:].split(b"\0")
            user = dict(zip(words[::2], words[1::2], strict=False))[b"user"].decode()
            if self._is_asked_for_a_token(user):
                self._take_token(client, user)
        self._hand_over(client, start)

    def _hand_over(self, client: socket.socket, start: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            server.sendall(start)
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()

    def _is_asked_for_a_token(self, user: str) -> bool:
        """By RDS's pg_hba.conf: `hostssl all +rds_iam all pam`."""
        asked = "SELECT pg_has_role(m.oid, r.oid, 'member') FROM pg_roles m, pg_roles r WHERE m.rolname = %s"
        at = {"host": "127.0.0.1", "port": self._target, "sslmode": "disable"}  # whatever a test has in PG*
        connection = psycopg2.connect(**at, user="postgres", dbname="postgres")
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(f"{asked} AND r.rolname = 'rds_iam'", (user,))
            return (True,) in cursor.fetchall()

    def _take_token(self, client: ssl.SSLSocket, user: str) -> None:
        """Raises ConnectionResetError for one that is refused."""
        client.sendall(b"R" + struct.pack("!II", 8, 3))
        kind = _exactly(client, 1)
        assert kind == b"p"
        token = _exactly(client, struct.unpack("!I", _exactly(client, 4))[0] - 4).rstrip(b"\0").decode()
        if self.refuses or not self.is_good(token, user):
            said = f'SFATAL\0VFATAL\0C28000\0MPAM authentication failed for user "{user}"\0\0'.encode()
            client.sendall(b"E" + struct.pack("!I", len(said) + 4) + said)
            raise ConnectionResetError
        self.let_in += 1
        self.tokens.add(token)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def _start_packet(connection: socket.socket) -> bytes:
    """Whole: its size, what is asked for, and the rest."""
    size = _exactly(connection, 4)
    return size + _exactly(connection, struct.unpack("!I", size)[0] - 4)


def _code(start: bytes) -> int:
    return int(struct.unpack("!I", start[4:8])[0])


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = connection.recv(count - len(found))
        if not piece:
            raise ConnectionResetError
        found += piece
    return found


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for each in (source, sink):
            with contextlib.suppress(OSError):
                # the other thread still uses the TLS, which SSLSocket.shutdown would take from it
                socket.socket.shutdown(each, socket.SHUT_RDWR)
