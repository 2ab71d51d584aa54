// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksProcess

/// A process: a loop that sleeps until something comes, and then takes one turn.
///
/// Its kinds do in `turn(timerFired:)` what the production loop around the same core does.
class SimulatedProcess {
    unowned let world: World
    let name: ProcessName
    let pid: Int32
    private(set) var isAlive = true

    /// How it ended, once it has.
    private(set) var cause = ExitReport.Cause.signaled(number: 9)

    /// SIGSTOP: no turn before this time.
    private var pausedUntil: UInt64 = 0
    private var isTurnPlanned = false

    /// The deadline that the last turn left, in nanoseconds of `CLOCK_BOOTTIME`.
    private var deadline: UInt64?
    private var timerAt: UInt64?

    init(_ world: World, _ name: ProcessName) {
        self.world = world
        self.name = name
        pid = world.takePid()
        world.trace(name, .began)
    }

    /// One turn of the loop.
    func turn(timerFired: Bool) {}

    /// When the core wants its timer called; `nil` while it awaits nothing.
    var nextDeadline: UInt64? { nil }

    /// Whether something has arrived that the last turn left unread.
    var hasUnread: Bool { false }

    /// A socket that connects has found its peer, for the first time or again.
    func socketConnected(_ socket: ConnectingSocket) {}

    /// What goes with the process beside its sockets.
    func cleanUp() {}

    /// Something has come: takes a turn soon.
    final func wake() {
        guard isAlive, !isTurnPlanned else { return }
        isTurnPlanned = true
        world.at(max(world.time + world.turnDelay(), pausedUntil)) { [self] in runTurn() }
    }

    private func runTurn() {
        isTurnPlanned = false
        guard isAlive else { return }
        guard world.time >= pausedUntil else { return wake() }
        let fired = deadline.map { $0 <= world.now.monotonic } ?? false
        turn(timerFired: fired)
        guard isAlive else { return }
        if hasUnread { wake() }
        armTimer()
    }

    /// Sets the timer as the core's deadline has it now.
    final func armTimer() {
        deadline = nextDeadline
        guard let deadline else { return }
        let at = max(world.time, world.worldTime(ofBoot: deadline))
        // what would come later is judged by the deadline alone
        guard at <= world.end else { return }
        if let timerAt, timerAt <= at, timerAt > world.time { return }
        timerAt = at
        world.at(at) { [self] in
            if timerAt == at { timerAt = nil }
            wake()
        }
    }

    final func pause(for time: UInt64) {
        world.trace(name, .paused(time))
        pausedUntil = max(pausedUntil, world.time + time)
    }

    /// `kill -9`, or an end of its own.
    final func end(_ why: String, _ cause: ExitReport.Cause = .signaled(number: 9)) {
        guard isAlive else { return }
        isAlive = false
        self.cause = cause
        world.trace(name, .died(why))
        world.network.ended(self)
        cleanUp()
    }
}
