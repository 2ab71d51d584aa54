// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

extension `A running system` {
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `Its GlobalConfig` {
        /// The arrows of the diagrams "task processing" and "result": component, event, and what
        /// the peer begins with.
        private static let arrows = [
            ["broker", "\"save new task\"", "storage"],
            ["storage", "\"new task saved\"", "broker"],
            ["broker", "\"transfer task\"", "\"worker "],
            ["worker", "\"task received\"", "broker"], ["worker", "\"execute task\"", "executor"],
            ["worker", "\"execution result\"", "executor"],
            ["worker", "\"save result\"", "storage"],
            ["storage", "result", "\"worker "], ["broker", "\"read result\"", "storage"],
            ["broker", "result", "client"],
        ]

        @Test
        func `turns a task's way through all components into log lines`() async throws {
            try await Bed.use { bed in
                let system = try bed.system(workers: 1)
                #expect(try bed.command("config", "set", "log.level", "debug").code == 0)
                try hearDebugLines(of: ["broker", "storage", "worker"], bed, system)
                let id = try bed.add("echo", "\"x\"")
                try system.waitForLog(["broker[", "event=\"result saved\"", id])
                #expect(try bed.record(id)["result"].text == "x")
                try system.waitForLog(["broker[", "event=result", "peer=client", id])
                let lines = system.log.lines(with: ["task=\(id)"])
                var place = lines.startIndex
                for arrow in Self.arrows {
                    let parts = [
                        " \(arrow[0])[", "component=\(arrow[0]) ", "event=\(arrow[1]) ",
                        "peer=\(arrow[2])",
                    ]
                    let found = lines[place...].firstIndex { line in
                        parts.allSatisfy { line.contains($0) }
                    }
                    place = try #require(found, "\(arrow) in its place: \(lines)")
                }
            }
        }

        @Test
        func `changes a worker's slots while it runs, and keeps that over a restart`() async throws
        {
            try await Bed.use { bed in
                let system = try bed.system(workers: 1)
                let watch = try bed.start(
                    Tool.testTasks.path,
                    ["config", "watch", "--home", bed.home]
                )
                #expect(try bed.command("config", "set", "worker.slots", "none").code == 64)
                #expect(try bed.command("config", "set", "worker.slots", "1").code == 0)
                try bed.wait("the watcher to hear it") {
                    watch.output.lines.contains("worker.slots=1")
                }
                try system.waitForLog(["worker[", "slots changed", "slots=1"])
                try expectOneAtATime(bed, system)

                #expect(try system.stop().code == 0)
                let next = try bed.system(workers: 1)
                try next.waitForLog(["worker[", "slots changed", "slots=1"])
                #expect(
                    try bed.command("config", "get", "worker.slots").output == "worker.slots=1\n"
                )
                try expectOneAtATime(bed, next)
                #expect(try bed.command("config", "unset", "worker.slots").code == 0)
                try next.waitForLog(["worker[", "slots changed", "slots=10"])
            }
        }

        /// Runs tasks until each of these components has logged an arrow: they hear of the level
        /// one after the other.
        private func hearDebugLines(of roles: [String], _ bed: Bed, _ system: System) throws {
            for _ in 0..<20 {
                let id = try bed.add("echo", "\"x\"")
                #expect(try bed.finalRecord(id)["status"].text == "success")
                bed.turn(waitingMilliseconds: 0)
                let arrows = system.log.lines(with: [" debug ", "task="])
                let heard = roles.filter { role in arrows.contains { $0.contains(" \(role)[") } }
                if heard == roles { return }
            }
            throw Failure("not all of \(roles) log their arrows")
        }

        /// Of three tasks that hold, none begins while another runs.
        private func expectOneAtATime(_ bed: Bed, _ system: System) throws {
            let before = bed.executions("hold").count
            let ids = try (0..<3).map { try bed.add("hold", "\"\($0)\"") }
            for turn in 1...3 {
                try bed.waitForEvents("hold", count: before + turn)
                // time for another to begin if it could
                #expect(try bed.command("stats", "inspect", "workers", "--json").code == 0)
                #expect(bed.executions("hold").count == before + turn)
                bed.openGate()
            }
            for id in ids { #expect(try bed.finalRecord(id)["status"].text == "success") }
        }
    }
}
