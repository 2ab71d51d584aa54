// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire

/// Looks over everybody's shoulder and holds what happens against the promises (design §4).
final class Checker {
    private weak var worldOrNil: World?
    private(set) var violation: String?
    var statistics = Simulation.Statistics()

    /// What the log says.
    private(set) var ledger: Ledger

    /// How far the log is, and how far it was when Storage ended.
    private(set) var marks = Watermarks(written: 0, durable: 0)
    private var isPowerLost = false

    /// When each record was appended (monotonic).
    private(set) var appendedAt: [UInt64: UInt64] = [:]

    /// When each record was appended, by the world's time.
    private(set) var appendedTime: [UInt64: UInt64] = [:]

    /// The same by the wall clock.
    private(set) var appendedOn: [UInt64: Timestamp] = [:]

    /// How much later than its interval a sync may be done, in nanoseconds: a process may be stopped for
    /// 1.5 s, and disks are slow.
    private static let intervalSlack: UInt64 = 2 * .second

    /// Tasks that were acknowledged as written alone, and went with the power.
    private(set) var lost: Set<TaskID> = []

    /// What the Broker was told, and whom it leases to.
    var order = OrderWatch()

    /// Every execution of a handler, by lease.
    var executions: [Lease: Execution] = [:]

    /// Leases that ran beside others in a process that died.
    var sharedDeaths: Set<Lease> = []
    /// Leases of remote workers that were given to others over their heads.
    var passedOver: Set<Lease> = []

    /// Tasks whose add was acknowledged, and that add's sequence.
    var acknowledged: [TaskID: UInt64] = [:]

    /// Tasks of which a client was told that another holds their key.
    var repeats: Set<TaskID> = []

    /// How tasks ended, as somebody was told; as long as they are not forgotten.
    var told: [TaskID: ToldEnd] = [:]

    /// Tasks whose end was told, and that are forgotten since.
    var formerlyTold: Set<TaskID> = []

    /// When tasks were forgotten last, by the world's time.
    var forgottenAt: [TaskID: UInt64] = [:]

    /// Records of forgotten tasks that may not be durable yet, and how those tasks had ended.
    var expiring: [(sequence: UInt64, status: TaskStatus)] = []

    /// What is known of the settings.
    var settings = SettingsWatch()

    /// When each task may be leased at the earliest: for each record that says so, as the power may take
    /// the last ones.
    var dues: [TaskID: [Due]] = [:]

    /// For each queue the newest record of its rules that a client was told.
    var rulesTold: [String: UInt64] = [:]

    /// What was changed of tasks, and which leases ended by it.
    var changes = ChangeWatch()

    /// The last attempt of each task that began.
    var attempts: [TaskID: UInt32] = [:]

    /// What lies in Storage's PULL socket while releases are decided.
    var unreadResults: [[UInt8]] = []

    /// Windows that workers announced and tasks that they were sent, by session.
    var windows: [UInt32: [UInt64]] = [:]
    var sent: [UInt32: UInt64] = [:]

    init(config: QueueConfig) {
        ledger = Ledger(config: config)
    }

    /// Set once, before anything happens.
    var world: World {
        get {
            guard let worldOrNil else { preconditionFailure("a checker has a world") }
            return worldOrNil
        }
        set { worldOrNil = newValue }
    }

    var hasFailed: Bool { violation != nil }

    /// A promise is broken; the first one counts.
    func fail(_ text: String) {
        guard violation == nil else { return }
        violation = text
        world.trace(ProcessName(role: .world), .note("VIOLATION: \(text)"))
    }

    func name(_ id: TaskID) -> String { "task \(world.scenario.number(of: id))" }

    func isAcknowledged(_ id: TaskID) -> Bool { acknowledged[id] != nil }

    /// Reads a message's or record's items until the end; what can't be read breaks a promise.
    func reading(_ bytes: [UInt8], _ body: (MessageHeader, inout WireReader) throws -> Void) {
        guard !bytes.isEmpty else { return }
        do {
            try bytes.withUnsafeBytes { raw in
                var reader = WireReader(raw)
                let header = try MessageHeader.read(from: &reader)
                try body(header, &reader)
            }
        } catch {
            fail("a message that can't be read: \(error)")
        }
    }
}

// MARK: - The log

extension Checker {
    /// Storage appended a record.
    func appended(_ record: Ledger.Record, by storage: SimulatedStorage) {
        world.trace(
            storage.name,
            .recorded(record.sequence, kind: record.kind, record.bytes)
        )
        appendedAt[record.sequence] = world.now.monotonic
        appendedTime[record.sequence] = world.time
        beforeRelease(record)
        beforeExpiry(record)
        beforeChange(record)
        beforeQueueChange(record)
        checkDue(record)
        checkStanding(record)
        appendedOn[record.sequence] = world.now.wall
        do {
            try ledger.append(record, now: world.now, bootID: world.bootID)
        } catch {
            return fail(text(of: error))
        }
        afterFinish(record)
    }

    private func text(of error: any Error) -> String {
        (error as? Ledger.Complaint)?.text ?? "a record that can't be read: \(error)"
    }

    func logProgressed(_ now: Watermarks) {
        if now != marks, let storage = world.broker?.child {
            world.trace(storage.name, .marks(written: now.written, durable: now.durable))
        }
        marks = now
    }

    func storageEnded(marks: Watermarks) {
        self.marks = marks
    }

    func powerLost() {
        isPowerLost = true
        attempts = [:]  // leases that were not synced are gone, and what they were called (H24)
        checkIntervals()
        statistics.powerLosses += 1
    }

    /// Storage has read its log.
    func storageOpened(_ log: Log, _ state: StorageState, _ records: [Ledger.Record]) {
        statistics.openings += 1
        expiring = []
        changes.forget(after: log.lastSequence)
        reckonDues(upTo: log.lastSequence)
        if log.recovery.checkpoint != nil { statistics.checkpoints += 1 }
        if log.segments.first.map({ $0.index > 1 }) == true {
            statistics.compacted += 1
            if !ledger.forgotten.isEmpty { statistics.openedWithout += 1 }
        }
        if log.recovery.isDamaged {
            fail("P9: lost \(log.recovery.lost) and \(log.recovery.damaged)")
        }
        let least = isPowerLost ? marks.durable : marks.written
        do {
            try ledger.restart(
                with: records,
                upTo: log.lastSequence,
                atLeast: least,
                now: world.now,
                bootID: world.bootID
            )
            try ledger.compare(with: state.tasks)
        } catch {
            fail(text(of: error))
        }
        forgetLost()
        checkRulesTold()
        marks = log.watermarks()
        isPowerLost = false
        for (id, end) in told.sorted(by: { $0.key < $1.key }) { compare(end, id) }
    }

    /// An interval's sync is done by its end, but for what the disk and a restart take.
    private func checkIntervals() {
        for id in acknowledged.keys.sorted() {
            guard let task = ledger.tasks[id], task.placement.sequence > marks.durable,
                let milliseconds = task.durability.intervalMilliseconds,
                let appended = appendedAt[task.placement.sequence]
            else { continue }
            let latest = appended + UInt64(milliseconds) * .millisecond + Self.intervalSlack
            if world.now.monotonic > latest {
                fail("P1: \(name(id)) isn't durable long after \(task.durability)")
            }
        }
    }

    /// Only what asked for no more than `written` may go with the power, and what is younger than its
    /// interval.
    private func forgetLost() {
        for (id, add) in acknowledged.sorted(by: { $0.key < $1.key }) where !ledger.has(id, add) {
            if isPowerLost, durability(of: id).isToldOnceWritten {
                acknowledged[id] = nil
                lost.insert(id)
                told[id] = nil
            } else {
                fail("P1: \(name(id)) was acknowledged and is gone")
            }
        }
        guard isPowerLost else { return }
        // an end that was told at `written` may have gone although the add has not
        for id in told.keys where durability(of: id).isToldOnceWritten {
            let task = ledger.tasks[id]
            if task?.status.isFinal != true || task?.epoch != told[id]?.epoch { told[id] = nil }
        }
    }

    /// How durable a task asked to be.
    func durability(of id: TaskID) -> Durability {
        let number = world.scenario.number(of: id)
        let asked = number < 0 ? nil : world.scenario.tasks[number].submission.durability
        return asked ?? world.scenario.config.durability
    }

    /// Whether a record is as durable as a task asked.
    func isSafe(_ sequence: UInt64, for id: TaskID) -> Bool {
        switch durability(of: id) {
        case .synced: sequence <= marks.durable
        case .written, .interval: sequence <= marks.written
        }
    }
}

// MARK: - The end

extension Checker {
    /// Nothing is left to happen: everything must be done, and nobody may await anything.
    func atRest() {
        for process in world.living where process.nextDeadline != nil {
            if let storage = process as? SimulatedStorage, storage.restDeadline != nil { continue }
            fail("P8: \(process.name) still has a deadline")
        }
        for (number, task) in world.scenario.tasks.enumerated() {
            checkEnd(of: number, task)
        }
        for client in world.clients {
            guard let client, client.isAlive else { return fail("a client did not come back") }
            if let id = client.awaited.first {
                fail("\(client.name) still waits for an answer about \(name(id))")
            }
            if client.isWaiting { fail("\(client.name) still waits for an answer") }
        }
        checkCounts()
        checkHandlers()
        checkRetention()
        checkSettings()
        if !ledger.queues.rules.isEmpty { fail("rules are left: \(ledger.queues.rules)") }
        statistics.ruledLeases += order.limits.ruledLeases
        statistics.heldBack += order.limits.heldBack
        statistics.tasks += ledger.tasks.count + statistics.forgotten
        statistics.executions += executions.count
        statistics.told += told.count + formerlyTold.count
    }

    private func checkEnd(of number: Int, _ planned: Scenario.PlannedTask) {
        let id = planned.submission.id
        guard let task = ledger.tasks[id] else {
            // whoever added it may have heard of the acknowledgement and not of the loss
            if lost.contains(id) || repeats.contains(id) { return }
            if ledger.forgotten[id] != nil, acknowledged[id] != nil || formerlyTold.contains(id) {
                return
            }
            return fail("task \(number) was added by a client and never acknowledged")
        }
        guard task.status.isFinal else {
            return fail("P1: task \(number) is \(task.status) and nothing happens any more")
        }
        // whoever hears of the end needs no receipt any more
        guard acknowledged[id] != nil || told[id] != nil || formerlyTold.contains(id) else {
            return fail("task \(number) was never acknowledged")
        }
        if task.status == .dead, task.deaths < task.maxDeliveries {
            fail("P4: task \(number) is dead after \(task.deaths) deaths")
        }
        if let end = told[id] { compare(end, id) }
    }

    private func checkCounts() {
        guard let state = world.broker?.child?.state else { return fail("there is no Storage") }
        checkCounts(state, durable: .max)
    }

    /// Storage counts what the log says: the sum over all states is the number of tasks.
    ///
    /// - Parameters:
    ///   - state: What Storage knows.
    ///   - durable: How far it has been told that the log is durable: a task counts until then also where
    ///     it is recorded that it is forgotten.
    func checkCounts(_ state: StorageState, durable: UInt64) {
        var writer = WireWriter()
        state.tasks.lanes.writeCounts(to: &writer)
        var counted: [UInt64] = Array(repeating: 0, count: TaskStatus.allCases.count)
        writer.bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            while !reader.isAtEnd, let counts = try? TaskCounts(from: &reader) {
                for (index, count) in counts.byStatus.enumerated() { counted[index] += count }
            }
        }
        var expected: [UInt64] = Array(repeating: 0, count: TaskStatus.allCases.count)
        for task in ledger.tasks.values { expected[Int(task.status.code) - 1] += 1 }
        expiring.removeAll { $0.sequence <= durable }
        for (_, status) in expiring { expected[Int(status.code) - 1] += 1 }
        if counted != expected { fail("Storage counts \(counted); the log has \(expected)") }
    }
}
