// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import Testing

extension `A running system` {
    /// `log` and `explain`, while the system runs and after.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(2)))
    struct `Tools for the log` {
        private struct Tasks {
            var echo: String
            var retried: String
            var deadly: String
            var scheduled: String
            var running: String

            var all: Set<String> { [echo, retried, deadly, scheduled, running] }
        }

        /// Tasks in all kinds of states, the last one under way.
        private static func addTasks(_ bed: Bed) throws -> Tasks {
            let tasks = Tasks(
                echo: try bed.add("echo", "\"told\""),
                retried: try bed.add("retried", "2"),
                deadly: try bed.add("deadly"),
                scheduled: try bed.add("nobody", "[1]", "--delay", "3600", "--queue", "later"),
                running: try bed.add("hold", "\"held\"")
            )
            for id in [tasks.echo, tasks.retried, tasks.deadly] { _ = try bed.finalRecord(id) }
            try bed.waitForEvents("hold")
            return tasks
        }

        private static func lines(_ finished: Finished) throws -> [JSON] {
            try finished.output.split(separator: "\n").map { try JSON(String($0)) }
        }

        /// What holds of a live store and of a stopped one.
        private static func checkReading(_ bed: Bed, _ tasks: Tasks, running: String) throws {
            let now = try bed.command("log", "at", "now", "--json")
            #expect(now.code == 0, "\(now.log)")
            let lines = try lines(now)
            #expect(lines.first?["tasks"].integer == tasks.all.count)
            let states = lines.dropFirst().map { ($0["id"].text ?? "", $0["status"].text) }
            let byID = Dictionary(uniqueKeysWithValues: states)
            #expect(byID[tasks.echo] == "success" && byID[tasks.deadly] == "dead")
            #expect(byID[tasks.scheduled] == "scheduled" && byID[tasks.running] == running)
            let summary = try bed.command("log", "at", "-0s", "--summary")
            #expect(summary.output.contains("later nobody: 1 scheduled"))
            let before = try Self.lines(bed.command("log", "at", "-1h", "--json"))
            #expect(before.count == 1 && before[0]["tasks"].integer == 0)

            let life = try bed.command("explain", tasks.retried, "--json").json
            #expect(life["status"].text == "success" && life["attempt"].integer == 3)
            #expect(
                life["events"].list.map(\.["event"].text) == [
                    "added", "leased", "ended", "leased", "ended", "leased", "ended",
                ]
            )
            #expect(life["events"].list.allSatisfy { $0["at"].text != nil })
            let deaths = try bed.command("explain", tasks.deadly)
            #expect(deaths.output.contains("counted as a death; dead"), "\(deaths.output)")
            #expect(deaths.output.contains("(pid "), "\(deaths.output)")
            let unknown = "019062aa-7c3b-7d2e-8f10-0123456789ab"
            #expect(try bed.command("explain", unknown).code == 2)

            let verified = try bed.command("log", "verify", "--json")
            #expect(verified.code == 0, "\(verified.output)")
            #expect(try verified.json["tasks"].integer == tasks.all.count)
            let exported = try Self.lines(bed.command("log", "export"))
            #expect(Set(exported.compactMap(\.["id"].text)) == tasks.all)
            let filtered = try Self.lines(bed.command("log", "export", "--queue", "later"))
            #expect(filtered.map(\.["id"].text) == [tasks.scheduled])
            let dumped = try Self.lines(
                bed.command("log", "dump", "--json", "--id", tasks.echo)
            )
            #expect(dumped.map(\.["kind"].text) == ["add", "lease", "finish"])
            #expect(dumped.last?["result"].text == "told")
            let adds = try bed.command("log", "dump", "--kind", "add")
            #expect(adds.output.split(separator: "\n").count == tasks.all.count)

            let stats = try bed.command("log", "stats", "--json").json
            #expect(stats["tasks"]["total"].integer == tasks.all.count)
            #expect(stats["historyComplete"] == .truth(true))
            #expect(stats["segments"].list.count >= 1 && stats["damaged"] == .truth(false))
            #expect(try bed.command("log", "stats").output.contains("history is complete"))
        }

        @Test func `read it, compact it and mend it, live and stopped (P9)`() async throws {
            try await Bed.use { bed in
                #expect(try bed.command("log", "verify").code == 69)
                #expect(try bed.command("log", "at", "yesterday").code == 64)
                let system = try bed.system()
                let tasks = try Self.addTasks(bed)
                try Self.checkReading(bed, tasks, running: "process")
                let compacted = try bed.command("log", "compact", "--json")
                #expect(compacted.code == 0, "\(compacted.log)")
                #expect(try compacted.json["bytesAfter"].integer ?? 0 > 0)
                let target = bed.folder + "/mended"
                let refused = try bed.command("log", "repair", "--to", target)
                #expect(refused.code == 75 && refused.log.contains("stop it first"))
                bed.openGate()
                _ = try bed.finalRecord(tasks.running)
                #expect(try system.stop().code == 0)

                try Self.checkReading(bed, tasks, running: "success")
                #expect(try bed.command("log", "compact").code == 0)
                #expect(try bed.command("log", "verify").code == 0)
                try Self.repair(bed, tasks, target)
            }
        }

        private static func repair(_ bed: Bed, _ tasks: Tasks, _ target: String) throws {
            let add = try lines(bed.command("log", "dump", "--json", "--id", tasks.echo))[0]
            let offset = try #require(add["position"]["offset"].integer)
            let index = try #require(add["position"]["segment"].integer)
            let digits = String(index)
            let zeros = String(repeating: "0", count: 10 - digits.count)
            let path = bed.home + "/store/segment-" + zeros + digits
            let exported = try bed.command("log", "export").output

            try flip(path, at: offset + 60, bits: 1)
            let damaged = try bed.command("log", "verify", "--json")
            #expect(damaged.code == 1)
            #expect(try damaged.json["damaged"].list.map(\.["task"].text) == [tasks.echo])
            let healed = try bed.command("log", "repair", "--to", target, "--json")
            #expect(healed.code == 0, "\(healed.log)")
            #expect(try healed.json["healed"].list.count == 1)
            #expect(try healed.json["whole"] == .truth(true))
            #expect(try bed.command("log", "repair", "--to", target).code == 64)

            try flip(path, at: offset + 62, bits: 0xFF)
            let mended = try bed.command("log", "repair", "--to", bed.folder + "/rest")
            #expect(mended.output.contains(tasks.echo), "\(mended.output)")

            rename(bed.home + "/store", bed.home + "/store.damaged")
            rename(target, bed.home + "/store")
            #expect(try bed.command("log", "verify").code == 0)
            #expect(try count(bed.command("log", "export").output) == count(exported))
            let system = try bed.system()
            let record = try bed.record(tasks.retried)
            #expect(record["status"].text == "success" && record["result"].integer == 3)
            let after = try bed.add("echo", "\"after\"")
            _ = try bed.finalRecord(after)
            #expect(try bed.command("log", "at", "-1h").log.contains("history begins at"))
            #expect(try bed.command("log", "verify").code == 0)
            #expect(try system.stop().code == 0)
        }

        private static func count(_ text: String) -> Int { text.split(separator: "\n").count }

        private static func flip(_ path: String, at offset: Int, bits: UInt8) throws {
            let file = open(path, O_RDWR | O_CLOEXEC)
            guard file >= 0 else { throw Failure("open \(path): errno \(errno)") }
            defer { close(file) }
            var byte: UInt8 = 0
            guard pread(file, &byte, 1, offset) == 1 else { throw Failure("pread \(path)") }
            byte ^= bits
            guard pwrite(file, &byte, 1, offset) == 1 else { throw Failure("pwrite \(path)") }
        }
    }
}
