# Part of QTasks. License: see LICENSE.
"""The system under test and its clients, as processes that end with this one."""

from __future__ import annotations

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import time

ROLES = {
    "qtasks-starter": "starter", "qtasks-broker": "broker", "qtasks-storage": "storage",
    "qtasks-config": "globalconfig", "qtasks-worker": "worker",
}
TIED = ["setpriv", "--pdeathsig", "KILL"]  # ends with this process, however it ends
CHILD_SECONDS = b"98765.4321"  # what the task `fork` leaves behind sleeps for so long


def complain(text: str) -> None:
    print(f"chaos: {text}", file=sys.stderr, flush=True)


class Process:
    """One process, by a descriptor that no later process inherits."""

    def __init__(self, pid: int, role: str) -> None:
        self.pid, self.role = pid, role
        self.descriptor = os.pidfd_open(pid)

    def signal(self, number: int) -> bool:
        try:
            signal.pidfd_send_signal(self.descriptor, number)
            return True
        except ProcessLookupError:
            return False

    def has_ended(self, within: float = 0) -> bool:
        return bool(select.select([self.descriptor], [], [], max(0, within))[0])

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class System:
    def __init__(self, program: str, folder: pathlib.Path, workers: int) -> None:
        self.program, self.folder, self.workers = program, folder, workers
        self.home = str(folder / "home")
        self.executions = folder / "executions"
        self.starts = 0
        self.excused: set[int] = set()
        self.starter: subprocess.Popen[bytes] | None = None
        self.environment = dict(
            os.environ, CHAOS_EXECUTIONS=str(self.executions), TMPDIR=str(folder),
            SWIFT_BACKTRACE="enable=no",
        )

    # Starting and stopping

    def start(self) -> None:
        self.starts += 1
        self.starter = subprocess.Popen(
            [*TIED, self.program, "run", "--home", self.home, "--workers", str(self.workers),
             "--slots", "4", "--grace", "5", "--limit-as", "1GiB", "--history", "24h,16GiB"],
            env=self.environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        threading.Thread(target=self._keep_log, args=[self.starter.stderr], daemon=True).start()

    def _keep_log(self, pipe) -> None:
        """Keeps what roles log; what the task `shout` wrote is read, as somebody would, and dropped."""
        with open(self.folder / "log", "ab") as log:
            for line in pipe:
                if b"shout" not in line:
                    log.write(line)
                    log.flush()

    def stop(self) -> int:
        self.starter.send_signal(signal.SIGTERM)
        try:
            return self.starter.wait(30)
        except subprocess.TimeoutExpired:
            return -1

    def end(self) -> None:
        """Whatever happened: nothing of it is left."""
        if self.starter and self.starter.poll() is None:
            self.starter.kill()
            self.starter.wait()
        deadline = time.monotonic() + 5
        while self.members_left() and time.monotonic() < deadline:
            for pid in self.members_left():
                kill(pid)
            time.sleep(0.05)

    # Processes

    def members(self) -> list[Process]:
        """The Starter and all roles below it."""
        found = []
        for pid in [self.starter.pid, *descendants(self.starter.pid)]:
            role = ROLES.get(name_of(pid))
            if role:
                try:
                    found.append(Process(pid, role))
                except ProcessLookupError:
                    pass
        return found

    def sleepers(self) -> list[int]:
        """Children that tasks have started."""
        return [pid for pid in self.members_left() if CHILD_SECONDS in arguments_of(pid)]

    def members_left(self) -> list[int]:
        """All processes anywhere that have this system's environment, but for clients."""
        mark = b"CHAOS_EXECUTIONS=" + os.fsencode(str(self.executions)) + b"\0"
        return [pid for pid in all_processes() if mark in environment_of(pid)]

    def excuse_sleepers(self) -> None:
        """The Starter is about to be killed, and with it everyone who could end these."""
        self.excused.update(self.sleepers())

    def left_over(self) -> list[int]:
        return [pid for pid in self.members_left() if pid not in self.excused]

    # Asking

    def command(self, *arguments: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in self.environment.items() if k != "CHAOS_EXECUTIONS"}
        return subprocess.run(
            [*TIED, self.program, *arguments, "--home", self.home], env=environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        )

    def lines(self, *arguments: str):
        """A long command's output, line by line."""
        process = subprocess.Popen(
            [*TIED, self.program, *arguments, "--home", self.home], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, text=True, bufsize=1 << 20,
        )
        yield from process.stdout
        if process.wait() != 0:
            raise SystemExit(f"'{' '.join(arguments)}' ended with {process.returncode}")

    def counts(self) -> dict[str, int]:
        """How many tasks are in which state; empty while nobody answers."""
        try:
            answer = self.command("stats", "inspect", "tasks", "--json")
        except subprocess.TimeoutExpired:
            return {}
        if answer.returncode != 0:
            return {}
        rows = json.loads(answer.stdout)["tasks"]
        states = ["new", "scheduled", "process", "success", "error", "cancel", "dead"]
        return {state: sum(row[state] for row in rows) for state in states}

    def wait_until_done(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            counts = self.counts()
            if counts and counts["new"] + counts["scheduled"] + counts["process"] == 0:
                return True
            time.sleep(0.5)
        return False


class Load:
    """A client that adds tasks until its standard input is closed; see LoadCommand.swift."""

    def __init__(self, name: str, command: list[str], folder: pathlib.Path) -> None:
        self.name, self.path = name, folder / f"{name}-said"
        with open(self.path, "wb") as said, open(folder / f"{name}-log", "wb") as log:
            self.process = subprocess.Popen(
                [*TIED, *command], start_new_session=True, stdin=subprocess.PIPE, stdout=said, stderr=log
            )

    def stop_adding(self) -> None:
        self.process.stdin.close()

    def wait(self, seconds: float) -> bool:
        try:
            return self.process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def said(self):
        with open(self.path) as lines:
            for line in lines:
                yield line.split()


# What /proc tells; empty of a process that is gone


def read_proc(pid: int, name: str) -> bytes:
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def name_of(pid: int) -> str:
    return read_proc(pid, "comm").decode().strip()


def arguments_of(pid: int) -> bytes:
    return read_proc(pid, "cmdline")


def environment_of(pid: int) -> bytes:
    return read_proc(pid, "environ")


def all_processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(pid: int) -> list[int]:
    found = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    for thread in threads:
        for child in read_proc(pid, f"task/{thread}/children").split():
            found += [int(child), *descendants(int(child))]
    return found


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
