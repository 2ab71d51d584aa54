#!/usr/bin/env python3
# Part of QTasks. License: see LICENSE.
"""A QTasks worker for Python: one task at a time. Needs qtasks.py beside it, and pyzmq.

    worker = Worker()

    @worker.task("upper")
    def upper(text):
        return text.upper()

    worker.run()

One more process is one more task at a time: `qtasks run --workers 4 --worker-command 'python3 worker.py'`.
SIGTERM lets it finish what it runs and end. What a task prints goes nowhere but to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
import traceback
import uuid
from typing import Any, Callable

import zmq

from qtasks import ERROR, HEADER, VERSION, WELCOME, endpoint_of, text

HELLO, CREDIT, HAND_BACK, GOODBYE, RESULTS = 0x21, 0x22, 0x23, 0x24, 0x41
RECONCILED, WORK, NOTICE, RETIRE = 0x31, 0x32, 0x33, 0x35
TIME_LIMIT = 3  # the option that is the worker's to keep


class TimeLimit(Exception):
    """The task ran longer than it may."""


class Worker:
    """Executes tasks of the system that lives in `home`; else $QTASKS_HOME, else .qtasks."""

    def __init__(self, home: str | os.PathLike[str] | None = None) -> None:
        self.home = home or os.environ.get("QTASKS_HOME") or ".qtasks"
        self.handlers: dict[bytes, tuple[Callable[[Any], Any], int, float]] = {}
        self.results: dict[bytes, bytes] = {}  # by lease: not known to be committed
        self.received, self.leaving, self.said_goodbye = 0, False, False
        self.id = uuid.uuid4().bytes  # of this life of the process

    def task(self, name: str, attempts: int = 1, wait: float = 0) -> Callable[[Any], Any]:
        """Declares a handler: JSON in, JSON out. One that raises is tried again after `wait` seconds,
        `attempts` times in all unless the task says how often."""

        def declare(handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
            self.handlers[name.encode()] = handler, attempts, wait
            return handler

        return declare

    def run(self) -> None:
        """Works until SIGTERM (or RETIRE) came and every result is committed."""
        context = zmq.Context()
        self.broker, self.storage = context.socket(zmq.DEALER), context.socket(zmq.PUSH)
        for socket in (self.broker, self.storage):
            socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a system that is away
        self.broker.setsockopt(zmq.LINGER, 500)  # what is handed back on the way out
        self.storage.setsockopt(zmq.LINGER, 0)  # results are sent again until they are acknowledged
        self.broker.setsockopt(zmq.PROBE_ROUTER, 1)  # each connection begins with WELCOME
        self.broker.connect(endpoint_of(self.home, "workers"))
        self.storage.connect(endpoint_of(self.home, "results"))
        bell, ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)  # wakes the poll at a signal
        signal.set_wakeup_fd(ring)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "leaving", True))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal signals everybody: the system stops us
        signal.signal(signal.SIGALRM, over_time)
        poller = zmq.Poller()
        poller.register(self.broker, zmq.POLLIN)
        poller.register(bell, zmq.POLLIN)
        while not self.said_goodbye or self.results:
            events = dict(poller.poll(2000 if self.results else None))
            if bell in events:
                os.read(bell, 1024)
            if self.broker in events:
                self.receive(self.broker.recv())
            elif not events:
                self.push(self.results.values())  # nothing was heard for long: once more
            if self.leaving and not self.said_goodbye:
                self.send(GOODBYE)
                self.said_goodbye = True
        context.destroy()

    def send(self, command: int, body: bytes = b"") -> None:
        try:
            self.broker.send(HEADER.pack(b"QT", VERSION, command, 0) + body, zmq.NOBLOCK)
        except zmq.Again:
            pass  # away: the next HELLO says it all

    def push(self, entries: Any) -> None:
        if entries:
            body = HEADER.pack(b"QT", VERSION, RESULTS, 0) + self.id + b"".join(entries)
            try:
                self.storage.send(body, zmq.NOBLOCK)
            except zmq.Again:
                pass  # away: sent again by what follows

    def receive(self, message: bytes) -> None:
        if len(message) < HEADER.size:
            return  # the other end's probe
        command, body = message[3], memoryview(message)[HEADER.size :]
        if command == WELCOME:
            self.hello()
        elif command == RECONCILED:  # of each lease in HELLO: 1 keep, 2 committed, 3 again, 4 abandon
            for lease, verdict in struct.iter_unpack("<8sB", body):
                if verdict in (2, 4):
                    self.results.pop(lease, None)
            self.push(self.results.values())
        elif command == NOTICE:  # Storage was opened anew
            self.push(self.results.values())
        elif command == RETIRE:
            self.leaving = True
        elif command == WORK:
            self.work(body)
        elif command == ERROR:
            sys.exit(f"worker.py: the system refuses this worker: {text(body, 1)[0]}")

    def hello(self) -> None:
        """Says who this is, and what it holds."""
        self.received = 0
        with open("/proc/self/stat") as stat, open("/proc/sys/kernel/random/boot_id") as boot:
            started = int(stat.read().rsplit(")", 1)[1].split()[19])
            process = struct.pack("<iQ", os.getpid(), started) + uuid.UUID(boot.read().strip()).bytes
        names = b"".join(bytes([len(name)]) + name for name in self.handlers)
        done = b"".join(entry[4:28] for entry in self.results.values())
        window = 0 if self.leaving else 1
        self.send(HELLO, self.id + process
                  + struct.pack("<iIQH", os.getppid(), 1, window, len(self.handlers)) + names
                  + struct.pack("<II", 0, len(self.results)) + done)

    def work(self, body: memoryview) -> None:
        """Acknowledged leases, then tasks."""
        place = 4 + 8 * int.from_bytes(body[:4], "little")
        for (lease,) in struct.iter_unpack("<8s", body[4:place]):
            self.results.pop(lease, None)
        while place < len(body):
            lease, size = bytes(body[place : place + 8]), int.from_bytes(body[place + 28 : place + 32], "little")
            envelope = bytes(body[place + 28 : place + 28 + size])
            place += 28 + size
            self.received += 1
            if lease in self.results:
                continue
            if self.leaving:
                self.send(HAND_BACK, struct.pack("<I", 1) + envelope[4:20] + lease)
                continue
            began = time.time_ns()
            outcome = self.execute(envelope)
            times = struct.pack("<qq", began, time.time_ns())
            self.results[lease] = struct.pack("<I", 44 + len(outcome)) + envelope[4:20] + lease + times + outcome
            self.push([self.results[lease]])
        if not self.leaving:
            self.send(CREDIT, struct.pack("<Q", self.received + 1))

    def execute(self, envelope: bytes) -> bytes:
        """Runs one task: its outcome as RESULTS has it."""
        name, queue, options, arguments = struct.unpack_from("<BBII", envelope, 22)
        handler, attempts, wait = self.handlers[envelope[32 : 32 + name]]
        limit = time_limit(envelope[32 + name + queue : 32 + name + queue + options])
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, limit)
                result = handler(json.loads(envelope[len(envelope) - arguments :]))
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            answer = json.dumps(result).encode()
            return struct.pack("<BHI", 1, 0, len(answer)) + answer  # success
        except Exception as error:
            parts = type(error).__name__, str(error), traceback.format_exc()
            cut = [part.encode()[:60_000].decode(errors="ignore").encode() for part in parts]
            failure = b"".join(struct.pack("<H", len(part)) + part for part in cut)
            return struct.pack("<BQI", 4, int(wait * 1000), attempts) + failure  # retry, or error


def over_time(*_: Any) -> None:
    raise TimeLimit("ran longer than its limit")


def time_limit(options: bytes) -> float:
    """Seconds; 0: it may take for ever."""
    place = 0
    while place < len(options):
        tag, size = struct.unpack_from("<BH", options, place)
        if tag == TIME_LIMIT:
            return int.from_bytes(options[place + 3 : place + 3 + size], "little") / 1000
        place += 3 + size
    return 0


if __name__ == "__main__":
    worker = Worker()
    worker.task("upper")(lambda words: words.upper())
    worker.task("sum", attempts=3, wait=1)(lambda numbers: sum(numbers))
    worker.run()
