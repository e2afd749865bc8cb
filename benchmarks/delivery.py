"""How fast messages get to RabbitMQ, confirmed, against a raw socket and other clients.

    python benchmarks/delivery.py [--rounds 8] [--growth FILE.svg]

20,000 messages of 1 KiB, 200 of 1 MiB, 6 of 50 MiB, and one (there the whole process counts), on classic
and on quorum queues. Ours is a whole run: collect, commit, deliver. Every figure is a process of its own;
the clients take turns (A B C, C A B, ...), so that a machine whose speed drifts favours nobody. Figures are
medians; the ratio is that of throughput to the raw socket's (benchmarks/raw_socket.py), for one message that
of time to pika's blocking client. Needs the runtime, pika and a broker (N6_STATEFUL_BROKER, default
amqp://guest:guest@127.0.0.1:5672/); for --growth matplotlib, too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.one_message import EXCHANGE, clients, whole_process

URL = os.environ.get("N6_STATEFUL_BROKER", "amqp://guest:guest@127.0.0.1:5672/")
NAME = EXCHANGE
WINDOW = 1000
CASES = {"20,000 x 1 KiB": (20_000, 1 << 10), "200 x 1 MiB": (200, 1 << 20), "6 x 50 MiB": (6, 50 << 20)}


def bodies(count: int, size: int) -> Iterator[bytes]:
    """`count` different bodies."""
    padding = bytes(size - 20)
    for number in range(count):
        yield b"%020d" % number + padding


def raw_socket(count: int, size: int) -> float:
    """Frames encoded beforehand."""
    from benchmarks.raw_socket import RawPublisher

    publisher = RawPublisher(URL, NAME, WINDOW if size < 1 << 20 else 16)
    body = bytes(size)
    started = time.perf_counter()
    publisher.publish(body, count)
    measured = time.perf_counter() - started
    publisher.close()
    return measured


def n6_stateful(count: int, size: int) -> float:
    """A whole run of a collector with a state: collect, commit, deliver, write the state file."""
    from n6_stateful import BaseCollector, CollectorWithStateMixin, settings

    class Publisher(CollectorWithStateMixin, BaseCollector):
        type = "stream"
        config_spec = "[benchmark]\nsource :: str\ncache_dir :: path"
        output_queue = {"exchange": NAME, "exchange_type": "fanout"}

        def run(self) -> None:
            self.state = self.load_state()
            super().run()
            self.save_state(self.state)

        def start_publishing(self) -> None:
            for body in bodies(count, size):
                self.publish_output("a.b", body, {"type": "stream"})

        def get_source_channel(self, **kwargs: Any) -> str:
            return "benchmark"

        def get_output_data_body(self, **kwargs: Any) -> bytes:
            raise NotImplementedError

    # Not in $TMPDIR, which may be memory: fsync is a part of what is measured.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        config = Path(directory, "10_benchmark.conf")
        config.write_text(f"[benchmark]\nsource = n6-stateful\ncache_dir = {directory}/cache\n")
        with settings.use(settings.Settings(config_paths=(str(config),), output=URL)):
            publisher = Publisher()
            started = time.perf_counter()
            publisher.run_handling()
            seconds = time.perf_counter() - started
            publisher.close_state()
    return seconds


def pika_blocking(count: int, size: int) -> float:
    """pika's BlockingConnection with confirms: a round trip for each message."""
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    channel.confirm_delivery()
    started = time.perf_counter()
    for number, body in enumerate(bodies(count, size)):
        properties = pika.BasicProperties(delivery_mode=2, message_id=f"{number:032x}", type="stream")
        channel.basic_publish(NAME, "a.b", body, properties, mandatory=True)
    measured = time.perf_counter() - started
    connection.close()
    return measured


def pika_pipelined(count: int, size: int) -> float:
    """pika's SelectConnection, one thread, with as many messages unconfirmed as the window has room for.

    What a program would do that has nothing else to do: no ids, no list of what did not arrive.
    """
    window = WINDOW if size < 1 << 20 else 16
    source = enumerate(bodies(count, size))
    unconfirmed: set[int] = set()
    times: list[float] = []

    def fill(channel: Any) -> None:
        while len(unconfirmed) < window and (each := next(source, None)):
            number, body = each
            unconfirmed.add(number + 1)
            properties = pika.BasicProperties(delivery_mode=2, message_id=f"{number:032x}", type="stream")
            channel.basic_publish(NAME, "a.b", body, properties, mandatory=True)
        if not unconfirmed:
            times.append(time.perf_counter())
            connection.close()

    def begin(channel: Any) -> None:
        def on_confirmation(frame: Any) -> None:
            tag = frame.method.delivery_tag
            if frame.method.multiple:
                unconfirmed.difference_update([other for other in unconfirmed if other <= tag])
            else:
                unconfirmed.discard(tag)
            if len(unconfirmed) <= window // 2:
                fill(channel)

        channel.confirm_delivery(on_confirmation)
        times.append(time.perf_counter())
        fill(channel)

    connection = pika.SelectConnection(
        pika.URLParameters(URL),
        on_open_callback=lambda connection: connection.channel(on_open_callback=begin),
        on_close_callback=lambda connection, reason: connection.ioloop.stop(),
    )
    connection.ioloop.start()
    return times[1] - times[0]


CLIENTS: dict[str, Callable[[int, int], float]] = {
    "raw socket": raw_socket,
    "n6-stateful": n6_stateful,
    "pika, pipelined": pika_pipelined,
    "pika, blocking": pika_blocking,
}


def one(client: str, count: int, size: int) -> dict[str, float]:
    """Seconds, CPU seconds of the publishing, and peak MiB, of a process of its own."""
    purge()
    argv = [sys.executable, __file__, "--one", client, str(count), str(size)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{client}, {count} x {size}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(client: str, count: int, size: int) -> None:
    """What the process of its own does."""
    before = time.process_time()
    seconds = CLIENTS[client](count, size)
    cpu = time.process_time() - before
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak()}))


def peak() -> float:
    """This process's peak memory, MiB."""
    # On Linux ru_maxrss begins with that of the process which started this one.
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def purge() -> None:
    """Empty the queue, so that each begins alike."""
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    connection.channel().queue_purge(NAME)
    connection.close()


def set_up(kind: str, limit: int | None = None) -> None:
    """An exchange, and a queue of the kind bound to it; over the limit, the queue drops its oldest."""
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    channel.exchange_declare(NAME, "fanout", durable=True)
    channel.queue_delete(NAME)
    arguments = {"x-queue-type": kind} | ({"x-max-length": limit} if limit else {})
    channel.queue_declare(NAME, durable=True, arguments=arguments)
    channel.queue_bind(NAME, NAME)
    connection.close()


def tear_down() -> None:
    """Delete both."""
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()
    channel.queue_delete(NAME)
    channel.exchange_delete(NAME)
    connection.close()


def compare(rounds: int) -> None:
    """The table: every client, every case, on either kind of queue."""
    print(f"medians of {rounds} processes each, Python {sys.version.split()[0]}, pika {pika.__version__}")
    for kind in ("classic", "quorum"):
        set_up(kind)
        for case, (count, size) in CASES.items():
            measured: dict[str, list[dict[str, float]]] = {client: [] for client in CLIENTS}
            order = deque(CLIENTS)
            for _ in range(rounds):
                for client in order:
                    measured[client].append(one(client, count, size))
                order.rotate()  # what a broker has still to do for one falls to the next
            print(
                f"\n{case}, {kind} queue" + f"{'messages/s':>24} {'ratio':>7} {'CPU us each':>12} {'MiB':>7}"
            )
            yardstick = statistics.median(row["seconds"] for row in measured["raw socket"])
            for client, figures in measured.items():
                seconds, cpu, peak = (
                    statistics.median(row[name] for row in figures) for name in ("seconds", "cpu", "peak")
                )
                print(
                    f"  {client:30} {count / seconds:14,.0f} {yardstick / seconds:7.2f} "
                    f"{cpu / count * 1e6:12,.1f} {peak:7.1f}"
                )
        compare_one(kind, 4 * rounds + 1)


def compare_one(kind: str, rounds: int) -> None:
    """The table of whole processes that publish one message."""
    with tempfile.TemporaryDirectory() as directory:
        programs = clients(Path(directory), URL)
        measured: dict[str, list[tuple[float, float]]] = {client: [] for client in programs}
        for count in range(rounds + 1):
            for client, argv in programs.items():
                figures = whole_process(argv)
                if count:  # the first round warms up
                    measured[client].append(figures)
    print(f"\none message, whole process ({rounds} each), {kind} queue   wall ms   ratio  CPU ms")
    yardstick = statistics.median(wall for wall, _ in measured["pika, blocking"])
    for client, rows in measured.items():
        wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"  {client:30} {'':20} {wall * 1e3:8.1f} {wall / yardstick:7.2f} {cpu * 1e3:7.1f}")


def growth(file: Path) -> None:
    """Plot how CPU time a message and memory grow with the number of messages."""
    from matplotlib import pyplot

    set_up("classic", limit=10_000)
    counts = [10**exponent for exponent in range(2, 7)]
    figures = [one("n6-stateful", count, 1 << 10) for count in counts]
    # The same figures give the same file.
    pyplot.rcParams |= {"svg.hashsalt": "n6-stateful", "svg.fonttype": "none"}
    picture, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    each_cpu = [row["cpu"] / count * 1e6 for row, count in zip(figures, counts, strict=True)]
    left.loglog(counts, each_cpu, "o-")
    left.set(
        xlabel="messages of 1 KiB in one run",
        ylabel="CPU, microseconds a message",
        ylim=(1, 2 * max(each_cpu)),
    )
    right.semilogx(counts, [row["peak"] for row in figures], "o-")
    right.set(xlabel="messages of 1 KiB in one run", ylabel="peak memory, MiB", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    file.parent.mkdir(exist_ok=True)
    picture.savefig(file, metadata={"Date": None})
    for count, each in zip(counts, figures, strict=True):
        print(f"{count:10,} messages: {each['cpu'] / count * 1e6:8.1f} us CPU each, {each['peak']:6.1f} MiB")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=8, help="processes of each client and case (default: 8)"
    )
    parser.add_argument(
        "--growth", type=Path, metavar="FILE", help="plot instead how cost grows, 10^2 to 10^6"
    )
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args.one[0], int(args.one[1]), int(args.one[2]))
        return
    try:
        if args.growth:
            growth(args.growth)
        else:
            compare(args.rounds)
    finally:
        tear_down()


if __name__ == "__main__":
    main()
