// Part of QTasks. License: see LICENSE.

import QTasks
import Testing

extension `A running system` {
    /// Unique keys and times to start by, from the client to the log.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `A task` {
        @Test
        func `that holds a key is the one that Swift, Python and the shell are told of (P3)`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system()
                let hold = bed.client().task("hold") { (text: String, _: TaskContext) in text }
                let first = try await hold.addTask("x", unique: .whileUnfinished("k"))
                let again = try await hold.addTask("y", unique: .whileUnfinished("k"))
                #expect(!first.isRepeat && again.isRepeat && again.id == first.id)
                try bed.waitForEvents("hold")
                try system.killAndAwaitReplacement(of: "storage")
                let told = try bed.command("add", "hold", "\"c\"", "--unique", "k", "--json")
                #expect(try JSON(told.output)["id"].text == first.id.description)
                #expect(told.output.contains("\"repeat\":true"), "\(told.output)")
                let python = try bed.python(
                    """
                    task = client.add_task("hold", "p", unique="k")
                    assert task.is_repeat
                    assert not client.add_task("echo", "e", unique="k").is_repeat
                    tasks = client.add_tasks([("echo", str(i)) for i in range(3)], unique=("w", 600))
                    assert [task.is_repeat for task in tasks] == [False, True, True]
                    assert [task.result(timeout=10) for task in tasks] == ["0"] * 3
                    assert client.add_task("echo", "late", unique=("w", 600)).result(timeout=10) == "0"
                    for key in ("", "k" * 1025, ("k", 0), ("k", "ever")):
                        try:
                            client.add_task("echo", "e", unique=key)
                            raise SystemExit("it should have been refused")
                        except QTasksError as error:
                            assert error.code == "badOption", error.code
                    print(json.dumps({"id": task.id}))
                    """
                )
                #expect(try python.json["id"].text == first.id.description)
                bed.openGate()
                let result = try await first.result(timeout: .seconds(10))
                #expect(try await again.result(timeout: .seconds(10)) == result)
                #expect(bed.executions("hold").count == 1)
                let next = try await hold.addTask("next", unique: .whileUnfinished("k"))
                #expect(!next.isRepeat)
                bed.openGate()
                _ = try await next.result(timeout: .seconds(10))
            }
        }

        @Test
        func `that another one's key keeps from being queued again says whose`() async throws {
            try await Bed.use { bed in
                _ = try bed.system()
                let first = try bed.add("nobody", "1", "--unique", "k")
                #expect(try bed.command("cancel", first).code == 0)
                let second = try bed.add("nobody", "2", "--unique", "k")
                #expect(first != second)
                let refused = try bed.command("requeue", first)
                #expect(refused.code == 1 && refused.log.contains(second), "\(refused.log)")
                #expect(try bed.command("cancel", second).code == 0)
                #expect(try bed.command("requeue", first).code == 0)
                #expect(try bed.add("nobody", "3", "--unique", "k") == first)
            }
        }

        @Test
        func `that nobody starts in time ends as expired, also over a restart`() async throws {
            try await Bed.use { bed in
                let system = try bed.system()
                let waited = try bed.command("add", "nobody", "1", "--expires", "1s", "--wait")
                #expect(waited.code == 1 && waited.log.contains("expired"), "\(waited.log)")
                let id = try bed.add("nobody", "2", "--expires", "2s")
                let done = try bed.add("echo", "\"x\"", "--expires", "2s")
                try system.killAndAwaitReplacement(of: "storage")
                let record = try bed.finalRecord(id)
                #expect(record["status"].text == "cancel" && record["reason"].text == "expired")
                #expect(record["attempt"].integer == 0)
                #expect(try bed.command("explain", id).output.contains("expired"))
                #expect(try bed.finalRecord(done)["status"].text == "success")
                let past = try bed.command("add", "echo", "1", "--expires", "2020-01-01", "--wait")
                #expect(past.code == 1 && past.log.contains("expired"), "\(past.log)")
                #expect(try bed.command("add", "echo", "1", "--expires", "soon").code == 64)
                #expect(try bed.command("add", "echo", "1", "--unique-for", "10m").code == 64)
            }
        }
    }
}
