# Part of QTasks. License: see LICENSE.
"""A QTasks client for Python: adds tasks, gets their results. Needs nothing but pyzmq.

    with Client(".qtasks") as client:
        task = client.add_task("wordcount", {"path": "/etc/motd"})
        print(task.result(timeout=10))

An added task is on disk. Every task has an ID that this client makes, so whatever goes unanswered
when a connection breaks is simply sent again: the same ID is the same task. A client belongs to
one thread. README.md shows the bytes.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import struct
import time
import uuid
from typing import Any, Callable, Iterable, Sequence

import zmq

ADD, GET, CANCEL, REQUEUE = 0x01, 0x02, 0x03, 0x09
ADDED, RECORDS, CHANGED, ERROR, WELCOME = 0x11, 0x12, 0x13, 0x1F, 0x20
WAIT, JSON = 1, 2  # flags of ADD and GET
HEADER = struct.Struct("<2sBBQ")  # "QT", protocol version, command, number of the request
VERSION = 1
SOCKET_PATH_BYTES = 107  # sun_path of unix(7), without the zero behind it
MESSAGE_BYTES = 1 << 20  # a batch is cut into messages of about this size
REFUSALS = {
    16: "malformed", 17: "unsupportedVersion", 18: "unknownCommand", 19: "badName",
    20: "badOption", 21: "payloadTooLarge", 22: "conflict", 23: "overloaded", 24: "stopping",
    25: "storageUnavailable", 26: "unknownTask", 27: "damaged",
}
STATUSES = ("", "new", "process", "scheduled", "success", "error", "cancel", "dead")
TRANSIENT = {"overloaded", "stopping", "storageUnavailable"}  # worth another try


class QTasksError(Exception):
    """What could not be done; switch over `code`, show `message`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class TaskFailed(QTasksError):
    """The task ended otherwise than with a result; `record` is all that is known of it."""

    def __init__(self, record: dict[str, Any]) -> None:
        error = record.get("error", {})
        why = error.get("message") or record.get("reason") or "its workers died"
        code = "taskCancelled" if record["status"] == "cancel" else "taskFailed"
        super().__init__(code, f"task {record['id']} ended as '{record['status']}': {why}")
        self.record = record


class Timeout(QTasksError):
    """Nothing was heard in the time given; the task goes on."""

    def __init__(self, message: str) -> None:
        super().__init__("timeout", message)


def new_id() -> uuid.UUID:
    """A UUID of version 7 (RFC 9562): 48 bits of milliseconds, the rest random."""
    bits = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return uuid.UUID(int=bits & ~(0xF << 76) & ~(0x3 << 62) | 7 << 76 | 2 << 62)


def option(tag: int, value: bytes) -> bytes:
    return struct.pack("<BH", tag, len(value)) + value


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000 + 0.5)


def durability(level: str) -> bytes:
    """`synced`, `written`, or `interval:MS`: written, and synced so many milliseconds later."""
    if level in ("synced", "written"):
        return bytes([("synced", "written").index(level)])
    name, _, interval = level.partition(":")
    if name != "interval" or not interval.isdecimal() or not 1 <= int(interval) <= 3_600_000:
        raise QTasksError("badOption", f"durability '{level}': synced, written or interval:MS (1 to 3600000)")
    return struct.pack("<BI", 2, int(interval))


def retention(seconds: float) -> bytes:
    if seconds < 600:
        raise QTasksError("badOption", f"retention of {seconds} s: a task is kept at least 600 s")
    return struct.pack("<Q", int(seconds))


def unique(key: str | bytes | tuple[str | bytes, str | float]) -> bytes:
    """A key, held until the first task has ended; or (key, for): 'queued', 'unfinished', or seconds."""
    key, scope = key if isinstance(key, tuple) else (key, "unfinished")
    data = key.encode() if isinstance(key, str) else bytes(key)
    if not 1 <= len(data) <= 1024:
        raise QTasksError("badOption", f"a unique key of {len(data)} bytes: it has 1 to 1024")
    if scope in ("queued", "unfinished"):
        return struct.pack("<BI", 1 if scope == "queued" else 2, 0) + data
    if isinstance(scope, str) or scope < 1:
        raise QTasksError("badOption", f"unique for '{scope}': queued, unfinished, or at least 1 s")
    return struct.pack("<BI", 3, int(scope + 0.999)) + data


# Each option: its tag and how its value becomes bytes. Times are in seconds; `at` and `expires` are
# seconds since 1970, such as time.time() gives.
OPTIONS: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "max_attempts": (1, lambda count: struct.pack("<I", count)),
    "max_deliveries": (2, lambda count: struct.pack("<I", count)),
    "time_limit": (3, lambda seconds: struct.pack("<Q", milliseconds(seconds))),
    "delay": (4, lambda seconds: struct.pack("<Q", milliseconds(seconds))),
    "at": (5, lambda moment: struct.pack("<q", milliseconds(moment))),
    "expires": (6, lambda moment: struct.pack("<q", milliseconds(moment))),
    "key": (7, lambda key: key.encode() if isinstance(key, str) else bytes(key)),
    "parent": (8, lambda task: uuid.UUID(str(task)).bytes),
    "content_type": (10, lambda name: name.encode()),
    "durability": (11, durability),
    "retention": (12, retention),
    "unique": (13, unique),
}


def envelope(
    id: uuid.UUID, name: str, args: Any, *, queue: str = "default", priority: int = 0,
    headers: dict[str, str] | None = None, **options: Any,
) -> bytes:
    """One task's add as bytes. `args` is anything that JSON has, or bytes as they are."""
    if isinstance(args, bytes):
        options.setdefault("content_type", "application/octet-stream")
    else:
        args = json.dumps(args, ensure_ascii=False, separators=(",", ":")).encode()
    fields = b""
    for key, value in options.items():
        if key not in OPTIONS:
            raise QTasksError("badOption", f"there is no option '{key}': {', '.join(OPTIONS)}")
        tag, encode = OPTIONS[key]
        fields += option(tag, encode(value))
    for key, value in (headers or {}).items():
        fields += option(9, bytes([len(key.encode())]) + key.encode() + value.encode())
    name_bytes, queue_bytes = name.encode(), b"" if queue == "default" else queue.encode()
    if not 1 <= len(name_bytes) <= 255 or len(queue_bytes) > 255:
        raise QTasksError("badName", f"'{name}' in queue '{queue}': a name has 1 to 255 bytes")
    body = name_bytes + queue_bytes + fields + args
    lengths = struct.pack("<hBBII", priority, len(name_bytes), len(queue_bytes), len(fields), len(args))
    return struct.pack("<I", 32 + len(body)) + id.bytes + lengths + body


class SyncResult:
    """A task that was added, or with `is_repeat` the one that holds the add's unique key."""

    def __init__(self, client: Client, id: uuid.UUID) -> None:
        self._client, self.id, self.is_repeat = client, str(id), False

    def record(self, timeout: float | None = None) -> dict[str, Any]:
        """Waits until the task has ended: everything about it, however it ended."""
        return self._client._wait(self.id, timeout)

    def result(self, timeout: float | None = None) -> Any:
        """Waits for the result. Raises TaskFailed if there will be none, Timeout if not yet."""
        record = self.record(timeout)
        if record["status"] != "success":
            raise TaskFailed(record)
        return record["result"]

    def cancel(self, reason: str = "") -> None:
        """Ends the task as 'cancel', whether it waits or runs."""
        self._client.cancel(self.id, reason)


class Client:
    """A connection to the system that lives in `home`, or at `endpoint`.

    `timeout` is how long adds and gets wait for a system that is away or starting, in seconds.
    """

    def __init__(
        self, home: str | os.PathLike[str] | None = None, *, endpoint: str | None = None,
        timeout: float = 30,
    ) -> None:
        self.endpoint = endpoint or endpoint_of(home or os.environ.get("QTASKS_HOME") or ".qtasks")
        self.timeout = timeout
        self._limits: tuple[int, int] | None = None  # largest payload, tasks under way
        self._numbers = itertools.count(1)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)  # close() does not wait for anybody
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a system that is away
        self._socket.setsockopt(zmq.PROBE_ROUTER, 1)  # each connection is answered by WELCOME
        self._socket.connect(self.endpoint)

    def add_task(self, name: str, args: Any, **options: Any) -> SyncResult:
        """Adds a task; when this returns, the task is on disk. `options`: queue, priority, headers
        and those of OPTIONS."""
        return self.add_tasks([(name, args)], **options)[0]

    def add_tasks(self, tasks: Iterable[tuple[str, Any]], **options: Any) -> list[SyncResult]:
        """Adds many tasks, name and arguments each, by as few messages as they fit into."""
        deadline = time.monotonic() + self.timeout
        while self._limits is None:
            self._receive(deadline)
        limit, window = self._limits
        batch: dict[bytes, bytes] = {}
        holders: dict[bytes, uuid.UUID] = {}
        results, size = [], 0
        for name, args in tasks:
            id = new_id()
            encoded = envelope(id, name, args, **options)
            length = int.from_bytes(encoded[28:32], "little")
            if length > limit:  # libzmq cuts the connection of who sends far more than that
                raise QTasksError("payloadTooLarge", f"'{name}': {length} bytes, over {limit}")
            if batch and (size + len(encoded) > MESSAGE_BYTES or len(batch) == window):
                holders.update(self._add(batch, time.monotonic() + self.timeout))
                batch, size = {}, 0
            batch[id.bytes] = encoded
            size += len(encoded)
            results.append(SyncResult(self, id))
        if batch:
            holders.update(self._add(batch, time.monotonic() + self.timeout))
        for result in results if holders else []:
            if holder := holders.get(uuid.UUID(result.id).bytes):
                result.id, result.is_repeat = str(holder), True
        return results

    def get(self, id: str | uuid.UUID) -> dict[str, Any] | None:
        """What is known of a task now, or None if there is no such task."""
        state, record = self._ask_for_record(id, 0, JSON, time.monotonic() + self.timeout)
        return record if state != 0 else None

    def cancel(self, id: str | uuid.UUID, reason: str = "") -> None:
        """Ends a task as 'cancel', whether it waits or runs; on disk when this returns. Raises
        QTasksError `conflict` if it had ended before, `notFound` if there is none."""
        self._change(CANCEL, id, reason)

    def requeue(self, id: str | uuid.UUID) -> None:
        """Queues a task once more that ended as 'error', 'dead' or 'cancel'. Raises as cancel()."""
        self._change(REQUEUE, id, "")

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _add(self, batch: dict[bytes, bytes], deadline: float) -> dict[bytes, uuid.UUID]:
        """Sends one ADD, again with what was refused for now, until every task is taken: who holds the
        unique keys of those that were not added."""
        holders: dict[bytes, uuid.UUID] = {}
        while batch:
            body = struct.pack("<BI", 0, 0) + b"".join(batch.values())
            verdicts = self._request(ADD, body, batch.keys(), read_receipts, deadline)
            holders.update({id: uuid.UUID(verdict[1]) for id, verdict in verdicts.items() if verdict and verdict[0] == "same"})
            refused = {id: verdict for id, verdict in verdicts.items() if verdict and id not in holders}
            for id, (code, message) in refused.items():
                if code not in TRANSIENT or time.monotonic() > deadline:
                    raise QTasksError(code, f"task {uuid.UUID(bytes=id)}: {message}")
            batch = {id: batch[id] for id in refused}
            if batch:
                time.sleep(0.1)  # it said "later"
        return holders

    def _wait(self, id: str, timeout: float | None) -> dict[str, Any]:
        # the Broker says when the time is over; a second more for its answer to get here
        deadline = None if timeout is None else time.monotonic() + timeout + 1
        wait = 0 if timeout is None else max(1, milliseconds(timeout))
        while True:
            state, record = self._ask_for_record(id, wait, JSON | WAIT, deadline)
            if state == 0:
                raise QTasksError("notFound", f"there is no task {id}")
            if state == 1:
                return record
            if state == 2 or deadline is not None and time.monotonic() > deadline:
                raise Timeout(f"task {id} has not ended within {timeout} s: {record.get('status')}")
            time.sleep(0.1)  # this system is being stopped: ask the next one

    def _ask_for_record(
        self, id: str | uuid.UUID, wait: int, flags: int, deadline: float | None
    ) -> tuple[int, dict[str, Any]]:
        key = uuid.UUID(str(id)).bytes
        body = struct.pack("<BI", flags, wait) + key
        return self._request(GET, body, [key], read_records, deadline)[key]

    def _change(self, command: int, id: str | uuid.UUID, reason: str) -> None:
        key, why = uuid.UUID(str(id)).bytes, reason.encode()
        body = struct.pack("<H", len(why)) + why + key
        deadline = time.monotonic() + self.timeout
        code, status, message = self._request(command, body, [key], read_changes, deadline)[key]
        if code == 1:
            raise QTasksError("notFound", f"there is no task {id}, or no longer")
        if code == 2:
            raise QTasksError("conflict", f"task {id} is in status {STATUSES[status]}")
        if code:
            raise QTasksError(REFUSALS.get(code, str(code)), f"task {id}: {message}")

    def _request(
        self, command: int, body: bytes, ids: Sequence[bytes] | Any,
        read: Callable[[memoryview], dict[bytes, Any]], deadline: float | None,
    ) -> dict[bytes, Any]:
        """Sends one message and gathers the answers for all its tasks, over broken connections."""
        number = next(self._numbers)
        message = HEADER.pack(b"QT", VERSION, command, number) + body
        if self._limits is not None:
            self._send(message)
        answers: dict[bytes, Any] = {}
        while any(id not in answers for id in ids):
            answer, answered, rest = self._receive(deadline)
            if answer == WELCOME:  # a new connection: what was under way on the old one is lost
                self._send(message)
            elif answered == number and answer == ERROR:
                raise QTasksError(REFUSALS.get(rest[0], str(rest[0])), text(rest, 1)[0])
            elif answered == number:
                answers.update(read(rest))
        return answers

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message, zmq.NOBLOCK)
        except zmq.Again:
            pass  # not connected just now: the next WELCOME sends it

    def _receive(self, deadline: float | None) -> tuple[int, int, memoryview]:
        """The next message: its command, the request it answers, what follows the header."""
        while True:
            left = None if deadline is None else max(0, milliseconds(deadline - time.monotonic()))
            if not self._socket.poll(left):
                if self._limits is None:
                    raise QTasksError("brokerUnreachable", f"no Broker answers at {self.endpoint}")
                raise Timeout(f"no answer came from {self.endpoint}")
            message = self._socket.recv()
            if len(message) < HEADER.size:
                continue  # the other end's probe
            magic, version, command, number = HEADER.unpack_from(message)
            if magic != b"QT" or version != VERSION:
                raise QTasksError("unsupportedVersion", f"{self.endpoint} speaks another protocol")
            rest = memoryview(message)[HEADER.size :]
            if command == WELCOME:
                _incarnation, limit, window, _pid = struct.unpack_from("<IIIi", rest)
                self._limits = limit, window
            return command, number, rest


def text(data: memoryview, place: int) -> tuple[str, int]:
    """Text behind its byte count (2 bytes), and where it ends."""
    start = place + 2
    end = start + int.from_bytes(data[place:start], "little")
    return bytes(data[start:end]).decode(), end


def read_receipts(data: memoryview) -> dict[bytes, tuple[str, str] | None]:
    """ADDED: what became of each task, None for "on disk", "same" and the ID of the task that holds
    its key, else code and message."""
    verdicts, place = {}, 0
    while place < len(data):
        id, code = bytes(data[place : place + 16]), data[place + 16]
        place += 17
        verdicts[id] = None
        if code == 2:
            verdicts[id] = "same", str(uuid.UUID(bytes=bytes(data[place : place + 16])))
            place += 16
        elif code > 1:  # 0: added; 1: it was there already
            message, place = text(data, place)
            verdicts[id] = REFUSALS.get(code, str(code)), message
    return verdicts


def read_changes(data: memoryview) -> dict[bytes, tuple[int, int, str]]:
    """CHANGED: 0 done, 1 no such task, 2 not in that status, else a refusal; the status; a sentence."""
    changes, place = {}, 0
    while place < len(data):
        id, code, status = struct.unpack_from("<16sBB", data, place)
        message, place = text(data, place + 18) if code > 15 else ("", place + 18)
        changes[id] = code, status, message
    return changes


def read_records(data: memoryview) -> dict[bytes, tuple[int, dict[str, Any]]]:
    """RECORDS: 0 not found, 1 found, 2 the wait is over, 3 stopping; and the record."""
    records, place = {}, 1
    while place < len(data):
        id, state, length = struct.unpack_from("<16sBI", data, place)
        place += 21
        records[id] = state, json.loads(bytes(data[place : place + length]) or b"{}")
        place += length
    return records


def endpoint_of(home: str | os.PathLike[str], socket: str = "clients") -> str:
    """Where clients of the system in `home` connect, or whoever else `socket` is for.

    HOME/sockets/clients, or where that is too long for a Unix socket (unix(7)) a folder that
    HOME/sockets links to; before the system has run, the one that it will make.
    """
    path = os.path.realpath(os.fspath(home))
    sockets = os.path.join(path, "sockets")
    if len(os.fsencode(sockets)) + len("/config-updates") > SOCKET_PATH_BYTES:
        sockets = os.readlink(sockets) if os.path.islink(sockets) else folder_elsewhere(path)
    return f"ipc://{sockets}/{socket}"


def folder_elsewhere(home: str) -> str:
    number = 0xCBF29CE484222325  # FNV-1a, 64 bits
    for byte in os.fsencode(home):
        number = (number ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    owner = os.stat(home).st_uid if os.path.exists(home) else os.geteuid()
    name = f"/qtasks-{owner}-{number:016x}"
    temporary = os.environ.get("TMPDIR", "/tmp")
    fits = len(os.fsencode(temporary + name)) + len("/config-updates") <= SOCKET_PATH_BYTES
    return (temporary if temporary.startswith("/") and fits else "/tmp") + name
