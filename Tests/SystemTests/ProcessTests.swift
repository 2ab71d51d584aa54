// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess
import Testing

/// Real processes, one system after the other: each has both cores to itself.
@Suite(.serialized)
enum `A running system` {}

extension `A running system` {
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `Its processes` {
        @Test
        func `are those that it lists, with the parents of the design`() async throws {
            try await Bed.use { bed in
                let system = try bed.system(workers: 3)
                let members = try system.members()
                let roles = members.map(\.role).sorted()
                #expect(
                    roles == [
                        "broker", "globalconfig", "starter", "storage", "worker", "worker",
                        "worker",
                    ]
                )
                let pids = Dictionary(members.map { ($0.role, $0.pid) }) { first, _ in first }
                #expect(pids["starter"] == system.program.pid)
                let parentRoles = [
                    "worker": "starter", "broker": "starter", "storage": "broker",
                    "globalconfig": "storage",
                ]
                for member in members {
                    let parent = parentRoles[member.role].flatMap { pids[$0] }
                    #expect(member.parent == parent, "\(member)")
                    #expect(parent == nil || ProcFile.parent(of: member.pid) == parent)
                }
                // and there is no other below the Starter
                let listed = Set(members.map(\.pid)).subtracting([system.program.pid])
                #expect(ProcFile.descendants(of: system.program.pid) == listed)
            }
        }

        @Test
        func `all end with the Starter, within a second`() async throws {
            try await Bed.use { bed in
                let system = try bed.system()
                _ = try bed.add("hold", "\"x\"")
                try bed.waitForEvents("hold")
                let processes = try system.members().map { try $0.identity }
                kill(system.program.pid, SIGKILL)
                try bed.waitForEnd(of: processes, within: 1)
            }
        }

        @Test
        func `leave a second system at the same home no chance, and the first one reachable`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system(workers: 1)
                let before = try system.members()
                let second = try bed.command("run", "--workers", "1")
                #expect(second.code == 75)
                #expect(second.log.contains(bed.home), "names the home: \(second.log)")
                #expect(second.log.contains("process \(system.program.pid)"), "names the holder")
                #expect(try system.members() == before)
                #expect(try bed.command("add", "echo", "\"here\"", "--wait").output == "\"here\"\n")
            }
        }

        @Test
        func `execute a task from the command line and keep its record`() async throws {
            try await Bed.use { bed in
                let system = try bed.system(.wordcount, workers: 1)
                let file = bed.folder + "/some text"
                try ProcFile.write("one two\nthree\n", to: file)
                let added = try bed.command(
                    "add",
                    "wordcount",
                    "{\"path\":\"\(file)\"}",
                    "--wait",
                    "--json"
                )
                let record = try added.json
                #expect(added.code == 0)
                #expect(record["status"].text == "success")
                #expect(record["result"]["lines"].integer == 2)
                #expect(record["result"]["words"].integer == 3)
                #expect(record["result"]["bytes"].integer == 14)
                let id = try #require(record["id"].text)
                #expect(try bed.record(id) == record)
                #expect(try system.stop().code == 0)

                #expect(try bed.command("get", id, "--json").code == 69)
                _ = try bed.system(.wordcount, workers: 1)
                #expect(try bed.record(id) == record, "kept over a restart (P1)")
                let unknown = "01890000-0000-7000-8000-000000000000"
                #expect(try bed.command("get", unknown, "--json").code == 2)
            }
        }
    }
}
