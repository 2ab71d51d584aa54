// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import QTasksProcess
import Testing

extension `A running system` {
    /// Promises P1, P4 and P5.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `kill -9 of the Starter` {
        @Test
        func `under load, and the next run finishes all, counts no death and answers who waited`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system()
                let app = bed.client()
                let holding = try await app.addTasks(
                    (0..<2).map { TaskSubmission(name: "hold", arguments: Array("\"\($0)\"".utf8)) }
                )
                try bed.waitForEvents("hold", count: 2)
                let waiter = Task.detached { try await app.ends(of: holding) }
                let load = (0..<400).map {
                    TaskSubmission(name: "echo", arguments: Array("\"\($0)\"".utf8))
                }
                let adding = Task.detached {
                    for start in stride(from: 0, to: load.count, by: 20) {
                        try await app.addTasks(Array(load[start..<start + 20]))
                    }
                }
                try bed.waitForEvents("echo", count: 20)
                let processes = try system.members().map { try $0.identity }
                kill(system.program.pid, SIGKILL)
                // at once, as systemd may: the old system's processes are still on their way out
                let next = try bed.system()
                #expect(processes.allSatisfy { !$0.isAlive })
                try await adding.value
                #expect(try await app.ends(of: load.map(\.id)) == (0..<400).map { "\"\($0)\"" })
                try bed.waitForEvents("hold", count: 4)
                bed.openGate(for: 4)
                #expect(try await waiter.value == ["\"0\"", "\"1\""])
                for id in holding {
                    let record = try bed.finalRecord("\(id)")
                    #expect(record["deaths"].integer == 0)
                    #expect(record["attempt"].integer == 2)
                }
                #expect(next.log.lines(with: ["exit code 78"]).isEmpty)
            }
        }

        @Test
        func `is survived by a next run that finds a Storage which hasn't ended yet`() async throws
        {
            try await Bed.use { bed in
                let system = try bed.system(workers: 0)
                _ = try system.stop()
                // what a slow disk makes of one that was killed
                let holder = try bed.holdLockUntilAwaited(bed.home + "/storage.lock")
                let next = System(
                    bed: bed,
                    program: try bed.start(Tool.testTasks.path, ["run", "--home", bed.home])
                )
                try next.waitForLog(["event=ready"])
                #expect(holder.report?.cause == .exited(code: 0), "it wasn't killed")
            }
        }
    }

    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `With --until-idle` {
        @Test
        func `ends by itself once nothing is queued, scheduled or running`() async throws {
            try await Bed.use { bed in
                let system = try bed.system(workers: 0)
                let ids = try (0..<20).map { try bed.add("echo", "\"\($0)\"") }
                let delayed = try bed.add("echo", "\"late\"", "--delay", "0.5")
                _ = try system.stop()
                let last = try bed.run(
                    Tool.testTasks.path,
                    ["run", "--home", bed.home, "--workers", "2", "--until-idle"]
                )
                #expect(last.code == 0)
                #expect(bed.executions("echo").count == 21)
                _ = try bed.system(workers: 0)
                for id in ids + [delayed] {
                    #expect(try bed.record(id)["status"].text == "success")
                }
            }
        }
    }

    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `What a dead worker leaves` {
        @Test
        func `are its last words and its exit code`() async throws {
            try await Bed.use { bed in
                let system = try bed.foreignSystem(workers: 1)
                _ = try bed.add("die", "\"goodbye, cruel world\"")
                try system.waitForLog([
                    "broker[", "event=\"worker reaped\"", "exit code 7",
                    "stderr=\"goodbye, cruel world\"",
                ])
                // and they have gone where all lines go
                #expect(system.log.lines.contains("goodbye, cruel world"))
            }
        }

        @Test
        func `keeps nobody waiting where standard error is full and nobody reads it (P7)`()
            async throws
        {
            try await Bed.use { bed in
                let held = bed.folder + "/held"
                try #require(mkfifo(held, 0o600) == 0)
                let descriptor = open(held, O_RDWR | O_CLOEXEC)
                defer { close(descriptor) }
                let run = [
                    "exec '\(Tool.qtasks.path)' run --home '\(bed.home)' --workers 3 --grace 0.2",
                    "--worker-command \"\(try bed.foreignCommand())\" 2>'\(held)'",
                ]
                let program = try bed.start("/bin/sh", ["-c", run.joined(separator: " ")])
                let app = bed.client()
                _ = try await app.addTasks([
                    TaskSubmission(name: "flood", arguments: Array("0".utf8))
                ])
                try bed.waitForEvents("flood")
                let ids = try await app.addTasks(
                    [TaskSubmission(name: "hold", arguments: Array("\"kept\"".utf8))]
                )
                try bed.waitForEvents("hold")
                kill(try #require(bed.executions("hold").first).worker, SIGKILL)
                try bed.waitForEvents("hold", count: 2)
                bed.openGate()
                #expect(try await app.ends(of: ids) == ["\"kept\""])
                kill(program.pid, SIGTERM)
                try bed.wait("the system's end") { program.report != nil }
                #expect(program.report?.cause == .exited(code: 0))
            }
        }

        @Test
        func `is told also where the Broker has died beside it`() async throws {
            try await Bed.use { bed in
                let system = try bed.foreignSystem(workers: 1)
                let broker = try system.member("broker").pid
                let worker = try system.member("worker").pid
                let mark = system.log.lines.count
                kill(broker, SIGKILL)
                kill(worker, SIGKILL)
                try system.waitForLog(
                    ["broker[", "event=\"worker reaped\"", "killed by signal 9", "pid=\(worker)"],
                    from: mark
                )
            }
        }
    }
}

extension Bed {
    /// A process that holds a lock file of another run, and says so in it, until somebody waits for it.
    func holdLockUntilAwaited(_ path: String) throws -> Program {
        // the kernel lists who waits behind an arrow
        let script = """
            exec 9<>'\(path)'; flock 9; start=$(cut -d' ' -f22 /proc/$$/stat)
            printf 'run 00\\npid %s\\nstart %s\\n' $$ $start > '\(path)'; echo held
            until grep -q -e "-> FLOCK .*:$(stat -c %i '\(path)') " /proc/locks; do :; done
            """
        let program = try start("/bin/sh", ["-c", script])
        try wait("the lock to be held") { !program.output.lines.isEmpty }
        return program
    }
}
