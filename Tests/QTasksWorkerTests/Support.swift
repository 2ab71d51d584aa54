// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire

@testable import QTasksWorker

/// A worker's core in virtual time, and the test in the Broker's place.
struct Bench {
    static let second: UInt64 = 1_000_000_000
    static let millisecond: UInt64 = 1_000_000

    static let identity = WorkerState.Identity(
        worker: WorkerID(high: 7, low: 9),
        process: WorkerProcess(pid: 42, startTime: 4711, bootID: TaskID(high: 1, low: 2)),
        parentPid: 41
    )

    var state: WorkerState
    var now = Now(wall: Timestamp(nanoseconds: 1_000_000_000_000), monotonic: 50 * Bench.second)
    var effects = WorkerEffects()

    /// Leases whose tasks were started, in order.
    var started: [Lease] = []
    /// What went to the Broker, taken apart.
    var said: [Said] = []
    /// Results that went to Storage, in order.
    var pushed: [ResultEntry] = []
    /// Bytes of the messages that they went in.
    var pushedBytes: [Int] = []
    /// Leases whose tasks were to be cancelled.
    var cancelled: [Lease] = []
    var notes: [WorkerNote] = []

    enum Said: Equatable {
        case running([RunningAttempt])
        case hello(Hello)
        case credit(UInt64)
        case handBack([Holding])
        case unreadable([Holding])
        case goodbye
        case heartbeat
    }

    static let plain = [handler("work")]

    static func handler(
        _ name: String,
        retry: RetryPolicy = .none,
        retryIf: (@Sendable (any Error) -> Bool)? = nil,
        timeLimit: Duration? = nil
    ) -> TaskHandler {
        TaskHandler(
            name: name,
            retry: retry,
            retryIf: retryIf,
            timeLimit: timeLimit,
            kind: .async { arguments, _ in arguments }
        )
    }

    init(handlers: [TaskHandler] = Bench.plain, slots: Int = 2, seed: UInt64 = 1) {
        state = WorkerState(identity: Self.identity, handlers: handlers, slots: slots, seed: seed)
    }

    /// A bench that was welcomed and reconciled.
    static func inSession(
        handlers: [TaskHandler] = Bench.plain,
        slots: Int = 2
    ) throws -> Bench {
        var bench = Bench(handlers: handlers, slots: slots)
        try bench.welcome()
        try bench.reconcile([])
        return bench
    }

    // MARK: Events

    mutating func turn() throws {
        state.endTurn(now: now, into: &effects)
        started += effects.starts.map(\.lease)
        cancelled += effects.cancels.map(\.lease)
        notes += effects.notes
        for message in effects.toBroker { said.append(try Self.takeApart(message)) }
        for message in effects.toStorage {
            pushedBytes.append(message.count)
            pushed += try Self.results(in: message)
        }
    }

    /// Time passes; timers are served when they are due.
    mutating func pass(_ nanoseconds: UInt64) throws {
        let end = now.monotonic + nanoseconds
        while let deadline = state.nextDeadline, deadline <= end {
            advance(to: max(deadline, now.monotonic))
            state.timer(now: now)
            try turn()
        }
        advance(to: end)
    }

    private mutating func advance(to monotonic: UInt64) {
        let passed = Int64(monotonic - now.monotonic)
        now.wall = Timestamp(nanoseconds: now.wall.nanoseconds + passed)
        now.monotonic = monotonic
    }

    mutating func hear(_ bytes: [UInt8]) throws {
        bytes.withUnsafeBytes { state.receive($0, now: now) }
        try turn()
    }

    mutating func welcome(incarnation: UInt32 = 1, maxPayload: UInt32 = 1 << 24) throws {
        let welcome = Welcome(
            incarnation: incarnation,
            maxPayload: maxPayload,
            windowTasks: 1000,
            brokerPid: 43
        )
        try hear(welcome.encoded())
    }

    mutating func reconcile(_ entries: [(Lease, ReconcileVerdict)]) throws {
        var writer = WireWriter(.reconciled)
        for (lease, verdict) in entries {
            writer.integer(lease.rawValue)
            writer.u8(verdict.rawValue)
        }
        try hear(writer.bytes)
    }

    mutating func work(
        _ leases: some Sequence<UInt32>,
        acknowledging acknowledged: [Lease] = [],
        name: String = "work",
        timeLimitMilliseconds: UInt64? = nil,
        failures: UInt32 = 0,
        maxAttempts: UInt32? = nil
    ) throws {
        var writer = Self.beginWork(acknowledging: acknowledged)
        for number in leases {
            var submission = TaskSubmission(
                id: Self.id(number),
                name: name,
                arguments: Array("[\(number)]".utf8)
            )
            submission.timeLimitMilliseconds = timeLimitMilliseconds
            submission.maxAttempts = maxAttempts
            try Self.write(submission, lease: Self.lease(number), failures: failures, to: &writer)
        }
        try hear(writer.bytes)
    }

    mutating func acknowledge(_ leases: [Lease]) throws {
        try hear(Self.beginWork(acknowledging: leases).bytes)
    }

    mutating func softCancel(_ leases: [Lease]) throws {
        var writer = WireWriter(.softCancel)
        writer.integer(UInt32(leases.count))
        for lease in leases { writer.integer(lease.rawValue) }
        try hear(writer.bytes)
    }

    mutating func notice() throws {
        var writer = WireWriter(.notice)
        writer.integer(UInt32(2))
        try hear(writer.bytes)
    }

    mutating func finish(
        _ number: UInt32,
        _ outcome: TaskOutcome = .success(result: [1], contentType: nil)
    ) throws {
        let end = AttemptEnd(
            lease: Self.lease(number),
            outcome: outcome,
            startedAt: now.wall,
            finishedAt: now.wall
        )
        state.finished(end, now: now)
        try turn()
    }

    // MARK: Values

    static func lease(_ number: UInt32) -> Lease { Lease(incarnation: 1, counter: number) }

    static func id(_ number: UInt32) -> TaskID { TaskID(high: 0xABC, low: UInt64(number)) }

    static func holding(_ number: UInt32) -> Holding {
        Holding(id: id(number), lease: lease(number))
    }

    /// The newest HELLO.
    var hello: Hello? {
        for case .hello(let hello) in said.reversed() { return hello }
        return nil
    }

    /// Every window that was announced since the newest HELLO, its own included.
    var windows: [UInt64] {
        var windows: [UInt64] = []
        for said in said {
            switch said {
            case .hello(let hello): windows = [hello.window]
            case .credit(let window): windows.append(window)
            case .handBack, .unreadable, .running, .goodbye, .heartbeat: break
            }
        }
        return windows
    }

    var handedBack: [Holding] {
        said.flatMap { said in
            if case .handBack(let holdings) = said { holdings } else { [Holding]() }
        }
    }

    /// What the Broker was told of limited attempts, since the beginning.
    var reports: [RunningAttempt] {
        said.flatMap { said in
            if case .running(let attempts) = said { attempts } else { [RunningAttempt]() }
        }
    }

    // MARK: Bytes

    static func beginWork(acknowledging acknowledged: [Lease] = []) -> WireWriter {
        var writer = WireWriter(.work)
        writer.integer(UInt32(acknowledged.count))
        for lease in acknowledged { writer.integer(lease.rawValue) }
        return writer
    }

    static func write(
        _ submission: TaskSubmission,
        lease: Lease,
        failures: UInt32 = 0,
        to writer: inout WireWriter
    ) throws {
        var envelope = WireWriter()
        try submission.write(to: &envelope)
        let task = LeasedTask(
            lease: lease,
            attempt: failures + 1,
            failures: failures,
            epoch: 0,
            isSuspect: false,
            addedAt: Timestamp(nanoseconds: 5)
        )
        envelope.bytes.withUnsafeBytes { task.write(envelope: $0, to: &writer) }
    }

    static func takeApart(_ message: [UInt8]) throws -> Said {
        try message.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            let header = try MessageHeader.read(from: &reader)
            switch header.command {
            case .hello: return .hello(try Hello(from: &reader))
            case .credit: return .credit(try CreditMessage.read(from: &reader))
            case .handBack:
                let message = try HandBack(from: &reader)
                return message.isUnreadable
                    ? .unreadable(message.holdings) : .handBack(message.holdings)
            case .running: return .running(try RunningAttempt.read(from: &reader))
            case .goodbye: return .goodbye
            case .heartbeat: return .heartbeat
            default: throw WireError.invalid(field: "command")
            }
        }
    }

    static func results(in message: [UInt8]) throws -> [ResultEntry] {
        try message.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            let header = try MessageHeader.read(from: &reader)
            guard header.command == .results, try reader.worker("worker") == identity.worker else {
                throw WireError.invalid(field: "header")
            }
            var entries: [ResultEntry] = []
            while !reader.isAtEnd { entries.append(try ResultEntry(from: &reader)) }
            return entries
        }
    }
}

extension TaskOutcome {
    /// The failure's type, where there is one.
    var failureType: String? {
        switch self {
        case .error(let failure), .retry(let failure, _, _): failure.type
        case .success, .cancel: nil
        }
    }
}
