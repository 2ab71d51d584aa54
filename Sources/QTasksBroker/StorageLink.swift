// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess
import ZeroMQ

/// Storage as the Broker's process has it: a child that is restarted, and a connection that is made
/// anew with each child, so that nothing of a dead one is ever read.
struct StorageLink: ~Copyable {
    /// The child's pidfd in the poll set.
    static let token: UInt64 = 0

    private let home: HomeDirectory
    private let handover: RoleHandover
    private var child: ChildProcess?
    private var socket: Socket?
    private var startedAt: UInt64 = 0
    private var policy = RestartPolicy()

    /// When it is to be started again; `nil` while it runs.
    private(set) var restartAt: UInt64?

    init(home: HomeDirectory, handover: RoleHandover) {
        self.home = home
        self.handover = RoleHandover(
            role: "storage",
            parent: getpid(),
            runID: handover.runID,
            settings: handover.settings
        )
    }

    var pollItem: PollItem? {
        switch socket {
        case .some(let socket): socket.pollItem
        case .none: nil
        }
    }

    mutating func start(
        in context: Context,
        watching poll: borrowing PollLoop,
        now: UInt64
    ) throws {
        restartAt = nil
        startedAt = now
        let child = try ChildProcess.spawn(
            arguments: ["storage", "--home", home.path],
            environment: handover.environment
        )
        try poll.watch(descriptor: child.pidfd, token: Self.token)
        self.child = child
        let socket = try Socket(.dealer, in: context, options: .dealer)
        try socket.connect(to: home.endpoint(.storage))
        self.socket = consume socket
    }

    /// The child's pidfd was ready.
    mutating func reap(watching poll: borrowing PollLoop) -> ExitReport? {
        guard let child, let report = child.reap() else { return nil }
        try? poll.unwatch(descriptor: child.pidfd)
        self.child = nil
        socket = nil
        return report
    }

    /// Plans the next start, or says with which code the Broker is to end instead.
    mutating func planRestart(after report: ExitReport, now: UInt64) -> Int32? {
        switch policy.childEnded(at: now, startedAt: startedAt, report: report) {
        case .restart(let at):
            restartAt = at
            return nil
        case .giveUp: return ExitReport.codeOfPermanentFailure
        }
    }

    mutating func timer(
        in context: Context,
        watching poll: borrowing PollLoop,
        now: UInt64
    ) throws {
        if let restartAt, restartAt <= now { try start(in: context, watching: poll, now: now) }
    }

    /// Sends if Storage is there: what it can't hear now it is told again when it opens.
    func send(_ message: [UInt8], with second: LentFrame?) throws {
        switch socket {
        case .some(let socket):
            if let second {
                try socket.send(message, with: second)
            } else {
                try socket.send(message)
            }
        case .none: break
        }
    }

    func receive(into frames: inout Frames) throws -> Bool {
        switch socket {
        case .some(let socket): try socket.receive(into: &frames)
        case .none: false
        }
    }
}
