// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import QTasksProcess
import Testing

/// A fresh folder with a home in it, and all processes that one test starts.
///
/// The main actor does it all: whatever a test waits for, ``wait(_:within:until:)`` meanwhile reads
/// what every program writes and reaps those that end.
@MainActor
final class Bed {
    private let scratch: TemporaryFolder

    /// What tasks of TestTasks report, one line for each.
    let events: LineSource

    private let gate: Int32
    private var programs: [Program] = []
    private var connections: [QueueTasks] = []
    private var descriptorsToWatch: [Int32] = []

    /// Removed at the end, with all that is in it.
    var folder: String { scratch.path }
    var home: String { folder + "/home" }

    /// Gives a test its bed, and clears it away however the test ends.
    ///
    /// Where it throws, what the programs logged and how they ended becomes part of the failure.
    static func use(_ body: @MainActor (Bed) async throws -> Void) async throws {
        let bed = try Bed()
        do {
            try await body(bed)
        } catch {
            bed.turn(waitingMilliseconds: 0)
            let told = bed.programs.map { program in
                let state = program.report.map { "\($0)" } ?? "still running"
                return (program.log.lines.suffix(80) + [state]).joined(separator: "\n")
            }
            Issue.record("\(error)\n\(told.joined(separator: "\n--\n"))")
        }
        try bed.end()
    }

    private init() throws {
        scratch = try TemporaryFolder()
        let folder = scratch.path
        events = LineSource(owning: try Self.fifo(at: folder + "/events"))
        gate = try Self.fifo(at: folder + "/gate")
    }

    /// Both directions, so that neither end ever waits for the other to be opened.
    private static func fifo(at path: String) throws -> Int32 {
        guard mkfifo(path, 0o600) == 0 else { throw Failure("mkfifo \(path): errno \(errno)") }
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { throw Failure("open \(path): errno \(errno)") }
        return descriptor
    }

    /// Kills what still runs, and checks that nothing outlives its Starter.
    private func end() throws {
        for connection in connections { connection.close() }
        for program in programs where program.report == nil { program.child.killGroup() }
        defer {
            close(gate)
            umount2(home, Int32(MNT_DETACH))
            scratch.remove()
        }
        // whoever has the log's other end is a process of that system
        try wait("the end of every process", within: 5) {
            programs.allSatisfy { $0.report != nil && $0.log.isAtEnd }
        }
    }

    /// Lets `count` tasks that hold go on.
    func openGate(for count: Int = 1) {
        let permits = [UInt8](repeating: 1, count: count)
        _ = write(gate, permits, count)
    }

    // MARK: Programs

    /// Starts a program.
    func start(_ path: String, _ arguments: [String]) throws -> Program {
        let program = try Program(
            path,
            arguments,
            environment: [
                "TESTTASKS_EVENTS": folder + "/events", "TESTTASKS_GATE": folder + "/gate",
                "TMPDIR": folder, "SWIFT_BACKTRACE": "enable=no", "PYTHONDONTWRITEBYTECODE": "1",
            ]
        )
        programs.append(program)
        return program
    }

    /// Runs a program to its end.
    @discardableResult
    func run(_ path: String, _ arguments: [String], within seconds: Int = 20) throws -> Finished {
        let program = try start(path, arguments)
        try wait("the end of '\(arguments.joined(separator: " "))'", within: seconds) {
            program.report != nil && program.output.isAtEnd
        }
        return Finished(program)
    }

    /// Runs a command of TestTasks at this home.
    @discardableResult
    func command(_ arguments: String...) throws -> Finished {
        try run(Tool.testTasks.path, arguments + ["--home", home])
    }

    /// Adds a task by the command line, and gives its ID.
    func add(_ name: String, _ arguments: String = "null", _ options: String...) throws -> String {
        let all = ["add", name, arguments, "--home", home] + options
        let finished = try run(Tool.testTasks.path, all)
        guard finished.code == 0 else { throw Failure("add \(name): \(finished.log)") }
        return finished.output.trimmingWhitespace
    }

    /// A client in this process.
    func client() -> QueueTasks {
        let app = QueueTasks("bed", home: home, waitForSystem: true)
        connections.append(app)
        return app
    }

    // MARK: Waiting

    /// Turns until `isTrue` says so, which is asked after every event.
    ///
    /// - Throws: ``Failure`` where the time is over, naming `what`.
    func wait(_ what: String, within seconds: Int = 10, until isTrue: () -> Bool) throws {
        let end = ContinuousClock.now + .seconds(seconds)
        turn(waitingMilliseconds: 0)
        while !isTrue() {
            let left = end - ContinuousClock.now
            guard left > .zero else { throw Failure("waited \(seconds) s for \(what)") }
            turn(waitingMilliseconds: Int32(left / .milliseconds(1)) + 1)
        }
    }

    /// Lets time pass, where the test is about time itself or what does not happen meanwhile.
    func pass(_ time: Duration) {
        let end = ContinuousClock.now + time
        while end > .now {
            turn(waitingMilliseconds: Int32((end - .now) / .milliseconds(1)) + 1)
        }
    }

    /// Until all these processes have ended.
    func waitForEnd(of processes: [ProcessIdentity], within seconds: Int = 10) throws {
        let handles = try processes.compactMap { process in
            try PidDescriptor.open(process)
        }
        descriptorsToWatch = handles.map(\.descriptor)
        defer { descriptorsToWatch = [] }
        try wait("the end of \(processes)", within: seconds) {
            // an ended one stays readable: only the others are worth waiting for
            descriptorsToWatch = handles.filter { !$0.hasEnded }.map(\.descriptor)
            return descriptorsToWatch.isEmpty
        }
    }

    /// Until `count` executions have been reported in all that begin with `words`.
    func waitForEvents(_ words: String..., count: Int = 1, within seconds: Int = 10) throws {
        try wait("\(count) times '\(words)'", within: seconds) {
            events.lines(with: words).count >= count
        }
    }

    /// What reports with all of `words` say: task, attempt and worker of each.
    func executions(_ words: String...) -> [Execution] {
        turn(waitingMilliseconds: 0)
        return events.lines(with: words).compactMap(Execution.init)
    }

    func turn(waitingMilliseconds: Int32) {
        var items = descriptorsToWatch
        for program in programs {
            if program.report == nil { items.append(program.child.pidfd) }
            if !program.output.isAtEnd { items.append(program.output.descriptor) }
            if !program.log.isAtEnd { items.append(program.log.descriptor) }
        }
        items.append(events.descriptor)
        var polled = items.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        poll(&polled, nfds_t(polled.count), waitingMilliseconds)
        for program in programs { program.turn() }
        events.drain()
    }
}

/// A program that has ended.
struct Finished {
    /// Its exit code, or minus the signal that ended it.
    let code: Int32
    let output: String
    let log: String

    @MainActor
    init(_ program: Program) {
        switch program.report?.cause {
        case .exited(let code): self.code = code
        case .signaled(let number): code = -number
        case nil: code = -1
        }
        output = program.output.text
        log = program.log.text
    }

    /// Its standard output as JSON.
    var json: JSON {
        get throws { try JSON(output) }
    }
}

/// One line of a task of TestTasks.
struct Execution: Hashable {
    let what: String
    let task: String
    let attempt: Int
    let worker: Int32

    init?(_ line: String) {
        let words = line.split(separator: " ").map(String.init)
        guard words.count == 4, let attempt = Int(words[2]), let worker = Int32(words[3]) else {
            return nil
        }
        (what, task, self.attempt, self.worker) = (words[0], words[1], attempt, worker)
    }
}

extension String {
    var trimmingWhitespace: String {
        String(drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
    }
}
