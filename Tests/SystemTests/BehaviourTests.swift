// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import Testing

extension `A running system` {
    /// What users of other queues were let down by.
    ///
    /// The numbers are those of a list of such behaviours. What has no test here has one beside its
    /// subject, with `(behaviour N)` in its name.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `Where others fail` {
        @Test
        func `50 queued tasks all finish after a kill of all and a plain start (behaviour 2)`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system(workers: 1, "--slots", "1")
                let running = try bed.add("hold", "\"held\"")
                try bed.waitForEvents("hold")
                let app = bed.client()
                let load = Self.tasks("echo", 50)
                try await app.addTasks(load)
                try Self.killAll(of: system)

                _ = try bed.system()
                #expect(try await app.ends(of: load.map(\.id)) == (0..<50).map { "\"\($0)\"" })
                try bed.waitForEvents("hold \(running)", count: 2)
                bed.openGate()
                #expect(try bed.finalRecord(running)["status"].text == "success")
                #expect(bed.executions("echo").count == 50)
            }
        }

        @Test
        func `nothing that has not ended vanishes where finished tasks are removed (behaviour 3)`()
            async throws
        {
            try await Bed.use { bed in
                let forgetful = ["--slots", "1", "--history", "0", "--retention", "600s"]
                let system = try bed.system(.testTasks, workers: 1, forgetful)
                let done = try bed.add("echo", "\"done\"")
                _ = try bed.finalRecord(done)
                let running = try bed.add("hold", "\"held\"")
                try bed.waitForEvents("hold")
                let queued = try (0..<20).map { try bed.add("echo", "\"\($0)\"") }
                let delayed = try bed.add("echo", "\"later\"", "--delay", "1")
                #expect(try bed.command("log", "compact").code == 0)
                try Self.killAll(of: system)

                _ = try bed.system(.testTasks, workers: 1, forgetful)
                #expect(try bed.command("log", "compact").code == 0)
                for id in [running, delayed] + queued {
                    #expect(try bed.command("get", id).code == 0)
                }
                try bed.waitForEvents("hold", count: 2)
                bed.openGate()
                for id in [running, delayed] + queued {
                    #expect(try bed.finalRecord(id)["status"].text == "success")
                }
            }
        }

        @Test
        func `tasks added while a single slot is busy follow their priorities (behaviour 4, P6)`()
            async throws
        {
            try await Bed.use { bed in
                _ = try bed.system(workers: 1, "--slots", "1")
                _ = try bed.add("hold", "\"x\"", "--priority", "100")
                try bed.waitForEvents("hold")
                let app = bed.client()
                var load = Self.tasks("echo", 40)
                for index in load.indices { load[index].priority = Int16(index * 7 % 5 - 2) }
                for task in load { try await app.addTasks([task]) }
                bed.openGate()
                _ = try await app.ends(of: load.map(\.id))
                let expected = load.enumerated()
                    .sorted { ($1.element.priority, $0.offset) < ($0.element.priority, $1.offset) }
                    .map { "\($0.element.id)" }
                #expect(bed.executions("echo").map(\.task) == expected)
            }
        }

        @Test
        func `two workers share 50 tasks evenly (behaviour 5)`() async throws {
            try await Bed.use { bed in
                _ = try bed.system(workers: 2, "--slots", "1")
                let app = bed.client()
                let load = Self.tasks("nap", 50)
                try await app.addTasks(load)
                _ = try await app.ends(of: load.map(\.id))
                let shares = Dictionary(grouping: bed.executions("nap"), by: \.worker)
                    .mapValues(\.count)
                #expect(shares.count == 2)
                #expect(shares.values.allSatisfy { (20...30).contains($0) }, "\(shares)")
            }
        }

        @Test
        func `a task that blocks delays none beside it in its worker (behaviour 8)`() async throws {
            try await Bed.use { bed in
                _ = try bed.system(workers: 1)
                let blocking = try (0..<4).map { try bed.add("hold", "\"\($0)\"") }
                try bed.waitForEvents("hold", count: 4)
                let app = bed.client()
                let load = Self.tasks("echo", 50) + Self.tasks("nap", 4)
                try await app.addTasks(load)
                _ = try await app.ends(of: load.map(\.id))
                // whatever ended did so while these blocked
                for id in blocking { #expect(try bed.record(id)["status"].text == "process") }
                bed.openGate(for: 4)
                for id in blocking {
                    #expect(try bed.finalRecord(id)["status"].text == "success")
                }
            }
        }

        @Test
        func `two retries are three executions of one task, by kinds of errors (behaviour 13)`()
            async throws
        {
            try await Bed.use { bed in
                _ = try bed.system()
                let id = try bed.add("retried", "2")
                let record = try bed.finalRecord(id)
                #expect(record["status"].text == "success")
                #expect(record["arguments"].integer == 2)
                #expect(record["id"].text == id)
                #expect(bed.executions("retried \(id)").map(\.attempt) == [1, 2, 3])

                for (kind, executions) in [("trouble", 3), ("worse", 3), ("other", 1)] {
                    let id = try bed.add("troubled", "\"\(kind)\"")
                    #expect(try bed.finalRecord(id)["status"].text == "error")
                    let found = bed.executions("troubled-\(kind)")
                    #expect(found.map(\.attempt) == Array(1...executions))
                    #expect(Set(found.map(\.task)) == [id])
                }
            }
        }

        @Test
        func `a result that Storage died over is there when it is back (behaviour 18)`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system()
                let id = try bed.add("hold", "\"kept\"")
                try bed.waitForEvents("hold")
                // what is sent to it from here on goes with it
                let storage = try system.member("storage").pid
                let mark = system.log.lines.count
                kill(storage, SIGSTOP)
                bed.openGate()
                bed.pass(.milliseconds(300))
                kill(storage, SIGKILL)
                try system.waitForLog(["broker[", "event=\"storage opened\""], from: mark)
                let record = try bed.finalRecord(id)
                #expect(record["result"].text == "kept")
                #expect(record["attempt"].integer == 1)
                #expect(bed.executions("hold").count == 1)
            }
        }

        private static func tasks(_ name: String, _ count: Int) -> [TaskSubmission] {
            (0..<count).map { TaskSubmission(name: name, arguments: Array("\"\($0)\"".utf8)) }
        }

        /// SIGKILL to every process at once.
        private static func killAll(of system: System) throws {
            for member in try system.members() { kill(member.pid, SIGKILL) }
            #expect(try system.end().code == -SIGKILL)
        }
    }
}
