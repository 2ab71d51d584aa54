// Part of QTasks. License: see LICENSE.

package import QTasksModel

/// Which finished tasks are kept no longer.
///
/// StorageState tells it of each task that ends and of each that leaves (a requeue, a purge, an expiry that
/// is in the log), also while the log is replayed. From ``opened()`` on, when ``nextDeadline`` has come,
/// it asks ``due(now:atMost:)`` for a few tasks, appends a record for each and tells
/// ``removed(sequence:lane:status:)`` as for any other; then again, until none is due. What found no room in
/// the log is due again next time.
///
/// Times are those of the wall clock, which the log's records have: a task goes up to a second
/// later than it could. A finished task takes 16 bytes; an event takes O(log n).
package struct RetentionState {
    /// A finished task, and the record that ended it.
    package struct Finished: Hashable, Sendable {
        package var number: TaskIndex.Number
        package var sequence: UInt64

        package init(number: TaskIndex.Number, sequence: UInt64) {
            self.number = number
            self.sequence = sequence
        }
    }

    /// Tasks that are kept equally long: of one name and kind of end, or with one age of their own.
    private struct Group {
        var queue = FinishedQueue()
        let ageSeconds: UInt64
        let countMax: Int?
        /// When it has to be looked at, in seconds since 1970; none: ``Alarms/never``.
        var alarm = Alarms.never

        init(ageSeconds: UInt64, countMax: Int?) {
            self.ageSeconds = ageSeconds
            self.countMax = countMax
        }

        /// Tasks beyond the most that are kept.
        var excess: Int { countMax.map { queue.count - $0 } ?? 0 }

        /// When the oldest may go.
        var nextSeconds: UInt64 {
            guard let first = queue.first else { return Alarms.never }
            return end(of: first, isExcess: excess > 0)
        }

        func end(of entry: FinishedQueue.Entry, isExcess: Bool) -> UInt64 {
            UInt64(entry.endedSeconds)
                + (isExcess ? min(ageSeconds, Retention.secondsMin) : ageSeconds)
        }
    }

    private struct NamedEnd: Hashable {
        var name: String
        var isFailure: Bool
    }

    /// Beyond so many different ages that adds ask for, they are rounded up to one of a few hundred: no
    /// client can make searching them slow.
    private static let exactAgesMax = 64

    private let rules: RetentionRules
    private var groups: [Group] = []
    /// By lane, twice: after a good end and after a failure; a group's place plus one.
    private var byLane: [Int] = []
    private var byName: [NamedEnd: Int] = [:]
    /// By seconds.
    private var byOwnAge: [UInt64: Int] = [:]
    private var alarms = Alarms()

    private var isOpen = false
    /// Sequences of what left before the queues were in order.
    private var left: [UInt64] = []

    package init(rules: RetentionRules) {
        self.rules = rules
    }

    /// Finished tasks that are kept.
    package var count: Int { groups.reduce(0) { $0 + $1.queue.count } }

    // MARK: Events

    /// A task ended for good.
    ///
    /// Before ``opened()`` in any order, and repeatedly, as copies in the log have it.
    ///
    /// - Parameters:
    ///   - number: Its place in the index; handed back by ``due(now:atMost:)``.
    ///   - sequence: Of the record that ended it.
    ///   - lane: Its name and queue.
    ///   - name: Its name; asked for once a lane.
    ///   - status: How it ended.
    ///   - moment: When, as the record has it.
    ///   - ownSeconds: The retention that its add asked for.
    package mutating func finished(
        _ number: TaskIndex.Number,
        sequence: UInt64,
        lane: LaneTable.Number,
        name: @autoclosure () -> String,
        status: TaskStatus,
        at moment: Timestamp,
        ownSeconds: UInt64? = nil
    ) {
        let group =
            ownSeconds.map { self.group(ownSeconds: $0) }
            ?? self.group(of: lane, name(), status.isFailure)
        let seconds = (UInt64(max(0, moment.nanoseconds)) + 999_999_999) / 1_000_000_000
        let entry = FinishedQueue.Entry(
            sequence: sequence,
            endedSeconds: UInt32(clamping: seconds),
            number: number
        )
        groups[group].queue.append(entry, isOrdered: isOpen)
        if isOpen { arm(group) }
    }

    /// A finished task went on, or went.
    ///
    /// - Parameters:
    ///   - sequence: Of the record that had ended it.
    ///   - lane: Its name and queue.
    ///   - status: How it had ended.
    package mutating func removed(sequence: UInt64, lane: LaneTable.Number, status: TaskStatus) {
        guard isOpen else { return left.append(sequence) }
        let place = place(lane, status.isFailure)
        if place < byLane.count, byLane[place] > 0, remove(sequence, from: byLane[place] - 1) {
            return
        }
        for group in byOwnAge.values where remove(sequence, from: group) { return }
    }

    /// The log is replayed: from now on sequences rise.
    package mutating func opened() {
        left.sort()
        for group in groups.indices {
            groups[group].queue.sort(without: left)
            arm(group)
        }
        left = []
        isOpen = true
    }

    // MARK: Time

    /// When something is due next by the wall clock; `nil`: nothing is kept.
    ///
    /// In the past while something that is due has not been removed.
    package var nextDeadline: Timestamp? {
        mutating get {
            firstAlarm().map { Timestamp(nanoseconds: Int64($0.seconds) * 1_000_000_000) }
        }
    }

    /// Tasks that are kept no longer, the longest due first; they stay until they are
    /// ``removed(sequence:lane:status:)``.
    ///
    /// - Parameters:
    ///   - now: By the wall clock.
    ///   - limit: How many at most, so that a turn stays short.
    /// - Returns: Each task once.
    package mutating func due(now: Timestamp, atMost limit: Int) -> [Finished] {
        let now = UInt64(max(0, now.nanoseconds)) / 1_000_000_000
        var found: [Finished] = []
        var rung: [Int] = []
        while found.count < limit, let alarm = firstAlarm(), alarm.seconds <= now {
            alarms.removeFirst()
            groups[alarm.group].alarm = Alarms.never
            rung.append(alarm.group)
            collect(from: groups[alarm.group], now, atMost: limit, into: &found)
        }
        for group in rung { arm(group) }
        return found
    }

    private func collect(
        from group: Group,
        _ now: UInt64,
        atMost limit: Int,
        into found: inout [Finished]
    ) {
        var excess = group.excess
        group.queue.forEach { entry in
            guard found.count < limit, group.end(of: entry, isExcess: excess > 0) <= now else {
                return false
            }
            found.append(Finished(number: entry.number, sequence: entry.sequence))
            excess -= 1
            return true
        }
    }

    /// The earliest alarm that still holds.
    private mutating func firstAlarm() -> Alarms.Alarm? {
        while let alarm = alarms.first {
            if groups[alarm.group].alarm == alarm.seconds { return alarm }
            alarms.removeFirst()
        }
        return nil
    }

    /// An alarm that is set anew stays in the heap until it comes up, unless there are too many.
    private mutating func arm(_ group: Int) {
        let seconds = groups[group].nextSeconds
        guard seconds != groups[group].alarm else { return }
        groups[group].alarm = seconds
        guard seconds != Alarms.never else { return }
        alarms.insert(.init(seconds: seconds, group: group))
        guard alarms.count > 64 + 4 * groups.count else { return }
        alarms = Alarms()
        for (group, kept) in groups.enumerated() where kept.alarm != Alarms.never {
            alarms.insert(.init(seconds: kept.alarm, group: group))
        }
    }

    // MARK: Groups

    private mutating func remove(_ sequence: UInt64, from group: Int) -> Bool {
        guard groups[group].queue.remove(sequence) else { return false }
        arm(group)
        return true
    }

    private func place(_ lane: LaneTable.Number, _ isFailure: Bool) -> Int {
        Int(lane) * 2 + (isFailure ? 1 : 0)
    }

    private mutating func group(
        of lane: LaneTable.Number,
        _ name: @autoclosure () -> String,
        _ isFailure: Bool
    ) -> Int {
        let place = place(lane, isFailure)
        while byLane.count <= place { byLane.append(0) }
        if byLane[place] == 0 { byLane[place] = group(named: name(), isFailure) + 1 }
        return byLane[place] - 1
    }

    /// Queues share it: the count is of a name.
    private mutating func group(named name: String, _ isFailure: Bool) -> Int {
        let end = NamedEnd(name: name, isFailure: isFailure)
        if let group = byName[end] { return group }
        let limit = rules.limit(name: name, status: isFailure ? .error : .success)
        let group = addGroup(age: limit.age, limit.count)
        byName[end] = group
        return group
    }

    private mutating func group(ownSeconds: UInt64) -> Int {
        let age = RetentionRules.age(ownSeconds: ownSeconds)
        let seconds = age / 1_000_000_000
        if let group = byOwnAge[seconds] { return group }
        let rounded = byOwnAge.count < Self.exactAgesMax ? seconds : Self.roundedUp(seconds)
        if let group = byOwnAge[rounded] { return group }
        let group = addGroup(age: rounded * 1_000_000_000, nil)
        byOwnAge[rounded] = group
        return group
    }

    /// Up to a sixteenth longer.
    private static func roundedUp(_ seconds: UInt64) -> UInt64 {
        let step = UInt64(1) << max(0, 59 - seconds.leadingZeroBitCount)
        return (seconds + step - 1) / step * step
    }

    private mutating func addGroup(age: UInt64, _ countMax: Int?) -> Int {
        groups.append(Group(ageSeconds: age / 1_000_000_000, countMax: countMax))
        return groups.count - 1
    }
}

/// When groups have to be looked at, the earliest first: a binary heap.
private struct Alarms {
    struct Alarm {
        /// Since 1970.
        var seconds: UInt64
        var group: Int
    }

    static let never = UInt64.max

    private var heap: ContiguousArray<Alarm> = []

    var count: Int { heap.count }
    var first: Alarm? { heap.first }

    mutating func insert(_ alarm: Alarm) {
        heap.append(alarm)
        var child = heap.count - 1
        while child > 0, heap[child].seconds < heap[(child - 1) / 2].seconds {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func removeFirst() {
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < heap.count && heap[child].seconds < heap[least].seconds {
                least = child
            }
            guard least != parent else { return }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}
