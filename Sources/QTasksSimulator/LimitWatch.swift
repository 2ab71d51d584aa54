// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire

/// Watches that no lease is proposed which a queue's rules forbid, by what the Broker had been told.
///
/// It counts leases and starts by itself. What the Broker learned in the same turn of its loop may have
/// come before or after what it proposed in it: a lease is held against the loosest rules of a turn, and a
/// task may be passed over by the strictest.
struct LimitWatch {
    /// Whose leases are counted together: all of a queue, or those with one key in it.
    private struct Subject: Hashable {
        var queue: String
        /// Empty: whatever key they have.
        var key: [UInt8] = []
    }

    private var rules: [String: QueueRules] = [:]
    /// What held earlier in this turn.
    private var former: [String: [QueueRules]] = [:]
    private var bounded: Set<String> = []
    /// What held until Storage began to tell everything anew.
    private var remembered: [String: QueueRules] = [:]

    /// Leases that the Broker counts.
    private var held: [Lease: Subject] = [:]
    /// Of those that ended in this turn.
    private var ended: [Subject] = []
    /// Proposals that are not answered.
    private var asked: [UInt64: Lease] = [:]

    private var starts: [Subject: StartHistory] = [:]
    /// When the Broker was told everything anew, and so had no memory of what has started: it takes all bursts
    /// for used up then.
    private var forgotAt: UInt64?
    /// Until when what a key started under former rates may be spaced over, by queue.
    private var debts: [String: UInt64] = [:]
    private var hasOpened = false

    private var time: UInt64 = 0
    private var formerTime: UInt64 = 0

    /// How many leases were proposed under some rule, and how often a task was passed over that a limit held back.
    private(set) var ruledLeases = 0
    private(set) var heldBack = 0

    mutating func beginTurn(at time: UInt64) {
        formerTime = self.time
        self.time = time
        if !former.isEmpty { former = [:] }
        if !ended.isEmpty { ended = [] }
    }

    /// The Broker began anew, or is being told everything anew.
    ///
    /// - Parameter incarnation: How often the store was opened: nothing has ever started before the first.
    mutating func reset(incarnation: UInt32) {
        remembered.merge(rules) { _, newer in newer }
        rules = [:]
        former = [:]
        held = [:]
        ended = []
        asked = [:]
        forgotAt = incarnation == 1 && !hasOpened ? nil : time
        hasOpened = true
    }

    // MARK: What the Broker hears

    mutating func heard(_ new: QueueRules, of queue: String) {
        let old = rules[queue] ?? remembered.removeValue(forKey: queue) ?? QueueRules()
        rules[queue] = new
        if new.maxQueued != nil { bounded.insert(queue) }
        guard new != old else { return }
        former[queue, default: []].append(old)
        if new.rate != old.rate { starts[Subject(queue: queue)] = nil }
        if let rate = old.keyRate, rate != new.keyRate { addDebt(rate, in: queue) }
        if new.keyRate != old.keyRate { forgetStartsOfKeys(in: queue) }
    }

    private mutating func addDebt(_ rate: StartRate, in queue: String) {
        debts[queue] = max(debts[queue] ?? 0, time + rate.burstTime)
    }

    private mutating func forgetStartsOfKeys(in queue: String) {
        for subject in starts.keys where subject.queue == queue && !subject.key.isEmpty {
            starts[subject] = nil
        }
    }

    /// All is told: a queue that was not named has no rules.
    mutating func snapshotEnded() {
        for queue in remembered.keys {
            starts[Subject(queue: queue)] = nil
            forgetStartsOfKeys(in: queue)
        }
        remembered = [:]
        // nothing was proposed before
        former = [:]
    }

    /// A lease that is under way already.
    mutating func heard(_ lease: Lease, inQueue queue: String, key: [UInt8]) {
        held[lease] = Subject(queue: queue, key: key)
    }

    /// A proposal is answered; `isHeld`: with a lease.
    mutating func answered(_ number: UInt64, isHeld: Bool) {
        guard let lease = asked.removeValue(forKey: number), !isHeld else { return }
        end(lease)
    }

    mutating func end(_ lease: Lease) {
        guard let subject = held.removeValue(forKey: lease) else { return }
        ended.append(subject)
    }

    // MARK: What the Broker proposes

    /// A lease is proposed.
    ///
    /// - Returns: What forbids it; `nil`: nothing.
    mutating func proposed(_ lease: Lease, _ task: AddedTask, as number: UInt64) -> String? {
        let complaint = isFree(task.queue) ? nil : complaint(of: task)
        if !isFree(task.queue) { ruledLeases += 1 }
        asked[number] = lease
        held[lease] = Subject(queue: task.queue, key: task.key)
        let hold = rules[task.queue] ?? QueueRules()
        let isCertain = former[task.queue] == nil
        func start(_ subject: Subject) {
            starts[subject, default: StartHistory()].start(at: time, isCertain: isCertain)
        }
        if hold.rate != nil { start(Subject(queue: task.queue)) }
        if hold.keyRate != nil, !task.key.isEmpty {
            start(Subject(queue: task.queue, key: task.key))
        }
        return complaint
    }

    /// Whether a queue has no rules, in the whole of this turn.
    private func isFree(_ queue: String) -> Bool {
        former[queue] == nil && rules[queue]?.isDefault ?? true
    }

    /// The rules of this turn: at times several, one after the other.
    private func inForce(_ queue: String) -> [QueueRules] {
        (former[queue] ?? []) + [rules[queue] ?? QueueRules()]
    }

    private func complaint(of task: AddedTask) -> String? {
        let (queue, key) = (task.queue, task.key)
        let all = inForce(queue)
        if all.allSatisfy(\.isPaused) { return "its queue is paused" }
        let running = held.values.count { $0.queue == queue }
        if all.allSatisfy({ $0.concurrency.map { running >= Int($0) } ?? false }) {
            return "\(running) tasks of its queue run"
        }
        let ofKey = held.values.count { $0.queue == queue && $0.key == key }
        if !key.isEmpty, all.allSatisfy({ $0.keyConcurrency.map { ofKey >= Int($0) } ?? false }) {
            return "\(ofKey) tasks of its key run"
        }
        // a rate that was changed in this turn has begun anew
        guard all.count == 1, let only = all.first else { return nil }
        if let rate = only.rate, !keeps(rate, Subject(queue: queue)) {
            return "its queue's tasks start too fast"
        }
        if !key.isEmpty, let rate = only.keyRate, !keeps(rate, Subject(queue: queue, key: key)) {
            return "its key's tasks start too fast"
        }
        return nil
    }

    private func keeps(_ rate: StartRate, _ subject: Subject) -> Bool {
        starts[subject]?.keeps(rate, at: time) ?? true
    }

    // MARK: Who may be passed over

    /// Whether a task's key may have held it back while another of its queue was leased.
    mutating func mayPassOver(_ task: AddedTask) -> Bool {
        guard !task.key.isEmpty, !isFree(task.queue) else { return false }
        let mayBeHeld = former[task.queue] != nil || isClosed(task)
        if mayBeHeld { heldBack += 1 }
        return mayBeHeld
    }

    private func isClosed(_ task: AddedTask) -> Bool {
        guard let hold = rules[task.queue] else { return false }
        let subject = Subject(queue: task.queue, key: task.key)
        if let most = hold.keyConcurrency {
            let running = held.values.count { $0 == subject } + ended.count { $0 == subject }
            if running >= Int(most) { return true }
        }
        guard let rate = hold.keyRate else { return false }
        let history = starts[subject] ?? StartHistory()
        let debt = max(debts[task.queue] ?? 0, forgotAt.map { $0 + rate.burstTime } ?? 0)
        // what opened since the last turn is only looked at in this one
        return history.mayBeClosed(rate, at: formerTime, after: debt)
    }

    /// Whether one task goes before another of its queue, whatever ageing held in this turn.
    func goes(_ one: AddedTask, before other: AddedTask) -> Bool {
        inForce(one.queue).allSatisfy { hold in
            guard let ageing = hold.ageing else {
                return (-Int(one.priority), one.sequence) < (-Int(other.priority), other.sequence)
            }
            func rank(_ task: AddedTask) -> Int {
                Int(clamping: task.sequence) - Int(task.priority) * Int(ageing)
            }
            return rank(one) < rank(other)
        }
    }

    /// Whether a queue took so many tasks only at some time: who adds several hears of the first with the last.
    func wasBounded(_ queue: String) -> Bool { bounded.contains(queue) }
}
