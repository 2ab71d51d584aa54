#!/usr/bin/env python3
# Part of QTasks. License: see LICENSE.
"""Counts lines, words and bytes of files by the tasks of examples/wordcount.

    count.py [--home DIR] FILE ...

needs a running system that has them: `wordcount run --home DIR`.
"""

import argparse
import base64
import os
import sys

from qtasks import Client, QTasksError, TaskFailed


def arguments(path: str) -> dict[str, str]:
    """What the task takes: an absolute path, in Base64 where it is no UTF-8."""
    name = os.fsencode(os.path.abspath(path))
    try:
        return {"path": name.decode()}
    except UnicodeDecodeError:
        return {"pathBytes": base64.b64encode(name).decode()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Counts files by a running wordcount system.")
    parser.add_argument("--home", help="where it lives; else $QTASKS_HOME, else .qtasks")
    parser.add_argument("files", nargs="+", metavar="FILE")
    options = parser.parse_args()
    code, total = 0, [0, 0, 0]
    with Client(options.home) as client:
        tasks = client.add_tasks([("wordcount", arguments(path)) for path in options.files])
        for path, task in zip(options.files, tasks):
            try:
                count = task.result(timeout=60)
            except TaskFailed as error:
                print(f"{path}: {error.message}", file=sys.stderr)
                code = 1
                continue
            numbers = [count["lines"], count["words"], count["bytes"]]
            total = [sum(pair) for pair in zip(total, numbers)]
            print(*numbers, path)
    print(*total, "total")
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except QTasksError as error:
        sys.exit(f"count.py: {error}")
