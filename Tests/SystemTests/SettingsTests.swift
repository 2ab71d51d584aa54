// Part of QTasks. License: see LICENSE.

import Testing

extension `A running system` {
    /// Settings on their way from the command line.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `Being set up` {
        @Test
        func `takes durability by interval, retention, quota and history, of adds too`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system(
                    workers: 1,
                    "--durability",
                    "interval:50",
                    "--retention",
                    "2d,100000",
                    "--retention",
                    "echo=1h/30d,1000",
                    "--quota",
                    "1GiB",
                    "--history",
                    "1h,100MB"
                )
                let id = try bed.add("echo", "\"kept\"")
                #expect(try bed.finalRecord(id)["result"].text == "kept")
                let own = ["--durability", "interval:20", "--retention", "10m", "--wait"]
                let added = try bed.run(
                    Tool.testTasks.path,
                    ["add", "--home", bed.home, "echo", "\"own\""] + own
                )
                #expect(added.code == 0, "\(added.log)")
                #expect(try system.stop().code == 0)
            }
        }

        @Test(arguments: [
            ("--durability", "interval:0"), ("--retention", "5m"), ("--quota", "1MiB"),
            ("--history", "24h"),
        ])
        func `refuses what can't be by its flag`(flag: String, value: String) async throws {
            try await Bed.use { bed in
                let refused = try bed.command("run", flag, value)
                #expect(refused.code == 78)
                #expect(refused.log.contains("\(flag) is '\(value)'; it takes"), "\(refused.log)")
            }
        }

        @Test(arguments: [
            ("--durability", "sometimes"), ("--retention", "2w"), ("--retention", "5m"),
        ])
        func `refuses an add with what can't be`(option: String, value: String) async throws {
            try await Bed.use { bed in
                let system = try bed.system(workers: 0)
                let refused = try bed.command("add", "echo", "1", option, value)
                #expect(refused.code == 64)
                #expect(refused.log.lowercased().contains(option.dropFirst(2)), "\(refused.log)")
                #expect(try system.stop().code == 0)
            }
        }
    }
}
