"""Proxies that fail on purpose: one for HTTP, by rule and count, before an S3 store; one for any TCP, before Redis."""

import http.client
import re
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["403", "500", "503", "409", "reset", "stall", "trickle", "slow", "truncate", "lose"]
_CODES = {"403": "AccessDenied", "500": "InternalError", "503": "SlowDown", "409": "ConditionalRequestConflict"}


@dataclass
class Rule:
    """Fail the next `times` requests of this method (`*` is any) whose path and query match.

    `stall` sends half of the body and then nothing for `stall_s`, `trickle` a byte now and then, which keeps a client
    waiting for ever; `slow` waits `stall_s` before it answers; `truncate` sends half of the body and the end; `lose`
    lets the store do what was asked and drops its answer. `done` counts.
    """

    fault: Fault
    method: str
    path: str
    times: int = 1
    stall_s: float = 90
    done: int = 0

    def matches(self, method: str, path: str) -> bool:
        return self.done < self.times and self.method in ("*", method) and re.search(self.path, path) is not None


@dataclass
class S3Proxy:
    """Passes requests on, headers unchanged since they are signed, unless a rule says otherwise."""

    upstream: str
    rules: list[Rule] = field(default_factory=list)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, fault: Fault, method: str, path: str, times: int = 1, stall_s: float = 90) -> Rule:
        rule = Rule(fault, method, path, times, stall_s)
        with self._lock:
            self.rules.append(rule)
        return rule

    def rule_for(self, method: str, path: str) -> Rule | None:
        with self._lock:
            rule = next((rule for rule in self.rules if rule.matches(method, path)), None)
            if rule is not None:
                rule.done += 1
            return rule


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    proxy: S3Proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None: ...

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.server.proxy.rule_for(self.command, self.path)
        fault = rule.fault if rule else None
        if fault in _CODES:
            self._answer_error(int(fault), _CODES[fault])
            return
        if fault == "reset":
            self._reset()
            return
        if fault == "slow":
            assert rule is not None
            self.server.proxy.over.wait(rule.stall_s)
        status, headers, data = self._forward(body)
        if fault == "lose":
            self._reset()
            return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        # The answer to HEAD says the length of a body that isn't there.
        length = next((v for n, v in headers if n.lower() == "content-length"), str(len(data)))
        if status not in (204, 304):
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "trickle":
            for place in range(len(data)):
                self.wfile.write(data[place : place + 1])
                self.wfile.flush()
                if self.server.proxy.over.wait(1):
                    break
        if fault in ("stall", "truncate"):
            assert rule is not None
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if fault == "stall":
                self.server.proxy.over.wait(rule.stall_s)
            self.close_connection = True
            return
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(urlsplit(self.server.proxy.upstream).netloc, timeout=120)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    def _answer_error(self, status: int, code: str) -> None:
        data = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        _reset(self.connection)
        self.close_connection = True


def _reset(connection: socket.socket) -> None:
    """Close so that the other side sees a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def s3_proxy(upstream: str) -> Iterator[S3Proxy]:
    """A proxy before the S3 store at this endpoint."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = S3Proxy(upstream, url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, name="s3-proxy", kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.proxy
    finally:
        server.proxy.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class TcpProxy:
    """Passes bytes both ways, from a port of its own to another."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="tcp-proxy")

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=64)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        return listener

    def __enter__(self) -> "TcpProxy":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        with self._lock:
            for one in list(self._pairs):
                self._drop(one)
        with suppress(KeyError):
            self._selector.unregister(self._listener)
        self._listener.close()
        self._selector.close()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Every connection is reset, and new ones are refused, for as long as the context lasts."""
        with self._lock:
            self._selector.unregister(self._listener)
            self._listener.close()
            for one in list(self._pairs):
                self._drop(one)
        try:
            yield
        finally:
            with self._lock:
                self._listener = self._listen(self.port)

    def _run(self) -> None:
        while not self._over.is_set():
            if not self._selector.get_map():
                time.sleep(0.05)
                continue
            for key, _ in self._selector.select(0.05):
                with self._lock:
                    self._serve(key.fileobj)  # type: ignore[arg-type]

    def _serve(self, one: socket.socket) -> None:
        if one is self._listener:
            try:
                client, _ = one.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream), timeout=5)
            except OSError:
                _reset(client)
                return
            self._pairs |= {client: server, server: client}
            for side in (client, server):
                self._selector.register(side, selectors.EVENT_READ)
        elif one in self._pairs:
            try:
                data = one.recv(1 << 16)
                if data:
                    self._pairs[one].sendall(data)
            except OSError:
                data = b""
            if not data:
                self._drop(one)

    def _drop(self, one: socket.socket) -> None:
        other = self._pairs.pop(one, None)
        if other is None:
            return
        self._pairs.pop(other, None)
        for side in (one, other):
            self._selector.unregister(side)
            _reset(side)
