# Part of QTasks. License: see LICENSE.
"""Starts a system and its load, lets faults happen, and has the checker look at what is left."""

import argparse
import json
import pathlib
import random
import signal
import shutil
import sys
import tempfile
import time

import checker
from faults import Faults
from system import Load, System, complain

WORKERS = 8
# how long whatever was added may take to end once nothing harms it any more
PATIENCE = 180


def main() -> int:
    options = read_options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    complain(f"seed {seed}: to see the same faults again, as far as time allows: --seed {seed}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="qtasks-chaos-"))
    report = None
    try:
        report = run(options, seed, folder)
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    finally:
        if options.keep and (report is None or not report.holds):
            complain(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    for line in report.findings:
        complain(line)
    numbers = {"seed": seed, "minutes": options.minutes, **report.numbers}
    if options.json:
        print(json.dumps(numbers), flush=True)
    else:
        for name, value in numbers.items():
            print(f"{name:24} {value}")
    return 0 if report.holds else 1


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description="Real processes under faults.")
    parser.add_argument("--program", default=".build/release/ChaosTasks", help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=3, help="how long faults happen (default: 3)")
    parser.add_argument("--seed", type=int, help="where the random choices begin (default: any)")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--keep", action="store_true", help="where a promise broke, leave home and logs")
    return parser.parse_args()


def run(options: argparse.Namespace, seed: int, folder: pathlib.Path) -> checker.Report:
    # a task writes a gigabyte to standard error in runs of half an hour, and less in shorter ones
    shout = max(1, min(1024, int(1.5 * options.minutes**2)))
    system = System(options.program, folder, WORKERS)
    loads: list[Load] = []
    broken: list[str] = []
    try:
        system.start()
        loads = [
            Load("swift", [options.program, "load", "--home", system.home, "--seed", str(seed),
                           "--shout", str(shout)], folder),
            Load("python", ["/usr/bin/python3", str(pathlib.Path(__file__).with_name("producer.py")),
                            system.home, str(seed)], folder),
        ]
        faults = Faults(system, random.Random(seed))
        faults.run(options.minutes * 60)
        broken += faults.broken
        complain("no more faults: everything has to come to its end")
        for load in loads:
            load.stop_adding()
        deadline = time.monotonic() + PATIENCE
        for load in loads:
            if not load.wait(max(1.0, deadline - time.monotonic())):
                broken.append(f"the {load.name} client still waits for an answer")
        if not system.wait_until_done(max(10.0, deadline - time.monotonic())):
            broken.append(f"not everything has ended: {system.counts()}")
        code = system.stop()
        if code != 0:
            broken.append(f"the stopped system's exit code is {code}")
        broken += [f"outlives its worker: process {pid}" for pid in system.left_over()]
        broken += checker.verify(system)
        complain("comparing what was acknowledged with what is recorded")
        report = checker.check(system, loads)
        report.add_faults(faults, broken)
        return report
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever is impatient waits for this much
        for load in loads:
            load.end()
        system.end()


if __name__ == "__main__":
    sys.exit(main())
