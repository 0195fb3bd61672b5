# SPDX-License-Identifier: Apache-2.0
"""h2side.py - one end of an HTTP/2 connection, client or server, on python3-h2.

A thread of its own reads and writes the socket; whoever uses a side calls it from any thread and waits with
a deadline. What comes for a stream is kept there, and its window is given back only as the test reads on, so that
a test that does not read holds the sender back. The window of the connection is given back at once: one
stream never stalls another.
"""

import os
import select
import socket
import ssl
import struct
import threading
import time
from collections import deque

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (ConnectionTerminated, DataReceived, InformationalResponseReceived, RequestReceived,
                       ResponseReceived, StreamEnded, StreamReset, TrailersReceived)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from .wire import PATIENCE, Ended, Fields, Reset, Silence

BACKLOG = 262144  # bytes that wait for the socket before a sender must wait


class Stream:
    """What has come for one stream. All of it is guarded by the side's lock."""

    def __init__(self, stream_id):
        self.id = stream_id
        self.heads = deque()  # Fields, pseudo-fields and all; interim ones first
        self.pieces = deque()  # (bytes, what they cost of the window)
        self.trailers = Fields()
        self.is_ended = False  # the peer's END_STREAM has come
        self.reset = None  # the code of a RST_STREAM, theirs or ours
        self.over = threading.Event()  # by the peer: it has reset the stream, or the connection is gone


class Connection(H2Connection):
    """python3-h2 takes GOAWAY for the end; RFC 9113 6.8 lets the streams that are open go on."""

    def _receive_goaway_frame(self, frame):
        event = ConnectionTerminated()
        event.error_code, event.last_stream_id = frame.error_code, frame.last_stream_id
        return [], [event]


def fields_of(pairs):
    return Fields((str(name), str(value)) for name, value in pairs)


class Side:
    """A connection. on_request(stream), for servers, is called in the side's thread when a head has come."""

    def __init__(self, sock, is_client, on_request=None, settings=None, record=True):
        self.sock, self.on_request, self.record = sock, on_request, record
        self.changed = threading.Condition(threading.RLock())
        self.streams = {}
        self.received = bytearray()
        self.count = 0
        self.out = bytearray()
        self.end = None  # None while open, then "fin" or "rst"
        self.is_reset = False  # a send was told so: the kernel tells it once, and the end is then read as a plain one
        self.has_closed = False  # by us
        self.malformed = None  # why what came is no HTTP/2
        self.goaway = None  # the event
        self.h2 = Connection(H2Configuration(
            client_side=is_client, header_encoding="latin-1", validate_outbound_headers=False,
            normalize_outbound_headers=False, normalize_inbound_headers=False, validate_inbound_headers=True))
        mine = {SettingCodes.MAX_HEADER_LIST_SIZE: 1 << 17, **({SettingCodes.ENABLE_PUSH: 0} if is_client else {}),
                **(settings or {})}
        self.h2.local_settings = Settings(is_client, mine)
        self.wake_in, self.wake_out = os.pipe()
        self.sock.setblocking(False)
        with self.changed:
            self.h2.initiate_connection()
            self._collect()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        return self

    # -- the thread

    def _run(self):
        try:
            while self._turn():
                pass
        finally:
            with self.changed:
                self.end = self.end or "rst"
                for stream in self.streams.values():
                    stream.over.set()
                os.close(self.wake_in)
                os.close(self.wake_out)
                self.wake_in = None
                self.sock.close()
                self.changed.notify_all()

    def _turn(self):
        """Wait for the socket, read it, write it. Whether there will be another turn."""
        with self.changed:
            wants = bool(self.out)
            if self.has_closed and not (self.out and self.has_closed == "drain"):
                return self._finish()
            pending = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
        if not pending:
            poll = select.poll()  # select() knows no descriptor above 1023
            poll.register(self.sock, select.POLLIN | (select.POLLOUT if wants else 0))
            poll.register(self.wake_in, select.POLLIN)
            if self.wake_in in [fd for fd, _ in poll.poll(5000)]:
                os.read(self.wake_in, 4096)
        with self.changed:
            goes_on = self._read() and self._write()
            self.changed.notify_all()
        return goes_on

    def _finish(self):
        if isinstance(self.sock, ssl.SSLSocket) and self.has_closed == "drain":
            try:
                self.sock.unwrap()
            except (OSError, ValueError):
                pass
        self.end = self.end or "closed"
        return False

    def _read(self):
        try:
            got = self.sock.recv(262144)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except ssl.SSLZeroReturnError:
            got = b""
        except (OSError, ValueError):
            self.end = "rst"
            return False
        if not got:
            self.end = "rst" if self.is_reset else "fin"
            return False
        self.count += len(got)
        if self.record:
            self.received += got
        return self._take(got)

    def _take(self, got):
        """Let h2 judge what came. What it refuses ends the connection, and is kept as the reason."""
        try:
            for event in self.h2.receive_data(got):
                self._on_event(event)
        except ProtocolError as why:
            self.malformed = f"{type(why).__name__}: {why}"
            self._collect()
            self._write()
            self.end = "rst"
            return False
        self._collect()
        return True

    def _on_event(self, event):
        if isinstance(event, ConnectionTerminated):
            self.goaway = event
        stream_id = getattr(event, "stream_id", None)
        if isinstance(event, RequestReceived):
            self.streams[stream_id] = Stream(stream_id)
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        if isinstance(event, (RequestReceived, ResponseReceived, InformationalResponseReceived)):
            stream.heads.append(fields_of(event.headers))
            if self.on_request and isinstance(event, RequestReceived):
                stream.is_ended = event.stream_ended is not None
                self.on_request(stream)
        elif isinstance(event, TrailersReceived):
            stream.trailers = fields_of(event.headers)
        elif isinstance(event, DataReceived):
            stream.pieces.append((event.data, event.flow_controlled_length))
            if event.flow_controlled_length:
                self.h2.increment_flow_control_window(event.flow_controlled_length)
        elif isinstance(event, StreamEnded):
            stream.is_ended = True
        elif isinstance(event, StreamReset):
            stream.reset = event.error_code
            stream.over.set()

    def _collect(self):
        self.out += self.h2.data_to_send()

    def _write(self):
        try:
            while self.out:
                del self.out[:self.sock.send(bytes(self.out[:65536]))]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except (OSError, ValueError) as why:
            self.is_reset |= isinstance(why, ConnectionResetError)
            self.out.clear()  # the end will be read
        return True

    # -- for the users; each takes the lock

    def wake(self):
        if self.wake_in is not None:
            os.write(self.wake_out, b"x")

    def flush(self):
        """With the lock held: hand over what h2 has to say."""
        self._collect()
        if self.end is None:
            self._write()
        if self.out:
            self.wake()

    def wait(self, condition, what, deadline=None):
        """With the lock held: wait until the condition is true; its value."""
        end = time.monotonic() + (PATIENCE if deadline is None else deadline)
        while not (value := condition()):
            left = end - time.monotonic()
            if left <= 0:
                raise Silence(f"no {what} in time")
            self.changed.wait(min(left, 1))
        return value

    def open(self, pairs, is_end):
        """A client's request: HEADERS. The stream."""
        with self.changed:
            self.check_open()
            if self.goaway:
                raise BrokenPipeError("GOAWAY: no stream more")
            stream = Stream(self.h2.get_next_available_stream_id())
            self.streams[stream.id] = stream
            self.h2.send_headers(stream.id, pairs, end_stream=is_end)
            self.flush()
            return stream

    def check_open(self):
        if self.end == "rst":
            raise Reset()
        if self.end:
            raise BrokenPipeError("the connection has ended")

    def send_head(self, stream, pairs, is_end=False):
        with self.changed:
            self.check_sendable(stream)
            self.h2.send_headers(stream.id, pairs, end_stream=is_end)
            self.flush()

    def check_sendable(self, stream):
        if stream.reset is not None or self.end:
            raise Reset()

    def send_body(self, stream, piece, is_end=False, on_blocked=None):
        """DATA, as fast as the peer's windows allow. on_blocked is called when they do not, for 0.3 s."""
        view = memoryview(piece)
        sent = 0
        while True:
            with self.changed:
                self.check_sendable(stream)
                room = self._wait_window(stream, on_blocked) if len(view) else 0
                step = min(room, len(view), self.h2.max_outbound_frame_size)
                last = is_end and step == len(view)
                self.h2.send_data(stream.id, bytes(view[:step]), end_stream=last)
                self.flush()
            sent, view = sent + step, view[step:]
            if not len(view):
                return sent

    def _wait_window(self, stream, on_blocked):
        def room():
            self.check_sendable(stream)
            return len(self.out) < BACKLOG and self.h2.local_flow_control_window(stream.id)
        began, is_told = time.monotonic(), False
        while not (free := room()):
            self.changed.wait(0.05)
            if not is_told and time.monotonic() - began > 0.3:
                is_told = True
                if on_blocked:
                    on_blocked()
        return free

    def head(self, stream, deadline=None):
        """The next head of the stream. Reset when it was reset, Ended when the connection has ended."""
        with self.changed:
            self.wait(lambda: stream.heads or stream.reset is not None or self.end, "head", deadline)
            if stream.heads:
                return stream.heads.popleft()
            self._raise_end(stream)

    def _raise_end(self, stream):
        if stream.reset is not None or self.end == "rst":
            raise Reset()
        raise Ended("the connection ended before the message did")

    def piece(self, stream, deadline=None):
        """The next bytes of the body, whose part of the window is given back; b"" at its end."""
        with self.changed:
            self.wait(lambda: stream.pieces or stream.is_ended or stream.reset is not None or self.end, "byte", deadline)
            if not stream.pieces:
                return b"" if stream.is_ended else self._raise_end(stream)
            piece, cost = stream.pieces.popleft()
            if cost and not stream.is_ended and stream.reset is None and not self.end:
                self.h2.increment_flow_control_window(cost, stream.id)
                self.flush()
            return piece

    def go_away(self, last=None):
        """Say that no further stream will be served; those that are open go on."""
        with self.changed:
            last = self.h2.highest_inbound_stream_id if last is None else last
            self.out += GoAwayFrame(0, last).serialize()
            self.flush()

    def put(self, raw):
        """Send raw bytes behind what h2 has said; it learns nothing of them."""
        with self.changed:
            self._collect()
            self.out += raw
            self.flush()

    def reset_stream(self, stream, code=ErrorCodes.CANCEL):
        with self.changed:
            if stream.reset is None and not self.end:
                stream.reset = code
                self.h2.reset_stream(stream.id, code)
                self.flush()
            self.changed.notify_all()

    def wait_end(self, deadline=None):
        """Wait for the peer to end the connection: "fin" or "rst"."""
        with self.changed:
            self.wait(lambda: self.end, "end of the connection", deadline)
            return self.end

    def half_close(self):
        """FIN behind what has been said."""
        with self.changed:
            if not self.end:
                socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def close(self, how="drain"):
        """Close: "drain" after what has been said has left, "now" without, "reset" with RST."""
        with self.changed:
            if self.end or self.has_closed:
                return
            if how == "reset":
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.has_closed = how
            self.wake()
        if threading.current_thread() is not self.thread:
            self.thread.join(PATIENCE)
