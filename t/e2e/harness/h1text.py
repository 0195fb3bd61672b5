# SPDX-License-Identifier: Apache-2.0
"""h1text.py - what a test says in HTTP/1 form, told as events to a side that speaks another version.

Tests write their messages as HTTP/1 bytes, in pieces and with pauses as they like. A client or a backend that
speaks HTTP/2 reads them with Script and sends the same message in its own way, as early as HTTP/1 would.
"""

from .wire import Fields

STEP = 262144


class Script:
    """Bytes of messages in; calls of on_head, on_body and on_end out.

    on_head(start line, fields) returns how the body is delimited, as wire.framing() does; "close" means that
    the body goes on until close(). on_end gets the trailers.
    """

    def __init__(self, on_head, on_body, on_end):
        self.on_head, self.on_body, self.on_end = on_head, on_body, on_end
        self.buf = bytearray()
        self.step = self._head
        self.left = 0  # bytes of the body, or of the chunk, that are still to come

    def feed(self, raw):
        self.buf += raw
        while self.step():
            pass

    def restart(self):
        """Forget a message that is not whole."""
        self.buf.clear()
        self.step = self._head

    def close(self):
        """No byte more: the end of a body that is delimited by it. Whether it was one."""
        if self.step != self._to_end:
            return False
        self.step = self._head
        self.on_end(Fields())
        return True

    def _upto(self, mark):
        at = self.buf.find(mark)
        if at < 0:
            return None
        out = bytes(self.buf[:at])
        del self.buf[:at + len(mark)]
        return out.decode("latin-1")

    @staticmethod
    def _fields(lines):
        return Fields((name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines))

    def _head(self):
        while self.buf.startswith(b"\r\n"):
            del self.buf[:2]
        text = self._upto(b"\r\n\r\n")
        if text is None:
            return False
        start, *lines = text.split("\r\n")
        framing = self.on_head(start, self._fields(lines))
        if framing == "interim":
            return True
        if framing in ("none", 0):
            self.on_end(Fields())
        elif framing == "chunked":
            self.step = self._chunk
        elif framing == "close":
            self.step = self._to_end
        else:
            self.left, self.step = framing, self._counted
        return True

    def _give(self):
        """Give what has come of the body, without making the peer wait for a copy of it all."""
        while self.left and self.buf:
            piece = bytes(self.buf[:min(self.left, STEP)])
            del self.buf[:len(piece)]
            self.left -= len(piece)
            self.on_body(piece)
        return self.left == 0

    def _counted(self):
        if not self._give():
            return False
        self.step = self._head
        self.on_end(Fields())
        return True

    def _chunk(self):
        line = self._upto(b"\r\n")
        if line is None:
            return False
        self.left = int(line.partition(";")[0], 16)
        self.step = self._chunk_bytes if self.left else self._trailers
        return True

    def _chunk_bytes(self):
        if not self._give():
            return False
        self.step = self._chunk_end
        return True

    def _chunk_end(self):
        if len(self.buf) < 2:
            return False
        del self.buf[:2]
        self.step = self._chunk
        return True

    def _trailers(self):
        if self.buf.startswith(b"\r\n"):
            del self.buf[:2]
            lines = []
        else:
            text = self._upto(b"\r\n\r\n")
            if text is None:
                return False
            lines = text.split("\r\n")
        self.step = self._head
        self.on_end(self._fields(lines))
        return True

    def _to_end(self):
        if self.buf:
            self.on_body(bytes(self.buf))
            self.buf.clear()
        return False
