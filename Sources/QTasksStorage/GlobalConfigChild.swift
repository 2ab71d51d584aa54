// Part of QTasks. License: see LICENSE.

import QTasksProcess
import QTasksWire
import ZeroMQ

/// GlobalConfig as Storage's process has it: a child that is restarted, and stopped last.
struct GlobalConfigChild: ~Copyable {
    /// The child's pidfd in the poll set.
    static let token: UInt64 = 1

    /// How long it may take to stop in order; then it is killed.
    private static let patience: UInt64 = 2_000_000_000

    private let home: HomeDirectory
    private let handover: RoleHandover
    private var child: ChildProcess?
    private var startedAt: UInt64 = 0
    private var policy = RestartPolicy()

    /// When it is to be started again; `nil` while it runs.
    private(set) var restartAt: UInt64?

    /// 0 while it doesn't run.
    var pid: Int32 { child?.pid ?? 0 }

    /// - Parameters:
    ///   - home: Where its sockets and its log are.
    ///   - handover: What Storage was given: run and settings pass on.
    ///   - pid: This process.
    init(home: HomeDirectory, handover: RoleHandover, pid: Int32) {
        self.home = home
        self.handover = RoleHandover(
            role: "globalconfig",
            parent: pid,
            runID: handover.runID,
            settings: handover.settings
        )
    }

    /// - Throws: `ProcessError` where it can't be spawned, `ZeroMQError` where it can't be watched.
    mutating func start(watching poll: borrowing PollLoop, now: UInt64) throws {
        restartAt = nil
        startedAt = now
        let child = try ChildProcess.spawn(
            arguments: ["globalconfig", "--home", home.path],
            environment: handover.environment
        )
        try poll.watch(descriptor: child.pidfd, token: Self.token)
        self.child = child
    }

    /// The child's pidfd was ready.
    mutating func reap(watching poll: borrowing PollLoop) -> ExitReport? {
        guard let child, let report = child.reap() else { return nil }
        try? poll.unwatch(descriptor: child.pidfd)
        self.child = nil
        return report
    }

    /// Plans the next start, or says with which code Storage is to end instead.
    mutating func planRestart(after report: ExitReport, now: UInt64) -> Int32? {
        switch policy.childEnded(at: now, startedAt: startedAt, report: report) {
        case .restart(let at):
            restartAt = at
            return nil
        case .giveUp: return ExitReport.codeOfPermanentFailure
        }
    }

    /// Stops it in order, or by SIGKILL where that takes too long.
    ///
    /// Blocks until it has ended.
    mutating func stop(in context: Context, watching poll: borrowing PollLoop) throws {
        restartAt = nil
        guard let child else { return }
        try poll.unwatch(descriptor: child.pidfd)
        var ending = try PollLoop()
        try ending.watch(descriptor: child.pidfd, token: Self.token)
        let requests = try Socket(.dealer, in: context, options: .dealer)
        try requests.connect(to: home.endpoint(.config))
        try ending.setTimer(at: MonotonicClock.nowNanoseconds() + Self.patience)
        var isAsked = false
        while true {
            // once it is asked, the room to send again is of no interest
            let ready = try ending.wait(isAsked ? [] : [requests.pollItem.orWritable])
            if !ready.tokens.isEmpty { break }
            if ready.timerFired {
                child.killGroup()
            } else if !isAsked {
                isAsked = try requests.send(WireWriter(.configStop).bytes) == .sent
            }
        }
        _ = child.reap()
        self.child = nil
    }
}
