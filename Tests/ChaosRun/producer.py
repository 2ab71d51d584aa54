# Part of QTasks. License: see LICENSE.
"""A Python client under faults: adds, waits, cancels and requeues until its standard input ends.

Says what LoadCommand.swift says, and `cancelled ID` and `requeued ID` once that was acknowledged.
"""

import pathlib
import random
import select
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples/python"))
from qtasks import Client, QTasksError, TaskFailed  # noqa: E402

PLAIN = ["plain", "rest", "block", "retried"]
WAIT = 300


def say(*words: object) -> None:
    print(*words, flush=True)


def add(client: Client, chance: random.Random, count: int, **options: object) -> list:
    tasks = [(chance.choice(PLAIN), chance.randrange(1_000_000)) for _ in range(count)]
    results = client.add_tasks(tasks, **options)
    for result, (name, number) in zip(results, tasks):
        say("acked", result.id, name, number)
    return results


def wait(result) -> None:
    try:
        say("told", result.id, "success", result.result(timeout=WAIT))
    except TaskFailed as error:
        say("told", result.id, error.record["status"], "-")


def one_round(client: Client, chance: random.Random) -> None:
    kind = chance.random()
    if kind < 0.5:
        wait(add(client, chance, 1, priority=chance.randrange(-5, 5))[0])
    elif kind < 0.8:
        wait(add(client, chance, 40)[-1])
    elif kind < 0.9:
        add(client, chance, 5, delay=chance.uniform(0.1, 5))
    else:
        # what runs, waits or is delayed is cancelled, and queued again: a new epoch
        result = add(client, chance, 1, delay=chance.choice([0, 0.01, 2]))[0]
        try:
            client.cancel(result.id, "chaos")
            say("cancelled", result.id)
            if chance.random() < 0.5:
                client.requeue(result.id)
                say("requeued", result.id)
        except QTasksError as error:
            if error.code != "conflict":  # it had ended before
                raise


def main() -> None:
    home, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    with Client(home, timeout=120) as client:
        while not select.select([sys.stdin], [], [], 0.02)[0]:
            try:
                one_round(client, chance)
            except QTasksError as error:
                say("failed", "python", str(error).replace("\n", " "))


main()
