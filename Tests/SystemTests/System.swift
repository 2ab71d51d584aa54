// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess

/// A running system: a program with the command `run`, and the processes below it.
@MainActor
struct System {
    let bed: Bed
    let program: Program

    /// One process as `stats inspect app` shows it.
    struct Member: Hashable {
        let role: String
        let pid: Int32
        let parent: Int32?

        /// - Throws: ``Failure`` where it has ended.
        var identity: ProcessIdentity {
            get throws {
                guard let identity = ProcessIdentity.of(pid: pid) else {
                    throw Failure("\(role) \(pid) is gone")
                }
                return identity
            }
        }
    }

    var log: LineSource { program.log }

    /// All its processes, by its own word.
    func members() throws -> [Member] {
        let finished = try bed.command("stats", "inspect", "app", "--json")
        return try finished.json["processes"].list.map { entry in
            guard let role = entry["role"].text, let pid = entry["pid"].integer else {
                throw Failure("a process without role or pid: \(finished.output)")
            }
            let parent = entry["parent"].integer.map { Int32($0) }
            return Member(role: role, pid: Int32(pid), parent: parent)
        }
    }

    /// The one process with that role.
    func member(_ role: String) throws -> Member {
        guard let member = try members().first(where: { $0.role == role }) else {
            throw Failure("there is no \(role)")
        }
        return member
    }

    /// SIGKILL to the one process with that role; returns when the system has all of them again.
    func killAndAwaitReplacement(of role: String) throws {
        let mark = log.lines.count
        kill(try member(role).pid, SIGKILL)
        let signs: [String: [String]] = [
            "broker": ["broker[", "event=\"storage opened\""],
            "storage": ["broker[", "event=\"storage opened\""],
            "globalconfig": ["globalconfig[", "event=opened"],
            "worker": ["broker[", "event=\"worker joined\""],
        ]
        try waitForLog(signs[role] ?? [], from: mark)
    }

    /// Until a line with all of `parts` is logged.
    func waitForLog(
        _ parts: [String],
        from mark: Int = 0,
        count: Int = 1,
        within seconds: Int = 10
    ) throws {
        try bed.wait("\(count) log lines with \(parts)", within: seconds) {
            log.lines(with: parts, from: mark).count >= count
        }
    }

    /// SIGTERM, and the exit code that follows.
    func stop(_ signal: Int32 = SIGTERM, within seconds: Int = 10) throws -> Finished {
        kill(program.pid, signal)
        return try end(within: seconds)
    }

    /// Until its first and last process has ended.
    func end(within seconds: Int = 10) throws -> Finished {
        try bed.wait("the system's end", within: seconds) {
            program.report != nil && program.log.isAtEnd
        }
        return Finished(program)
    }
}

extension Bed {
    /// Starts a system at this home, and waits until it serves and its workers have joined.
    func system(
        _ tool: Tool = .testTasks,
        workers: Int = 2,
        _ options: String...
    ) throws -> System {
        try system(tool, workers: workers, options)
    }

    /// The same with a list of options.
    func system(_ tool: Tool, workers: Int, _ options: [String]) throws -> System {
        let all = ["run", "--home", home, "--workers", "\(workers)"] + options
        let system = System(bed: self, program: try start(tool.path, all))
        try wait("the system to be ready") {
            system.program.report != nil
                || !system.log.lines(with: ["event=ready"]).isEmpty
                    && system.log.lines(with: ["event=\"worker joined\""]).count >= workers
        }
        guard system.program.report == nil else {
            throw Failure("the system ended: \(Finished(system.program))")
        }
        return system
    }

    /// What is known of a task now.
    func record(_ id: String) throws -> JSON {
        try command("get", id, "--json").json
    }
}
