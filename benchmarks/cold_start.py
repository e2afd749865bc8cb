"""How long a run takes from process start to end, against bare Python and a minimal client.

    python benchmarks/cold_start.py [--runs 21]

Prints medians of whole processes and their ratios, all taken in one sitting, in turn (A B C A B C ...), so
that a machine whose speed drifts favours nobody. Needs the runtime installed; the RabbitMQ rows need a
broker (N6_STATEFUL_BROKER, default amqp://guest:guest@127.0.0.1:5672/).
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

BROKER = os.environ.get("N6_STATEFUL_BROKER", "amqp://guest:guest@127.0.0.1:5672/")

BARE = "import logging, configparser, pickle"

COLLECTOR = """
from n6_stateful import BaseCollector, CollectorWithStateMixin

class OneMessageCollector(CollectorWithStateMixin, BaseCollector):
    type = "stream"
    config_spec = "[one]\\nsource :: str\\ncache_dir :: path"
    output_queue = {"exchange": "n6-stateful-benchmark", "exchange_type": "fanout"}
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
import pika
connection = pika.BlockingConnection(pika.URLParameters({BROKER!r}))
channel = connection.channel()
channel.exchange_declare("n6-stateful-benchmark", "fanout", durable=True)
channel.confirm_delivery()
channel.basic_publish(
    "n6-stateful-benchmark", "a.b", b"x" * 1024, pika.BasicProperties(delivery_mode=2), mandatory=True)
connection.close()
"""

# The least that can publish a message and know that it arrived: frames by hand on a blocking socket.
RAW = f"""
import socket, struct
from urllib.parse import urlsplit
url = urlsplit({BROKER!r})
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
exchange = short(b"n6-stateful-benchmark")
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


def broker_answers() -> bool:
    url = urlsplit(BROKER)
    try:
        socket.create_connection((url.hostname, url.port or 5672), timeout=1).close()
    except OSError:
        return False
    return True


def bind_a_queue() -> None:
    """Messages need a queue, or the broker returns them."""
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(BROKER))
    channel = connection.channel()
    channel.exchange_declare("n6-stateful-benchmark", "fanout", durable=True)
    channel.queue_declare("n6-stateful-benchmark", arguments={"x-max-length": 100, "x-expires": 600_000})
    channel.queue_bind("n6-stateful-benchmark", "n6-stateful-benchmark")
    connection.close()


def clean_up() -> None:
    """Take away what was made."""
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(BROKER))
    channel = connection.channel()
    channel.queue_delete("n6-stateful-benchmark")
    channel.exchange_delete("n6-stateful-benchmark")
    connection.close()


def measure(argv: list[str], env: dict[str, str]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and peak KiB of one whole process."""
    started = time.perf_counter()
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{argv[2][:40]!r}... exited with {process.returncode}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=21, help="counted runs of each (default: 21)")
    runs = parser.parse_args().runs

    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "10_one.conf")
        config.write_text(f"[one]\nsource = n6-stateful\ncache_dir = {directory}/cache\n")
        env = {**os.environ, "N6_CONFIG": str(config)}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode on disk
        script = Path(directory, "one.py")
        script.write_text(COLLECTOR)

        def collector(output: str) -> list[str]:
            return [sys.executable, str(script), "--output", output, "--log-level", "warning"]

        bare = "bare Python + logging, configparser, pickle"
        raw = "raw socket, one message"
        programs = {
            bare: ([sys.executable, "-c", BARE], bare),
            "import n6_stateful": ([sys.executable, "-c", "import n6_stateful"], bare),
            "collector, one message to the spool": (collector(f"spool:{directory}/spool"), bare),
        }
        if broker_answers():
            bind_a_queue()
            programs |= {
                raw: ([sys.executable, "-c", RAW], raw),
                "pika BlockingConnection, one message": ([sys.executable, "-c", PIKA], raw),
                "collector, one message to RabbitMQ": (collector(BROKER), raw),
            }
        taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in programs}
        for count in range(runs + 1):
            for name, (argv, _) in programs.items():
                figures = measure(argv, env)
                if count:  # the first round warms up
                    taken[name].append(figures)

    if raw in programs:
        clean_up()
    median = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in taken.items()
    }
    print(f"medians of {runs} whole processes, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    print(f"{'':45} {'wall ms':>8} {'CPU ms':>8} {'MiB':>6}  wall ratio")
    for name, (_, yardstick) in programs.items():
        wall, cpu, peak = median[name]
        against = "" if name == yardstick else f"  {wall / median[yardstick][0]:.2f} to {yardstick}"
        print(f"{name:45} {wall * 1e3:8.1f} {cpu * 1e3:8.1f} {peak / 1024:6.1f}{against}")
    if "collector, one message to RabbitMQ" not in programs:
        print(f"no broker answers at {urlsplit(BROKER).hostname}: the RabbitMQ rows were left out")


if __name__ == "__main__":
    main()
