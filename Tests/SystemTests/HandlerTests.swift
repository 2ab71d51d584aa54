// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

extension `A running system` {
    /// The table of what a handler does and how its task ends.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `A handler that` {
        @Test
        func `throws is tried as often as its task may be`() async throws {
            try await Bed.use { bed in
                _ = try bed.system()
                let failed = try bed.finalRecord(try bed.add("fail"))
                #expect(failed["status"].text == "error")
                #expect(failed["error"]["type"].text == "NoLuck")
                #expect(failed["error"]["message"].text == "no luck")
                #expect(bed.executions("fail").count == 1)

                let recovered = try bed.finalRecord(try bed.add("retried", "2"))
                #expect(recovered["status"].text == "success")
                #expect(recovered["result"].integer == 3)
                #expect(recovered["failures"].integer == 2)

                let exhausted = try bed.finalRecord(try bed.add("retried", "9"))
                #expect(exhausted["status"].text == "error")
                #expect(exhausted["failures"].integer == 3)
                #expect(bed.executions("retried").count == 6)
            }
        }

        @Test
        func `gets arguments that do not decode is not tried again`() async throws {
            try await Bed.use { bed in
                _ = try bed.system()
                let record = try bed.finalRecord(try bed.add("retried", "\"many\""))
                #expect(record["status"].text == "error")
                #expect(record["error"]["type"].text == "BadArguments")
                #expect(record["attempt"].integer == 1)
                #expect(bed.executions("retried").isEmpty)
            }
        }

        @Test
        func `runs past its limit has ended by then, whether it heeds it or not (behaviour 9)`()
            async throws
        {
            try await Bed.use { bed in
                _ = try bed.system(workers: 1, "--slots", "1")
                let late = try bed.finalRecord(try bed.add("late"))
                #expect(late["status"].text == "success")
                #expect(late["result"].integer == 2)
                #expect(late["failures"].integer == 1)

                let id = try bed.add("stubborn")
                let stubborn = try bed.finalRecord(id)
                #expect(stubborn["status"].text == "error")
                #expect(stubborn["error"]["type"].text == "TimeLimit")
                #expect(bed.executions("returned").isEmpty, "recorded at the deadline")
                // its slot is free when it returns, and its end changes nothing
                let next = try bed.add("echo", "\"next\"")
                bed.openGate()
                #expect(try bed.finalRecord(next)["status"].text == "success")
                try bed.waitForEvents("echo")
                let words = bed.events.lines.map { $0.prefix { $0 != " " } }
                #expect(words == ["stubborn", "returned", "echo"])
                #expect(try bed.record(id) == stubborn)
            }
        }

        @Test
        func `goes on past its limit is ended with its worker, and harms no neighbour (P4)`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system(workers: 1, "--slots", "2")
                let neighbour = try bed.add("hold", "\"x\"")
                try bed.waitForEvents("hold")
                let stubborn = try bed.finalRecord(try bed.add("stubborn"))
                #expect(stubborn["status"].text == "error")
                #expect(stubborn["error"]["type"].text == "TimeLimit")
                // the gate stays shut: neither returns by itself
                try bed.waitForEvents("hold", count: 2)
                let workers = Set(bed.executions("hold").map(\.worker))
                #expect(workers.count == 2, "its worker was replaced")
                bed.openGate()
                let record = try bed.finalRecord(neighbour)
                #expect(record["status"].text == "success")
                #expect(record["deaths"].integer == 0 && record["failures"].integer == 0)
                #expect(bed.executions("returned").isEmpty)
                let story = try bed.command("explain", neighbour).output
                #expect(story.contains("ended for another task"), "\(story)")
                #expect(try system.members().count { $0.role == "worker" } == 1)
            }
        }

        @Test(arguments: ["exitOnce", "trapOnce", "closeOnce"])
        func `ends its process has its task run elsewhere`(name: String) async throws {
            try await Bed.use { bed in
                let system = try bed.system()
                let record = try bed.finalRecord(try bed.add(name))
                #expect(record["status"].text == "success")
                #expect(record["result"].integer == 2)
                #expect(record["deaths"].integer == 1)
                #expect(Set(bed.executions(name).map(\.worker)).count == 2)
                try system.waitForLog(["broker[", "event=\"worker joined\""], count: 3)
            }
        }

        @Test
        func `gives its task up ends it as cancelled, with the reason`() async throws {
            try await Bed.use { bed in
                _ = try bed.system()
                let record = try bed.finalRecord(try bed.add("giveUp"))
                #expect(record["status"].text == "cancel")
                #expect(record["reason"].text == "not wanted")
            }
        }

        @Test
        func `has middlewares runs inside of them, the first outermost`() async throws {
            try await Bed.use { bed in
                _ = try bed.system()
                let record = try bed.finalRecord(try bed.add("framed", "\"x\""))
                #expect(record["result"].text == "inner<outer<x>inner>outer")
            }
        }
    }
}
