// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import Testing

extension `A running system` {
    /// What an operator holds back.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `A queue` {
        @Test
        func `that is paused starts nothing, also after a restart, until it is resumed`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system()
                let paused = try bed.command("queue", "pause", "slow", "--json")
                #expect(paused.output.contains("\"paused\":true"), "\(paused.log)")
                let held = try bed.add("echo", "\"held\"", "--queue", "slow")
                let other = try bed.add("echo", "\"other\"")
                #expect(try bed.finalRecord(other)["status"].text == "success")
                try system.killAndAwaitReplacement(of: "broker")
                let next = try bed.add("echo", "\"next\"")
                #expect(try bed.finalRecord(next)["status"].text == "success")
                #expect(try bed.record(held)["status"].text == "new")
                let listed = try bed.command("stats", "inspect", "queues")
                #expect(listed.output.contains("paused"), "\(listed.output)")
                #expect(try bed.command("queue", "resume", "slow").code == 0)
                #expect(try bed.finalRecord(held)["status"].text == "success")
            }
        }

        @Test
        func `runs no more at once than it may, nor more of one key`() async throws {
            try await Bed.use { bed in
                _ = try bed.system(workers: 2)
                let limited = try bed.command(
                    "queue",
                    "limit",
                    "default",
                    "--concurrency",
                    "3",
                    "--key-concurrency",
                    "1",
                    "--json"
                )
                #expect(limited.code == 0, "\(limited.log)")
                #expect(try limited.json["keyConcurrency"].integer == 1)
                let first = try bed.add("rest", "null", "--key", "a")
                let second = try bed.add("rest", "null", "--key", "a")
                let third = try bed.add("rest", "null", "--key", "b")
                try bed.waitForEvents("rest", count: 2)
                #expect(try bed.record(second)["status"].text == "new")
                #expect(try bed.command("cancel", first, third).code == 0)
                try bed.waitForEvents("rest", count: 3)
                #expect(try bed.command("cancel", second).code == 0)
            }
        }

        @Test
        func `says what is wrong with a limit, and what it takes`() async throws {
            try await Bed.use { bed in
                for (arguments, hint) in [
                    (["--rate", "fast"], "100/1s"), (["--concurrency", "0"], "1 or more"),
                    ([], "name a limit"),
                ] {
                    let finished = try bed.run(
                        Tool.testTasks.path,
                        ["queue", "limit", "default"] + arguments + ["--home", bed.home]
                    )
                    #expect(finished.code == 64 && finished.log.contains(hint), "\(finished.log)")
                }
            }
        }
    }
}
