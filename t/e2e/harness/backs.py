# SPDX-License-Identifier: Apache-2.0
"""backs.py - the ways in which akashd may reach a backend.

A back is a scripted backend and what an upstream of the configuration says of it. All have one face: an answer
that a test wrote for one works on each.
"""

from .backend import ScriptedBackend
from .fronts import TlsFront, server_context
from .h2backend import H2Backend


class Back:
    """HTTP/1.1 over TCP."""

    name, version = "http1", 1
    make = ScriptedBackend

    def upstream(self):
        return {}

    def backend(self, *args, **kw):
        return self.make(*args, **kw)


class H2cBack(Back):
    """HTTP/2 over TCP."""

    name, version = "h2c", 2
    make = H2Backend

    def upstream(self):
        return {"protocol": "h2"}


class TlsBack(Back):
    """HTTP/1.1 over TLS 1.3."""

    name, protocol = "http1+tls", "http/1.1"

    def upstream(self):
        TlsFront().listener()
        return {"tls": {"ca": str(TlsFront.authority.file), "server_name": "localhost"}}

    def backend(self, *args, **kw):
        TlsFront().listener()
        return self.make(*args, tls=server_context(TlsFront.pair, alpn=[self.protocol]), **kw)


class H2Back(TlsBack):
    """HTTP/2 over TLS 1.3."""

    name, version, protocol = "h2+tls", 2, "h2"
    make = H2Backend

    def upstream(self):
        return {"protocol": "h2", **super().upstream()}


BACKS = [Back(), TlsBack(), H2cBack(), H2Back()]
