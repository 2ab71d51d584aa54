// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import QTasksProcess
import Testing

extension `A running system` {
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `Its workers' successors` {
        @Test
        func `come one by one in a rolling restart, while tasks go on and none is lost`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system()
                let before = try system.workers()
                let id = try bed.add("hold", "\"kept\"")
                try bed.waitForEvents("hold")
                let restart = try bed.start(
                    Tool.testTasks.path,
                    ["restart", "--rolling", "--home", bed.home]
                )
                // the first of them has gone, or waits for the task that it runs
                try system.waitForLog(["broker[", "event=\"worker joined\""], count: 3)
                let ids = try (0..<10).map { try bed.add("echo", "\"\($0)\"") }
                for id in ids { #expect(try bed.finalRecord(id)["deaths"].integer == 0) }
                #expect(restart.report == nil, "it waits for the task that runs")
                bed.openGate()
                try bed.wait("the restart's end") { restart.report != nil }
                #expect(restart.report?.cause == .exited(code: 0))
                let after = try system.workers()
                #expect(after.count == 2)
                #expect(after.isDisjoint(with: before))
                let record = try bed.finalRecord(id)
                #expect(record["attempt"].integer == 1, "it ended where it ran")
                #expect(try system.deaths() == 0)
            }
        }

        @Test
        func `come at SIGHUP too, where standard input is no terminal`() async throws {
            try await Bed.use { bed in
                let system = try bed.system()
                let before = try system.workers()
                kill(system.program.pid, SIGHUP)
                try system.waitForLog(["starter[", "the workers have been replaced"])
                #expect(try system.workers().isDisjoint(with: before))
                #expect(try bed.command("add", "echo", "\"here\"", "--wait").output == "\"here\"\n")
            }
        }

        @Test
        func `don't come at SIGHUP where standard input is a terminal: the system stops`()
            async throws
        {
            try await Bed.use { bed in
                // a program with a terminal of its own, whose log comes here all the same
                let script = """
                    import os, pty, sys
                    log = os.dup(2)
                    pid, terminal = pty.fork()
                    if pid == 0:
                        os.dup2(log, 2)
                        os.execv(sys.argv[1], sys.argv[1:])
                    os.close(log)
                    print(pid, flush=True)
                    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    """
                let run = [Tool.testTasks.path, "run", "--home", bed.home, "--workers", "1"]
                let program = try bed.start("/usr/bin/python3", ["-c", script] + run)
                let system = System(bed: bed, program: program)
                try system.waitForLog(["broker[", "event=\"worker joined\""])
                kill(try #require(program.output.lines.first.flatMap { Int32($0) }), SIGHUP)
                let finished = try system.end()
                #expect(finished.code == 0)
                #expect(finished.log.contains("signal=SIGHUP"))
            }
        }

        @Test
        func `are of the program that has the path now, and none come where that is broken`()
            async throws
        {
            try await Bed.use { bed in
                let path = bed.folder + "/program"
                try bed.run("/bin/cp", [Tool.testTasks.path, path])
                let system = System(
                    bed: bed,
                    program: try bed.start(path, ["run", "--home", bed.home, "--workers", "1"])
                )
                try system.waitForLog(["broker[", "event=\"worker joined\""])
                let before = try system.workers()
                try bed.run("/bin/mv", [path, path + ".old"])
                try bed.run("/bin/cp", ["/bin/false", path])
                let broken = try bed.command("restart", "--rolling")
                #expect(broken.code == 78)
                #expect(broken.log.contains("exit code 1"))
                #expect(try system.workers() == before)

                try bed.run("/bin/cp", [Tool.testTasks.path, path + ".new"])
                try bed.run("/bin/mv", [path + ".new", path])
                #expect(try bed.command("restart", "--rolling").code == 0)
                let after = try #require(try system.workers().first)
                #expect(ProcFile.target(ofLink: "/proc/\(after)/exe") == path)
                let starter = system.program.pid
                #expect(ProcFile.target(ofLink: "/proc/\(starter)/exe") == path + ".old")
            }
        }

        @Test
        func `come without a pause or a death after their share of tasks`() async throws {
            try await Bed.use { bed in
                let system = try bed.system(.testTasks, workers: 1, ["--recycle-tasks", "2"])
                for number in 0..<12 {
                    let added = try bed.command("add", "echo", "\"\(number)\"", "--wait")
                    #expect(added.output == "\"\(number)\"\n")
                }
                let workers = Set(bed.executions("echo").map(\.worker))
                #expect((4...7).contains(workers.count), "\(workers)")
                #expect(system.log.lines(with: ["starter[", "killed by"]).isEmpty)
                #expect(try system.deaths() == 0)
            }
        }

        @Test
        func `come where one of another language has become too large, between tasks`() async throws
        {
            try await Bed.use { bed in
                let system = try bed.foreignSystem(workers: 1, ["--recycle-rss", "300MiB"])
                let first = try system.workers()
                try bed.command("add", "grow", "100", "--wait")
                #expect(try system.workers() == first)
                try bed.command("add", "grow", "400", "--wait")
                try system.waitForLog(["broker[", "event=\"worker joined\""], count: 2)
                #expect(try system.workers().isDisjoint(with: first))
            }
        }

        @Test
        func `have the limits that were asked for, in whatever language`() async throws {
            try await Bed.use { bed in
                let limits = [
                    "--limit-as", "3GiB", "--limit-cpu", "1000", "--limit-nofile", "100", "--nice",
                    "7",
                ]
                for isForeign in [true, false] {
                    let system =
                        isForeign
                        ? try bed.foreignSystem(workers: 1, limits)
                        : try bed.system(.testTasks, workers: 1, limits)
                    let worker = try #require(try system.workers().first)
                    let text = ProcFile.text(at: "/proc/\(worker)/limits")
                    func limit(_ name: String) -> String? {
                        text.split(separator: "\n").first { $0.hasPrefix(name) }
                            .map { $0.dropFirst(26).split(separator: " ")[0] }.map(String.init)
                    }
                    #expect(limit("Max address space") == "\(3 << 30)")
                    #expect(limit("Max cpu time") == "1000")
                    #expect(limit("Max open files") == "100")
                    let stat = ProcFile.text(at: "/proc/\(worker)/stat")
                    let fields = stat.split(separator: ")").last.map { $0.split(separator: " ") }
                    #expect(fields?[16] == "7")
                    #expect(try system.stop().code == 0)
                }
            }
        }
    }
}

extension System {
    /// Pids of the workers that are there.
    func workers() throws -> Set<Int32> {
        Set(try members().filter { $0.role == "worker" }.map(\.pid))
    }

    /// How many workers have died, by the Broker's count.
    func deaths() throws -> Int? {
        try bed.command("stats", "inspect", "workers", "--json").json["deaths"].integer
    }
}
