"""TLS for tests: a certificate that is its own CA, and a load balancer's end of a connection."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support.listening import Listening


def certificate(folder: Path, name: str = "127.0.0.1", days: int = 1) -> tuple[Path, Path]:
    """A certificate for a name, that only those trust who are told to, and its key. `days`: until it expires."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=3))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate", folder / "key"
    files[0].write_bytes(signed.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


class TLSProxy(Listening):
    """Stands for a load balancer: takes TLS on a port of 127.0.0.1, and hands the bytes on to `target`, a port here."""

    def __init__(self, target: int, certificate: Path, key: Path) -> None:
        super().__init__()
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self.served = 0

    def serve(self, plain: socket.socket) -> None:
        with plain:
            try:
                secured = self._context.wrap_socket(plain, server_side=True)
            except OSError:  # the client does not trust us
                return
            with secured, socket.create_connection(("127.0.0.1", self._target)) as server:
                self.served += 1
                # one request a connection is enough here: what it sends, then what comes back
                sending = threading.Thread(target=_copy, args=(server, secured), daemon=True)
                sending.start()
                _copy(secured, server)
                sending.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return
