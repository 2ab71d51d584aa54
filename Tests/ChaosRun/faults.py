# Part of QTasks. License: see LICENSE.
"""What happens to the processes of a system: SIGKILL, and SIGSTOP with a SIGCONT later on."""

from __future__ import annotations

import heapq
import random
import signal
import time
from collections import Counter

from system import Process, System, complain

# how often which role is hit, out of all
KILLS = {"worker": 60, "storage": 13, "broker": 10, "globalconfig": 9, "starter": 6, "all": 2}
STOPS = {"worker": 50, "storage": 15, "broker": 15, "globalconfig": 10, "starter": 10}
PAUSE = 0.8  # seconds between two faults, on average
KILL_SHARE = 0.8
STARTER_END = 1.0  # seconds within which nothing of a killed Starter's system is left


class Faults:
    def __init__(self, system: System, chance: random.Random) -> None:
        self.system, self.chance = system, chance
        self.kills: Counter[str] = Counter({role: 0 for role in STOPS})
        self.stops: Counter[str] = Counter({role: 0 for role in STOPS})
        self.broken: list[str] = []
        self._stopped: list[tuple[float, int, Process]] = []  # a heap, by when each goes on

    def run(self, seconds: float) -> None:
        start, told = time.monotonic(), 0
        next_fault = start + 2
        while (now := time.monotonic()) < start + seconds:
            if now >= next_fault:
                self._fault()
                next_fault = time.monotonic() + self.chance.expovariate(1 / PAUSE)
            self._wake(now)
            if now - start >= told + 30:
                told += 30
                complain(f"{told} s: {sum(self.kills.values())} kills, {self.system.counts()}")
            wakes = [at for at, _, _ in self._stopped[:1]]
            time.sleep(max(0.0, min(next_fault, start + seconds, *wakes) - time.monotonic()))
            self._mind_starter()
        self._wake(None)

    def _fault(self) -> None:
        kills = self.chance.random() < KILL_SHARE
        role = self._choose(KILLS if kills else STOPS)
        members = self.system.members()
        if kills and role == "all":
            return self._kill_all(members)
        chosen = [member for member in members if member.role == role]
        if not chosen:
            return  # it is just being replaced
        process = self.chance.choice(chosen)
        if not kills:
            if process.signal(signal.SIGSTOP):
                self.stops[role] += 1
                until = time.monotonic() + self.chance.uniform(0.05, 2)
                heapq.heappush(self._stopped, (until, process.pid, process))
        elif role == "starter":
            self._kill_starter(members)
        elif process.signal(signal.SIGKILL):
            self.kills[role] += 1

    def _choose(self, shares: dict[str, int]) -> str:
        return self.chance.choices(list(shares), list(shares.values()))[0]

    def _kill_starter(self, members: list[Process]) -> None:
        self.system.excuse_sleepers()
        members[0].signal(signal.SIGKILL)
        self.kills["starter"] += 1
        self._start_again(members)

    def _kill_all(self, members: list[Process]) -> None:
        self.system.excuse_sleepers()
        for member in members:
            if member.signal(signal.SIGKILL):
                self.kills[member.role] += 1
        self._start_again(members)

    def _start_again(self, members: list[Process]) -> None:
        """The next run begins at once, as a service manager may; what is old goes on its own way out."""
        self.system.starter.wait()
        deadline = time.monotonic() + STARTER_END
        self.system.start()
        for member in members:
            if not member.has_ended(deadline - time.monotonic()):
                self.broken.append(f"{member.role} {member.pid} outlives its Starter by a second")

    def _mind_starter(self) -> None:
        code = self.system.starter.poll()
        if code is not None:
            self.broken.append(f"the Starter ended by itself: {code}")
            self.system.start()

    def _wake(self, now: float | None) -> None:
        """Lets those go on whose time has come; all of them without a time."""
        while self._stopped and (now is None or self._stopped[0][0] <= now):
            heapq.heappop(self._stopped)[2].signal(signal.SIGCONT)
