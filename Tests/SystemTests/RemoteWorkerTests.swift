// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess
import Testing

extension `A running system` {
    /// Promises P2 and P4 where the kernel can't tell the Broker who lives: heartbeats must do.
    @MainActor
    @Suite(
        .serialized,
        .timeLimit(.minutes(2)),
        .enabled(if: PidNamespace.isAllowed, "unshare(1) can't make a pid namespace here")
    )
    struct `A worker in a pid namespace of its own` {
        @Test
        func `runs tasks, and leaves them to others once nothing was heard of it for long`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system(workers: 0)
                let remote = try bed.remoteWorker()
                try system.waitForLog(["broker[", "event=\"worker joined\""])
                let told = try bed.command("stats", "inspect", "workers", "--json").json
                #expect(told["workers"].list.map { $0["remote"] } == [.truth(true)])

                let id = try bed.add("hold", "\"x\"")
                try bed.waitForEvents("hold")
                // as idle as it is, it goes on being heard of
                bed.pass(.seconds(11))
                #expect(system.log.lines(with: ["event=\"worker silent\""]).isEmpty)

                let process = try #require(ProcFile.descendants(of: remote.pid).first)
                kill(process, SIGSTOP)
                _ = try bed.start(Tool.testTasks.path, ["worker", "--home", bed.home])
                try bed.waitForEvents("hold", count: 2, within: 30)
                let attempts = bed.executions("hold")
                #expect(attempts.map(\.task) == [id, id])
                #expect(attempts.map(\.attempt) == [1, 2])
                #expect(!system.log.lines(with: ["event=\"worker silent\""]).isEmpty)
                #expect(ProcFile.descendants(of: remote.pid) == [process], "it was left alone")

                bed.openGate()
                let record = try bed.finalRecord(id)
                #expect(record["status"].text == "success")
                #expect(record["attempt"].integer == 2)
                #expect(record["deaths"].integer == 0, "a silence is no death")
                let story = try bed.command("explain", id).output
                #expect(story.contains("nothing was heard of its worker"))
                let causes = try bed.command("explain", id, "--json").json["events"].list
                    .compactMap { $0["cause"].text }
                #expect(causes == ["silence"])

                // it comes back with a result that is nobody's any more
                let mark = system.log.lines.count
                bed.openGate()
                kill(process, SIGCONT)
                try system.waitForLog(["broker[", "event=\"worker joined\""], from: mark)
                #expect(try bed.record(id) == record)
                let next = try (0..<10).map { try bed.add("echo", "\"\($0)\"") }
                for id in next { #expect(try bed.finalRecord(id)["status"].text == "success") }
            }
        }

        @Test
        func `keeps what it runs through a new Broker, and is given up once it was killed`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system(workers: 0)
                let remote = try bed.remoteWorker()
                try system.waitForLog(["broker[", "event=\"worker joined\""])
                let id = try bed.add("hold", "\"x\"")
                try bed.waitForEvents("hold")
                try system.killAndAwaitReplacement(of: "broker")
                try system.waitForLog(["broker[", "event=\"worker joined\""], count: 2)
                bed.pass(.seconds(11))
                #expect(system.log.lines(with: ["event=\"worker silent\""]).isEmpty)
                #expect(bed.executions("hold").count == 1)

                // dead while the Broker is: only the log knows of it
                let process = try #require(ProcFile.descendants(of: remote.pid).first)
                let broker = try system.member("broker").pid
                kill(process, SIGKILL)
                kill(broker, SIGKILL)
                _ = try bed.start(Tool.testTasks.path, ["worker", "--home", bed.home])
                try bed.waitForEvents("hold", count: 2, within: 30)
                bed.openGate()
                let record = try bed.finalRecord(id)
                #expect(record["attempt"].integer == 2 && record["deaths"].integer == 0)
            }
        }
    }
}

extension Bed {
    /// A worker of TestTasks, started by hand, that names a pid which isn't its own out here.
    func remoteWorker() throws -> Program {
        try start(
            "/usr/bin/unshare",
            PidNamespace.options + [Tool.testTasks.path, "worker", "--home", home]
        )
    }
}

/// How this host lets a program have a pid namespace of its own, if it does.
enum PidNamespace {
    /// What unshare(1) is told; empty: no way works.
    static let options: [String] = {
        let ways = [[], ["--user", "--map-root-user"]].map {
            $0 + ["--pid", "--fork", "--kill-child", "--mount-proc"]
        }
        return ways.first { way in
            Glibc.system("/usr/bin/unshare \(way.joined(separator: " ")) true 2>/dev/null") == 0
        } ?? []
    }()

    static var isAllowed: Bool { !options.isEmpty }
}
