// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import Testing

extension `A running system` {
    /// What an operator, or a program, changes of tasks that are there.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `An operator` {
        @Test
        func `cancels queued and running tasks from outside (behaviour 14)`() async throws {
            try await Bed.use { bed in
                let system = try bed.system(workers: 1, "--slots", "1")
                let running = try bed.add("rest")
                try bed.waitForEvents("rest")
                let queued = try bed.add("echo", "\"queued\"")
                let delayed = try bed.add("echo", "\"delayed\"", "--delay", "1")
                let cancelled = try bed.command(
                    "cancel",
                    queued,
                    delayed,
                    running,
                    "--reason",
                    "no need",
                    "--json"
                )
                #expect(cancelled.code == 0, "\(cancelled.log)")
                #expect(cancelled.output.split(separator: "\n").count == 3)
                // the slot is free: its handler heeds the cancellation
                let next = try bed.finalRecord(try bed.add("echo", "\"next\"", "--delay", "1.2"))
                #expect(next["status"].text == "success")
                #expect(bed.executions("echo").count == 1, "what was cancelled never starts")
                // a restart doesn't forget it
                try system.killAndAwaitReplacement(of: "storage")
                for id in [queued, delayed, running] {
                    let record = try bed.record(id)
                    #expect(record["status"].text == "cancel")
                    #expect(record["reason"].text == "no need")
                }
                let again = try bed.command("cancel", next["id"].text ?? "")
                #expect(again.code == 1 && again.log.contains("as success"), "\(again.log)")
                let unknown = try bed.command("cancel", "0190a000-0000-7000-8000-000000000000")
                #expect(unknown.code == 2, "\(unknown.log)")
                #expect(try bed.command("cancel", "nonsense").code == 64)
            }
        }

        @Test
        func `has failed and dead tasks run once more, each in a new epoch`() async throws {
            try await Bed.use { bed in
                _ = try bed.system()
                let failed = try bed.add("fail")
                #expect(try bed.finalRecord(failed)["epoch"].integer == 0)
                #expect(try bed.command("requeue", failed).code == 0)
                try bed.waitForEvents("fail", count: 2)
                let record = try bed.finalRecord(failed)
                #expect(record["status"].text == "error")
                #expect(record["epoch"].integer == 1 && record["failures"].integer == 1)

                let deadly = try bed.add("deadly")
                #expect(try bed.finalRecord(deadly, within: 20)["status"].text == "dead")
                let listed = try bed.command("dead", "list", "--json")
                #expect(try JSON(listed.output)["id"].text == deadly)
                #expect(
                    try bed.command("dead", "show", deadly).output.contains("counted as a death")
                )
                #expect(try bed.command("dead", "requeue", "--all").code == 0)
                try bed.waitForEvents("deadly", count: 6, within: 20)
                let dead = try bed.finalRecord(deadly, within: 20)
                #expect(dead["epoch"].integer == 1 && dead["deaths"].integer == 3)
                let story = try bed.command("explain", deadly).output
                #expect(story.contains("queued again by an operator, epoch 1"))

                let done = try bed.add("echo", "\"x\"")
                _ = try bed.finalRecord(done)
                let refused = try bed.command("requeue", done)
                #expect(refused.code == 1 && refused.log.contains("success"), "\(refused.log)")
            }
        }

        @Test
        func `lists tasks, and ends all that have not ended`() async throws {
            try await Bed.use { bed in
                _ = try bed.system(workers: 1, "--slots", "1")
                let resting = try bed.add("rest")
                try bed.waitForEvents("rest")
                let others = try (0..<3).map { try bed.add("echo", "\"\($0)\"") }
                let lines = try bed.command("list").output.split(separator: "\n")
                #expect(
                    lines.count == 4 && lines.first?.hasPrefix("\(resting) process rest") == true
                )
                let queued = try bed.command("list", "--status", "new", "--limit", "2", "--json")
                #expect(queued.output.split(separator: "\n").count == 2)
                #expect(try bed.command("flush").code == 64, "it wants --yes")
                let flushed = try bed.command("flush", "--yes", "--json")
                #expect(try JSON(flushed.output)["cancelled"].integer == 4, "\(flushed.log)")
                for id in [resting] + others {
                    #expect(try bed.record(id)["status"].text == "cancel")
                }
                let next = try bed.finalRecord(try bed.add("echo", "\"next\""))
                #expect(next["status"].text == "success")
                #expect(bed.executions("echo").count == 1)
            }
        }

        @Test
        func `ends a wait by a cancel`() async throws {
            try await Bed.use { bed in
                _ = try bed.system(workers: 1)
                let waiting = try bed.start(
                    Tool.testTasks.path,
                    ["add", "rest", "--wait", "--home", bed.home]
                )
                try bed.waitForEvents("rest")
                let id = try #require(bed.executions("rest").first).task
                let app = bed.client()
                try await app.cancel(try #require(.init(id)), reason: "enough")
                try bed.wait("the end of the wait") { waiting.report != nil && waiting.log.isAtEnd }
                #expect(Finished(waiting).code == 1)
                #expect(Finished(waiting).log.contains("given up: enough"))
            }
        }
    }
}
