// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess
import Testing

extension `A running system` {
    /// Promises P2 and P4, for workers that the Starter starts and that aren't Swift's.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `Its foreign workers` {
        @Test
        func `execute tasks, one at a time each, and hand in what was raised`() async throws {
            try await Bed.use { bed in
                let system = try bed.foreignSystem(workers: 2)
                let ends = try (0..<20).map { try bed.add("echo", "\"\($0)\"") }
                    .map { try bed.finalRecord($0) }
                #expect(ends.map { $0["result"].text } == (0..<20).map { "\($0)" })
                let failed = try bed.finalRecord(try bed.add("fail"))
                #expect(failed["status"].text == "error")
                #expect(failed["error"]["type"].text == "ValueError")
                #expect(failed["error"]["message"].text == "no luck")
                let slow = try bed.python(
                    """
                    task = client.add_task("hold", "x", time_limit=0.2)
                    print(json.dumps(task.record(timeout=10)))
                    """
                ).json
                #expect(slow["error"]["type"].text == "TimeLimit")
                // children of the Starter, as all that it has to bury
                for worker in try system.members() where worker.role == "worker" {
                    #expect(ProcFile.parent(of: worker.pid) == system.program.pid)
                }
            }
        }

        @Test
        func `that are killed leave their task to another, and are replaced (P4)`() async throws {
            try await Bed.use { bed in
                let system = try bed.foreignSystem(workers: 2)
                let id = try bed.add("hold", "\"kept\"")
                try bed.waitForEvents("hold")
                let first = try #require(bed.executions("hold").first)
                kill(first.worker, SIGKILL)
                try bed.waitForEvents("hold", count: 2)
                let second = try #require(bed.executions("hold").last)
                #expect(second.task == first.task)
                #expect(second.worker != first.worker)
                bed.openGate()
                let record = try bed.finalRecord(id)
                #expect(record["status"].text == "success")
                #expect(record["attempt"].integer == 2)
                #expect(record["deaths"].integer == 1, "it ran alone")
                try system.waitForLog(["broker[", "event=\"worker joined\""], count: 3)
            }
        }

        @Test
        func `that a task kills leave the evidence of each death with it (P4)`() async throws {
            try await Bed.use { bed in
                let system = try bed.foreignSystem(workers: 1, ["--max-deliveries", "2"])
                let id = try bed.add("segfault", "\"last words\"")
                #expect(try bed.finalRecord(id, within: 20)["status"].text == "dead")
                try bed.waitForDeaths(2, of: id)
                for _ in 0..<2 {
                    for (number, death) in try bed.deaths(of: id).enumerated() {
                        #expect(death["attempt"].integer == number + 1)
                        #expect(death["signal"].integer == Int(SIGSEGV))
                        #expect(death["signalName"].text == "SIGSEGV")
                        #expect(try #require(death["maxResidentBytes"].integer) > 1 << 20)
                        let user = try #require(death["userMicroseconds"].integer)
                        let kernel = try #require(death["systemMicroseconds"].integer)
                        #expect(user + kernel > 1000, "an interpreter has started")
                        #expect(death["stderr"].text?.hasSuffix("last words\n") == true)
                    }
                    try system.killAndAwaitReplacement(of: "broker")
                }
                let shown = try bed.command("dead", "show", id).output
                #expect(shown.contains("attempt 2 ended with process"))
                #expect(shown.contains("signal \(SIGSEGV) (SIGSEGV)"))
                #expect(shown.contains("| last words"))

                let done = try bed.add("echo", "\"x\"")
                _ = try bed.finalRecord(done)
                let refused = try bed.command("dead", "purge", done)
                #expect(refused.code == 1 && refused.log.contains("--retention"), "\(refused.log)")
                #expect(try bed.command("dead", "purge").code == 64, "it wants --yes")
                let purged = try bed.command("dead", "purge", "--yes", "--json")
                #expect(try JSON(purged.output)["forgotten"].integer == 1, "\(purged.log)")
                #expect(try bed.command("get", id).code == 2)
                #expect(try bed.command("dead", "list").output.isEmpty)
                #expect(try bed.command("dead", "purge", id).code == 2)
            }
        }

        @Test
        func `end with the Starter, however it ends, and finish what runs where it is stopped`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.foreignSystem(workers: 1)
                let id = try bed.add("hold", "\"kept\"")
                try bed.waitForEvents("hold")
                kill(system.program.pid, SIGTERM)
                try system.waitForLog(["broker[", "event=draining"])
                bed.openGate()
                #expect(try system.end(within: 5).code == 0)
                let worker = try #require(bed.executions("hold").first).worker
                #expect(ProcessIdentity.of(pid: worker) == nil)

                let next = try bed.foreignSystem(workers: 1)
                #expect(try bed.record(id)["result"].text == "kept")
                let processes = try next.members().map { try $0.identity }
                kill(next.program.pid, SIGKILL)
                try bed.waitForEnd(of: processes, within: 1)
            }
        }
    }
}

extension Bed {
    /// A system of `qtasks`, which has no tasks, with workers in Python: `echo`, `fail` and `hold` as
    /// TestTasks has them.
    func foreignSystem(workers: Int, _ options: [String] = []) throws -> System {
        try system(.qtasks, workers: workers, options + ["--worker-command", foreignCommand()])
    }

    /// What `explain` tells of the deaths of a task's workers.
    fileprivate func deaths(of id: String) throws -> [JSON] {
        try command("explain", id, "--json").json["events"].list
            .filter { $0["event"].text == "died" }
    }

    /// Until the evidence of so many deaths is on disk: nothing waits for it.
    fileprivate func waitForDeaths(_ count: Int, of id: String) throws {
        var found = try deaths(of: id).count
        try wait("the evidence of \(count) deaths") {
            if found < count { found = (try? deaths(of: id).count) ?? found }
            return found >= count
        }
    }

    /// The command of such a worker.
    func foreignCommand() throws -> String {
        let script = folder + "/foreign.py"
        try ProcFile.write(Self.foreignTasks, to: script)
        return "/usr/bin/python3 '\(script)'"
    }

    private static let foreignTasks = """
        import os, sys
        sys.path.insert(0, \(JSONString.of(examples)))
        from worker import Worker

        worker = Worker()

        def report(what):
            with open(os.environ["TESTTASKS_EVENTS"], "w") as events:
                events.write(f"{what} - 0 {os.getpid()}\\n")

        @worker.task("echo")
        def echo(text):
            report("echo")
            return text

        @worker.task("fail")
        def fail(_):
            raise ValueError("no luck")

        @worker.task("hold")
        def hold(text):
            report("hold")
            with open(os.environ["TESTTASKS_GATE"], "rb", buffering=0) as gate:
                gate.read(1)
            return text

        @worker.task("grow")
        def grow(megabytes):
            global kept
            kept = b"x" * (megabytes << 20)

        @worker.task("flood")
        def flood(_):
            report("flood")
            for _ in range(200_000):
                print("so much to say" * 10, file=sys.stderr)

        @worker.task("segfault")
        def segfault(words):
            print(words, file=sys.stderr, flush=True)
            import ctypes
            ctypes.string_at(0)

        @worker.task("die")
        def die(words):
            print(words, file=sys.stderr, flush=True)
            os._exit(7)

        worker.run()
        """
}
