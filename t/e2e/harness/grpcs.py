# SPDX-License-Identifier: Apache-2.0
"""grpcs.py - real gRPC servers and channels of grpcio. Messages are bytes: no generated code is needed."""

import os
import threading
from concurrent import futures

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc  # noqa: E402

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class GrpcServer(grpc.GenericRpcHandler):
    """A server on 127.0.0.1. methods: {"/pkg.Service/Method": handler of grpc.*_rpc_method_handler()}."""

    def __init__(self, methods=None, pair=None, threads=16, address="127.0.0.1:0"):
        self.methods = dict(methods or {})
        self.serving = {"": SERVING}  # by service; an int, or a function that gives one
        self.checks = []  # (service, {name: value of its metadata}) of each health check
        self.methods["/grpc.health.v1.Health/Check"] = grpc.unary_unary_rpc_method_handler(self._check)
        self.pool = futures.ThreadPoolExecutor(threads)
        self.server = grpc.server(self.pool, handlers=[self], options=[*LARGE, ("grpc.so_reuseport", 0)])
        if pair:
            cert, key = (open(name, "rb").read() for name in pair)
            port = self.server.add_secure_port(address, grpc.ssl_server_credentials([(key, cert)]))
        else:
            port = self.server.add_insecure_port(address)
        assert port, address
        self.address = f"127.0.0.1:{port}"
        self.server.start()

    def service(self, details):
        return self.methods.get(details.method)

    def _check(self, request, context):
        service = request[2:].decode() if request else ""
        self.checks.append((service, dict(context.invocation_metadata())))
        status = self.serving.get(service)
        if status is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return bytes([8, status]) if status else b""

    def close(self):
        self.server.stop(0).wait()
        self.pool.shutdown(wait=False)


class Calls:
    """A channel to a port of 127.0.0.1, and the four kinds of call on it, by the name of the method."""

    def __init__(self, port, ca=None, options=()):
        options = [*LARGE, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), *options]
        if ca:
            credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
            options.append(("grpc.ssl_target_name_override", "localhost"))
            self.channel = grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)
        else:
            self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)

    def unary(self, method):
        return self.channel.unary_unary(f"/t.Test/{method}")

    def client_stream(self, method):
        return self.channel.stream_unary(f"/t.Test/{method}")

    def server_stream(self, method):
        return self.channel.unary_stream(f"/t.Test/{method}")

    def both_streams(self, method):
        return self.channel.stream_stream(f"/t.Test/{method}")

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Feed:
    """An iterator of requests that a test feeds as it goes: put() one, end() it."""

    def __init__(self):
        self.items, self.ready = [], threading.Condition()
        self.is_over = False

    def put(self, item):
        with self.ready:
            self.items.append(item)
            self.ready.notify()

    def end(self):
        with self.ready:
            self.is_over = True
            self.ready.notify()

    def __iter__(self):
        return self

    def __next__(self):
        with self.ready:
            self.ready.wait_for(lambda: self.items or self.is_over)
            if not self.items:
                raise StopIteration
            return self.items.pop(0)
