# SPDX-License-Identifier: Apache-2.0
"""fronts.py - the ways in which a client may reach akashd.

A test that takes a front runs once for each: what it says about HTTP must hold over every one of them.
A front is a listener's part of the configuration and a way to connect to it.
"""

import atexit
import datetime
import ipaddress
import shutil
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .client import Client
from .h2client import H2Client
from .h2frames import FramePeer


# Python lets OpenSSL 3 take a truncation for an orderly end; here it is an error.
IGNORE_EOF = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 1 << 7)


class Authority:
    """A certificate authority of the test run."""

    def __init__(self, folder=None, name="akashd tests"):
        self.folder = Path(folder or tempfile.mkdtemp(prefix="akashd-ca-"))
        self.folder.chmod(0o755)
        if folder is None:
            atexit.register(shutil.rmtree, self.folder, True)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.cert = self._sign(self.name, self.key.public_key(), [], True)
        self.file = self.folder / "ca.pem"
        self.file.write_bytes(self.cert.public_bytes(serialization.Encoding.PEM))

    @staticmethod
    def _alternative(name):
        try:
            return x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            return x509.DNSName(name)

    def _sign(self, subject, public, names, authority, days=30):
        now = datetime.datetime.utcnow()
        begin = now - datetime.timedelta(days=1 if days > 0 else 1 - days)
        b = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name)
             .public_key(public).serial_number(x509.random_serial_number())
             .not_valid_before(begin)
             .not_valid_after(now + datetime.timedelta(days=days))
             .add_extension(x509.BasicConstraints(authority, None), critical=True))
        if names:
            b = b.add_extension(x509.SubjectAlternativeName([self._alternative(n) for n in names]), False)
            b = b.add_extension(x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        return b.sign(self.key, hashes.SHA256())

    def issue(self, *names, kind="ec", stem=None, days=30):
        """(certificate file, key file) for these names and addresses, absolute paths. days below 0: expired."""
        key = (ec.generate_private_key(ec.SECP256R1()) if kind == "ec"
               else rsa.generate_private_key(65537, 2048))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        cert = self._sign(subject, key.public_key(), names, False, days)
        stem = stem or f"{names[0].replace('*', 'any')}-{kind}"
        cert_file, key_file = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()))
        return str(cert_file), str(key_file)

    def client_context(self, verify=True):
        context = ssl.create_default_context(cafile=str(self.file))
        context.options &= ~IGNORE_EOF
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def server_context(pair, client_ca=None, version=None, alpn=None):
    """For ScriptedBackend(tls=): what a server with that (certificate, key) does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options &= ~IGNORE_EOF
    context.load_cert_chain(*pair)
    if client_ca:
        context.load_verify_locations(str(client_ca))
        context.verify_mode = ssl.CERT_REQUIRED
    if version:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


class Front:
    """HTTP/1.1 over TCP."""

    name, scheme = "http", "http"
    version = 1  # of HTTP: what is told by lines and on one connection after another is a matter of 1
    says = "1.1"  # the version of an answer

    def listener(self):
        return {}

    def connect(self, port, **kw):
        return Client(port, **kw)


class TlsFront(Front):
    """HTTP/1.1 over TLS 1.3."""

    name, scheme = "https", "https"
    protocol = "http/1.1"
    authority = None

    def listener(self):
        if not TlsFront.authority:
            TlsFront.authority = Authority()
            TlsFront.pair = TlsFront.authority.issue("localhost", "test")
        cert, key = TlsFront.pair
        return {"tls": {"certificates": [{"cert": cert, "key": key}]}}

    def wrap(self, sock):
        context = TlsFront.authority.client_context()
        context.set_alpn_protocols([self.protocol])
        wrapped = context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)
        assert self.version == 1 or wrapped.selected_alpn_protocol() == self.protocol
        return wrapped

    def connect(self, port, **kw):
        return Client(port, wrap=self.wrap, **kw)


class H2cFront(Front):
    """HTTP/2 over TCP, which the client knows beforehand."""

    name, version, says = "h2c", 2, "2"

    def connect(self, port, **kw):
        return H2Client(port, **kw)

    def frames(self, port, **kw):
        """A client that sends single frames."""
        return FramePeer(port, **kw)


class H2Front(TlsFront):
    """HTTP/2 over TLS 1.3, by ALPN."""

    name, version, says, protocol = "h2", 2, "2", "h2"

    def connect(self, port, **kw):
        return H2Client(port, wrap=self.wrap, scheme="https", **kw)

    def frames(self, port, **kw):
        return FramePeer(port, wrap=self.wrap, **kw)


FRONTS_OF_1 = [Front(), TlsFront()]
FRONTS_OF_2 = [H2cFront(), H2Front()]
FRONTS = [*FRONTS_OF_1, *FRONTS_OF_2]
