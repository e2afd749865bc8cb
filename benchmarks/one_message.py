"""Programs that publish one message to RabbitMQ and know that it has arrived; how long a process takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

EXCHANGE = "n6-stateful-benchmark"

COLLECTOR = f"""
from n6_stateful import BaseCollector, CollectorWithStateMixin

class OneMessageCollector(CollectorWithStateMixin, BaseCollector):
    type = "stream"
    config_spec = "[one]\\nsource :: str\\ncache_dir :: path"
    output_queue = {{"exchange": {EXCHANGE!r}, "exchange_type": "fanout"}}
    def run(self):
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)
    def start_publishing(self):
        self.publish_output(*self.get_output_components())
        self.inner_stop()
    def get_source_channel(self, **kwargs):
        return "benchmark"
    def get_output_data_body(self, **kwargs):
        return b"x" * 1024

OneMessageCollector.run_script()
"""

PIKA = f"""
import sys, pika
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
channel.exchange_declare({EXCHANGE!r}, "fanout", durable=True)
channel.confirm_delivery()
channel.basic_publish(
    {EXCHANGE!r}, "a.b", b"x" * 1024, pika.BasicProperties(delivery_mode=2), mandatory=True)
connection.close()
"""

# The least that can publish a message and know that it arrived: frames by hand on a blocking socket.
RAW = f"""
import socket, struct, sys
from urllib.parse import urlsplit
url = urlsplit(sys.argv[1])
s = socket.create_connection((url.hostname, url.port or 5672))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
f = s.makefile("rb")
def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\\xce"
def method(channel, cls, num, args=b""):
    return frame(1, channel, struct.pack(">HH", cls, num) + args)
def short(text):
    return bytes([len(text)]) + text
def read():
    kind, channel, size = struct.unpack(">BHI", f.read(7))
    payload = f.read(size + 1)
    return struct.unpack(">HH", payload[:4])
def expect(*wanted):
    got = read()
    assert got == wanted, got
s.sendall(b"AMQP\\0\\0\\x09\\x01")
expect(10, 10)
login = b"\\0" + (url.username or "guest").encode() + b"\\0" + (url.password or "guest").encode()
s.sendall(method(0, 10, 11, struct.pack(">I", 0) + short(b"PLAIN")
    + struct.pack(">I", len(login)) + login + short(b"en_US")))
expect(10, 30)
s.sendall(method(0, 10, 31, struct.pack(">HIH", 2047, 131072, 60))
    + method(0, 10, 40, short(b"/") + b"\\0\\0"))
expect(10, 41)
s.sendall(method(1, 20, 10, b"\\0"))
expect(20, 11)
exchange = short({EXCHANGE.encode()!r})
s.sendall(method(1, 40, 10, b"\\0\\0" + exchange + short(b"fanout") + b"\\x02" + struct.pack(">I", 0)))
expect(40, 11)
s.sendall(method(1, 85, 10, b"\\0"))
expect(85, 11)
body = b"x" * 1024
s.sendall(method(1, 60, 40, b"\\0\\0" + exchange + short(b"a.b") + b"\\x01")
    + frame(2, 1, struct.pack(">HHQHB", 60, 0, len(body), 0x1000, 2)) + frame(3, 1, body))
expect(60, 80)
s.sendall(method(0, 10, 50, struct.pack(">H", 0) + short(b"") + b"\\0\\0\\0\\0"))
expect(10, 51)
"""


def collector(directory: Path, output: str) -> list[str]:
    """The command line of a collector that publishes its message there; its files are in `directory`."""
    config, script = directory / "10_one.conf", directory / "one.py"
    config.write_text(f"[one]\nsource = n6-stateful\ncache_dir = {directory}/cache\n")
    script.write_text(COLLECTOR)
    options = ["--config", str(config), "--output", output, "--log-level", "warning"]
    return [sys.executable, str(script), *options]


def clients(directory: Path, url: str) -> dict[str, list[str]]:
    """The command line of each client's program."""
    return {
        "raw socket": [sys.executable, "-c", RAW, url],
        "n6-stateful": collector(directory, url),
        "pika, blocking": [sys.executable, "-c", PIKA, url],
    }


def environment() -> Mapping[str, str]:
    """That of this process, but that modules keep their bytecode, as those of an installed package do."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def whole_process(argv: list[str]) -> tuple[float, float]:
    """Wall seconds and CPU seconds from start to end."""
    started = time.perf_counter()
    process = subprocess.Popen(argv, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv[1:])[:80]!r}... exited with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime
