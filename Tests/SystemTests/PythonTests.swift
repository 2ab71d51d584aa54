// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

extension `A running system` {
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `Its Python module` {
        @Test
        func `adds tasks, waits for results, and reads records`() async throws {
            try await Bed.use { bed in
                _ = try bed.system()
                let finished = try bed.python(
                    """
                    task = client.add_task("echo", "h\\u00e4")
                    assert isinstance(task.id, str)
                    assert task.result(timeout=10) == "h\\u00e4"
                    tasks = client.add_tasks([("echo", str(i)) for i in range(300)])
                    assert [task.result(timeout=10) for task in tasks] == [str(i) for i in range(300)]
                    print(json.dumps(client.get(task.id)))
                    assert client.get("01890000-0000-7000-8000-000000000000") is None
                    try:
                        client.add_task("fail", None).result(timeout=10)
                        raise SystemExit("it should have failed")
                    except TaskFailed as error:
                        assert error.record["status"] == "error", error.record
                        assert error.record["error"]["message"] == "no luck", error.record
                    kept = client.add_task("echo", "own", durability="interval:20", retention=600)
                    assert kept.result(timeout=10) == "own"
                    for options in ({"durability": "interval:0"}, {"retention": 599}):
                        try:
                            client.add_task("echo", 1, **options)
                            raise SystemExit("it should have been refused")
                        except QTasksError as error:
                            assert error.code == "badOption", error.code
                    resting = client.add_task("rest", None)
                    resting.cancel("no need")
                    try:
                        resting.result(timeout=10)
                        raise SystemExit("it was cancelled")
                    except TaskFailed as error:
                        assert error.code == "taskCancelled", error.code
                        assert error.record["reason"] == "no need", error.record
                    client.requeue(resting.id)
                    assert client.get(resting.id)["epoch"] == 1
                    resting.cancel()
                    for change, code in ((client.requeue, "conflict"), (client.cancel, "conflict")):
                        try:
                            change(task.id)
                            raise SystemExit("it has succeeded")
                        except QTasksError as error:
                            assert error.code == code, error.code
                    try:
                        client.cancel("01890000-0000-7000-8000-000000000000")
                        raise SystemExit("there is none")
                    except QTasksError as error:
                        assert error.code == "notFound", error.code
                    try:
                        client.add_task("hold", "x").result(timeout=0.1)
                        raise SystemExit("it should have timed out")
                    except Timeout:
                        pass
                    """
                )
                let record = try finished.json
                #expect(record["status"].text == "success")
                #expect(record["result"].text == "hä")
                let id = try #require(record["id"].text)
                #expect(try bed.record(id) == record, "as get --json prints it")
            }
        }

        @Test
        func `gets its result over the death of the Broker`() async throws {
            try await Bed.use { bed in
                let system = try bed.system()
                let program = try bed.startPython(
                    """
                    task = client.add_task("hold", "kept")
                    print(task.id, flush=True)
                    print(task.result(timeout=20))
                    print(client.add_task("echo", "again").result(timeout=10))
                    """
                )
                try bed.waitForEvents("hold")
                try bed.wait("the task's ID") { program.output.lines.count == 1 }
                try system.killAndAwaitReplacement(of: "broker")
                bed.openGate()
                try bed.wait("the module's end") { program.report != nil && program.output.isAtEnd }
                let finished = Finished(program)
                #expect(finished.code == 0, "\(finished.log)")
                #expect(Array(program.output.lines.dropFirst()) == ["kept", "again"])
                #expect(bed.executions("hold").count == 1)
            }
        }
    }
}

extension Bed {
    /// Runs lines of Python with a `client` of this home to their end.
    ///
    /// - Throws: ``Failure`` with what they wrote to standard error where they fail.
    func python(_ lines: String) throws -> Finished {
        let program = try startPython(lines)
        try wait("the end of the Python script", within: 20) {
            program.report != nil && program.output.isAtEnd
        }
        let finished = Finished(program)
        guard finished.code == 0 else { throw Failure("python3: \(finished.log)") }
        return finished
    }

    func startPython(_ lines: String) throws -> Program {
        let here = "\(#filePath)"
        let root = here.split(separator: "/").dropLast(3).joined(separator: "/")
        let script = """
            import json, sys
            folder, home = sys.argv[1:]
            sys.path.insert(0, \(JSONString.of("/\(root)/examples/python")))
            from qtasks import Client, QTasksError, TaskFailed, Timeout
            client = Client(home)

            """
        return try start("/usr/bin/python3", ["-c", script + lines, folder, home])
    }
}

/// Text as a JSON string, which is a Python one too.
private enum JSONString {
    static func of(_ text: String) -> String {
        "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
    }
}
