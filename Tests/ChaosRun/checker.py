# Part of QTasks. License: see LICENSE.
"""Compares what clients were told, what workers did, and what the log holds.

Three witnesses that know nothing of each other: clients noted every acknowledgement and every end that
they were told; each execution noted itself in a file as it began; the log has what Storage decided.

    lost                    acknowledged, and not recorded as ended (P1, P2)
    double_completions      a second end of one task in one epoch (P2)
    wrong_ends              an end that no honest execution comes to, or that differs from what was told
    unexplained_executions  of a lease that the log doesn't have, or a second one of the same lease, or
                            a later one although the log doesn't say that the earlier one's worker had
                            died, or that it had ended (P4, P5)
    false_deaths            a worker began an execution after it had been declared dead (P4)
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from system import Load, System

FINAL = {"success", "error", "cancel", "dead"}
# why a lease came to nothing although its task may have begun
DEATHS = {"death", "goneBefore", "neighbour", "drain"}
PLAIN = {"plain", "rest", "block", "retried"}
# what the odd tasks may come to, besides a result and `dead`
TIME_LIMITED = {"spin", "hog", "close"}
SHOWN = 20  # findings of each kind that are told in full


@dataclass
class Lease:
    """One hand-over of a task, as the log has it."""

    worker: str
    end: str = ""  # how it ended: a status, `retry`, or the cause of its release
    ended_at: float = 0  # seconds since 1970, a millisecond at most too early


@dataclass
class Task:
    """One task, as the log has it."""

    name: str = ""
    leases: dict[str, Lease] = field(default_factory=dict)
    epochs: list[list[str]] = field(default_factory=lambda: [[]])  # the leases of each
    ends: list[list[str]] = field(default_factory=lambda: [[]])  # the statuses of each that are final
    cancels: int = 0
    result: object = None


@dataclass
class Report:
    numbers: dict[str, object]
    findings: list[str] = field(default_factory=list)
    broken: int = 0

    @property
    def holds(self) -> bool:
        return self.broken == 0

    def find(self, kind: str, text: str) -> None:
        """A promise broke."""
        self.broken += 1
        self.numbers[kind] = self.numbers.get(kind, 0) + 1
        if self.numbers[kind] <= SHOWN:
            self.findings.append(f"{kind}: {text}")

    def add_faults(self, faults, broken: list[str]) -> None:
        self.numbers |= {
            "kills": dict(faults.kills), "stops": dict(faults.stops), "other": len(broken),
        }
        self.broken += len(broken)
        self.findings += broken


def verify(system: System) -> list[str]:
    answer = system.command("log", "verify", "--json", timeout=300)
    return [] if answer.returncode == 0 else [f"the store is damaged: {answer.stdout}{answer.stderr}"]


def check(system: System, loads: list[Load]) -> Report:
    tasks, workers = read_log(system)
    report = Report(
        {"acknowledged": 0, "lost": 0, "double_completions": 0, "executions": 0,
         "unexplained_executions": 0, "wrong_ends": 0, "false_deaths": 0}
    )
    check_ends(report, tasks)
    check_clients(report, tasks, loads)
    check_executions(report, tasks, workers, system)
    ends = Counter(task.ends[-1][-1] for task in tasks.values() if task.ends[-1])
    report.numbers["ends"] = dict(ends)
    return report


# The log


def read_log(system: System) -> tuple[dict[str, Task], dict[str, int]]:
    """All tasks by ID, and the pids of workers."""
    tasks: dict[str, Task] = defaultdict(Task)
    workers: dict[str, int] = {}
    seen: set[int] = set()
    for line in system.lines("log", "dump", "--json", "--full"):
        record = json.loads(line)
        # opening a store after a kill may write its newest records once more, with their sequence
        if record["sequence"] in seen:
            continue
        seen.add(record["sequence"])
        if record["kind"] == "worker":
            workers[record["worker"]] = record["pid"]
        elif "id" in record:
            apply(record, tasks[record["id"]])
    return tasks, workers


def apply(record: dict, task: Task) -> None:
    kind, status = record["kind"], record.get("status", "")
    lease = task.leases.get(record.get("lease", ""))
    if kind == "add":
        task.name = record["name"]
    elif kind == "lease":
        task.leases[record["lease"]] = Lease(record["worker"])
        task.epochs[-1].append(record["lease"])
    elif kind in ("finish", "cancel"):
        task.cancels += kind == "cancel"
        if status in FINAL:
            task.ends[-1].append(status)
            task.result = record.get("result")
        if lease:
            end(lease, status if status in FINAL else "retry", record)
    elif kind == "release":
        if status == "dead":
            task.ends[-1].append(status)
        if lease:
            end(lease, record["cause"], record)
    elif kind == "requeue":
        task.epochs.append([])
        task.ends.append([])


def end(lease: Lease, how: str, record: dict) -> None:
    if not lease.end:
        lease.end = how
        lease.ended_at = datetime.fromisoformat(record["at"].replace("Z", "+00:00")).timestamp()


# What is compared


def check_ends(report: Report, tasks: dict[str, Task]) -> None:
    for id, task in tasks.items():
        for epoch, ends in enumerate(task.ends):
            for extra in ends[1:]:
                report.find("double_completions", f"{id} in epoch {epoch}: {ends[0]}, then {extra}")


def check_clients(report: Report, tasks: dict[str, Task], loads: list[Load]) -> None:
    acknowledged: dict[str, tuple[str, int]] = {}
    failed = 0
    for load in loads:
        for words in load.said():
            match words:
                case ["acked", id, name, number]:
                    acknowledged[id] = name, int(number)
                case ["told", id, status, result]:
                    check_told(report, id, tasks.get(id), status, result)
                case ["cancelled", id] if not tasks.get(id, Task()).cancels:
                    report.find("lost", f"the cancellation of {id} was acknowledged")
                case ["requeued", id] if len(tasks.get(id, Task()).epochs) < 2:
                    report.find("lost", f"the requeue of {id} was acknowledged")
                case ["failed", *_]:
                    failed += 1
    for id, (name, number) in acknowledged.items():
        task = tasks.get(id)
        if task is None or not task.name:
            report.find("lost", f"{name} {id}: the log doesn't have it")
        elif not task.ends[-1]:
            report.find("lost", f"{name} {id}: it has not ended; {task.epochs[-1]} {task.leases}")
        else:
            check_end(report, id, task, number)
    report.numbers["acknowledged"] = len(acknowledged)
    report.numbers["failed_calls"] = failed


def check_end(report: Report, id: str, task: Task, number: int) -> None:
    """Whether a task can honestly have ended like this."""
    status = task.ends[-1][-1]
    if status == "success":
        right = 2 * number + 1 if task.name in PLAIN else number
        if task.result != right:
            report.find("wrong_ends", f"{task.name}({number}) {id}: result {task.result}")
    elif status == "dead":
        deaths = [end for end in leases_ends(task) if end == "death"]
        if len(deaths) < 3:
            report.find("wrong_ends", f"{task.name} {id}: dead after {leases_ends(task)}")
    elif status == "error" and task.name not in TIME_LIMITED:
        report.find("wrong_ends", f"{task.name}({number}) {id}: an error that nobody threw")
    elif status == "cancel" and not task.cancels:
        report.find("wrong_ends", f"{task.name}({number}) {id}: cancelled by nobody")


def leases_ends(task: Task) -> list[str]:
    return [task.leases[lease].end for lease in task.epochs[-1]]


def check_told(report: Report, id: str, task: Task | None, status: str, result: str) -> None:
    recorded = [status for ends in task.ends for status in ends] if task else []
    if status not in recorded:
        report.find("wrong_ends", f"{id}: its waiter was told {status}, recorded is {recorded}")
    elif status == "success" and str(task.result) != result:
        report.find("wrong_ends", f"{id}: its waiter was told {result}, recorded is {task.result}")


def check_executions(
    report: Report, tasks: dict[str, Task], workers: dict[str, int], system: System
) -> None:
    executed: dict[tuple[str, str], int] = Counter()
    declared_dead = {
        lease.worker: lease.ended_at
        for task in tasks.values() for lease in task.leases.values() if lease.end in DEATHS
    }
    count = repeated = 0
    for line in open(system.executions):
        words = line.split()
        if len(words) != 6:
            report.find("other", f"an execution can't be read: {line!r}")
            continue
        id, epoch, attempt, worker, pid, began = words
        count += 1
        task = tasks.get(id, Task())
        lease = lease_of(task, int(epoch), int(attempt))
        if lease is None or task.leases[lease].worker != worker or workers.get(worker) != int(pid):
            report.find("unexplained_executions", f"{id} attempt {attempt} at {pid}: no such lease")
            continue
        executed[id, lease] += 1
        if executed[id, lease] > 1:
            report.find("unexplained_executions", f"{id} twice by its lease {lease}")
        # the log's times are cut to milliseconds
        if int(began) / 1e9 > declared_dead.get(worker, float("inf")) + 0.002:
            report.find("false_deaths", f"worker {worker} ({pid}) began {id} after its death")
    for id, task in tasks.items():
        leases = [lease for epoch in task.epochs for lease in epoch]
        ran = [lease for lease in leases if executed[id, lease]]
        repeated += max(0, len(ran) - 1)
        for lease in ran[:-1]:
            how = task.leases[lease].end
            if how not in DEATHS | FINAL | {"retry"}:
                report.find(
                    "unexplained_executions",
                    f"{task.name} {id}: lease {lease} ran and ended as '{how}', and it ran again",
                )
    report.numbers["executions"] = count
    report.numbers["repeated_executions"] = repeated


def lease_of(task: Task, epoch: int, attempt: int) -> str | None:
    """The lease of an attempt: each lease is the next attempt of its epoch."""
    leases = task.epochs[epoch] if epoch < len(task.epochs) else []
    return leases[attempt - 1] if 1 <= attempt <= len(leases) else None
