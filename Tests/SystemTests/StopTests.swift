// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

extension `A running system` {
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `Being stopped` {
        /// Lines of the stop's steps at the default level, in the order of the design.
        private static let steps = [
            ["starter[", "asked to stop"], ["broker[", "event=drained"],
            ["globalconfig[", "event=stopped"], ["storage[", "event=stopped"],
            ["starter[", "the Broker has stopped"], ["worker[", "worker ended"],
            ["starter[", "event=stopped"],
        ]

        @Test
        func `lets running tasks end, then stops all in the reverse order of the start`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system()
                let id = try bed.add("hold", "\"kept\"")
                try bed.waitForEvents("hold")
                kill(system.program.pid, SIGTERM)
                try system.waitForLog(["broker[", "event=draining"])
                #expect(try bed.command("add", "echo", "\"x\"", "--timeout", "0.2").code == 75)
                bed.openGate()
                let finished = try system.end(within: 5)  // sooner than the grace of 10 s
                #expect(finished.code == 0)
                let places = Self.steps.map { step in
                    system.log.lines.firstIndex { line in step.allSatisfy { line.contains($0) } }
                }
                #expect(places.compactMap(\.self).count == Self.steps.count, "\(places)")
                #expect(
                    places.compactMap(\.self) == places.compactMap(\.self).sorted(),
                    "\(places)"
                )
                #expect(ProcFile.names(in: bed.home + "/sockets").isEmpty)

                _ = try bed.system()
                #expect(try bed.record(id)["result"].text == "kept")
                #expect(bed.executions("hold").count == 1)
            }
        }

        @Test
        func `kills what runs on after its grace, and keeps it queued, uncounted (behaviour 10)`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system(workers: 1, "--slots", "1", "--grace", "0.5")
                let running = try bed.add("hold", "\"running\"")
                try bed.waitForEvents("hold")
                let waiting = try bed.add("echo", "\"waiting\"")
                let finished = try system.stop(within: 5)
                #expect(finished.code == 0)
                #expect(ProcFile.names(in: bed.home + "/sockets").isEmpty)

                _ = try bed.system(workers: 1, "--slots", "1")
                try bed.waitForEvents("hold", count: 2)
                bed.openGate()
                try bed.waitForEvents("echo \(waiting)")
                let record = try bed.finalRecord(running)
                #expect(record["status"].text == "success")
                #expect(record["attempt"].integer == 2)
                #expect(record["deaths"].integer == 0, "we killed it")
            }
        }

        @Test
        func `happens at once by a second signal, and loses nothing`() async throws {
            try await Bed.use { bed in
                let system = try bed.system()
                let id = try bed.add("hold", "\"x\"")
                try bed.waitForEvents("hold")
                kill(system.program.pid, SIGTERM)
                try system.waitForLog(["broker[", "event=draining"])
                // one request may arrive twice: a second one comes more than 200 ms later
                bed.pass(.milliseconds(250))
                let finished = try system.stop(within: 2)
                #expect(finished.code == 0)
                #expect(ProcFile.names(in: bed.home + "/sockets").isEmpty)

                _ = try bed.system()
                try bed.waitForEvents("hold \(id)", count: 2)
                bed.openGate()
                #expect(try bed.finalRecord(id)["deaths"].integer == 0)
            }
        }

        @Test(arguments: [SIGINT, SIGTERM])
        func `is no other where the signal reaches every process`(signal: Int32) async throws {
            try await Bed.use { bed in
                let system = try bed.system()
                let id = try bed.add("hold", "\"kept\"")
                try bed.waitForEvents("hold")
                // Ctrl-C reaches a foreground group, systemd signals all of a control group
                let members = try system.members()
                for member in members { kill(member.pid, signal) }
                try system.waitForLog(["broker[", "event=draining"])
                bed.openGate()
                #expect(try system.end(within: 5).code == 0)
                _ = try bed.system()
                #expect(try bed.record(id)["result"].text == "kept")
                #expect(bed.executions("hold").count == 1)
            }
        }
    }
}
