"""A TCP proxy in front of the broker, which breaks the network at will."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

TO_BROKER, FROM_BROKER = "to broker", "from broker"


class Proxy:
    """Forwards one connection at a time to the broker at `url`, until it cuts it.

    Args:
        url: the broker's.
        how: what a cut is: `close` or `reset` the connection, `stall` it (nothing goes either way any
            more), or make the collector `deaf` (nothing comes from the broker any more).
        after: cut it once so many bytes have gone in that direction.
        rate: bytes a second that go to the broker at most; 0 for as many as it takes.

    Attributes:
        forwarded: how many bytes have gone in each direction.
    """

    def __init__(
        self, url: str, how: str = "close", after: tuple[str, int] = (TO_BROKER, 1 << 60), rate: int = 0
    ) -> None:
        self._how, (self._way, self._after), self._rate = how, after, rate
        parts = urlsplit(url)
        self._broker = (parts.hostname or "", parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Or what the collector has sent would be far from where it is forwarded.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        login, _, _ = parts.netloc.rpartition("@")
        self.url = parts._replace(netloc=f"{login}@127.0.0.1:{self._listener.getsockname()[1]}").geturl()
        self.connections = 0
        self.forwarded = {TO_BROKER: 0, FROM_BROKER: 0}
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listener.close()
        self._ended.close()

    def _run(self) -> None:
        with suppress(OSError):  # the end of the listener, or of a connection that was reset
            while True:
                collector, _ = self._listener.accept()
                self.connections += 1
                with collector, socket.create_connection(self._broker) as broker:
                    self._forward(collector, broker)

    def _forward(self, collector: socket.socket, broker: socket.socket) -> None:
        for end in (collector, broker):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways = {collector: (broker, TO_BROKER), broker: (collector, FROM_BROKER)}
        while left := self._after - self.forwarded[self._way]:
            ready, _, _ = select.select([*ways, self._ended], [], [])
            for source in ready:
                if source is self._ended:
                    return
                target, way = ways[source]
                data = source.recv(min(1 << 16, left) if way == self._way else 1 << 16)
                if not data:
                    return
                if self._rate and way == TO_BROKER:
                    time.sleep(len(data) / self._rate)
                target.sendall(data)
                self.forwarded[way] += len(data)
        if self._how == "reset":
            collector.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        while self._how == "deaf" and collector in select.select([collector, self._ended], [], [])[0]:
            data = collector.recv(1 << 16)
            if not data:
                return
            broker.sendall(data)
        if self._how == "stall":
            select.select([self._ended], [], [])
