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
        delay: seconds that everything takes in each direction.
        rate: bytes a second that go to the broker at most; 0 for as many as it takes.

    Attributes:
        url: the proxy's.
        connections: how many there were.
        forwarded: how many bytes have gone in each direction.
    """

    def __init__(
        self,
        url: str,
        how: str = "close",
        after: tuple[str, int] | None = None,
        delay: float = 0,
        rate: int = 0,
    ) -> None:
        parts = urlsplit(url)
        self._broker = (parts.hostname or "", parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Or what the collector has sent would be far from where it is forwarded.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        login, _, _ = parts.netloc.rpartition("@")
        here = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = parts._replace(netloc=f"{login}@{here}").geturl()
        self.connections = 0
        self.forwarded = {TO_BROKER: 0, FROM_BROKER: 0}
        self._how = how
        self._after = after
        self._delay = delay
        self._rate = rate
        self._wake, self._woken = socket.socketpair()
        self._is_cut = threading.Event()
        self._is_over = threading.Event()
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._end.close()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        for end in (self._listener, self._wake, self._woken, self._ended):
            end.close()

    def cut(self) -> None:
        """Cut the connection; return when it is."""
        self._wake.send(b"!")
        assert self._is_cut.wait(30)

    def _run(self) -> None:
        with suppress(OSError):  # the end of the listener, or of a connection that was reset
            while not self._is_over.is_set():
                collector, _ = self._listener.accept()
                self.connections += 1
                with collector, socket.create_connection(self._broker) as broker:
                    self._forward(collector, broker)

    def _forward(self, collector: socket.socket, broker: socket.socket) -> None:
        sources = [collector, broker, self._woken, self._ended]
        while not self._budget_is_spent():
            ready, _, _ = select.select(sources, [], [])
            if self._woken in ready or self._ended in ready:
                break
            for source, target, way in (
                (collector, broker, TO_BROKER),
                (broker, collector, FROM_BROKER),
            ):
                if source in ready:
                    data = source.recv(self._left(way))
                    if not data:
                        return
                    time.sleep(self._delay)
                    if self._rate and way == TO_BROKER:
                        time.sleep(len(data) / self._rate)
                    target.sendall(data)
                    self.forwarded[way] += len(data)
        if self._how == "reset":
            collector.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            collector.close()
        self._is_cut.set()
        while self._how == "deaf" and not self._is_over.is_set():
            if collector in select.select([collector, self._ended], [], [])[0]:
                data = collector.recv(1 << 16)
                if not data:
                    return
                broker.sendall(data)
        if self._how == "stall":
            self._is_over.wait()

    def _left(self, way: str) -> int:
        if self._after is None or self._after[0] != way:
            return 1 << 16
        return min(1 << 16, self._after[1] - self.forwarded[way])

    def _budget_is_spent(self) -> bool:
        return self._after is not None and self.forwarded[self._after[0]] >= self._after[1]
