// Part of QTasks. License: see LICENSE.

import HeapModule
import QTasksModel
import QTasksWire

/// All lanes, by number, and which of them is served next.
///
/// ```
///  kind of workers ─ queues that may start something, by their first tasks
///                      └ lanes in it that may, by their first tasks
/// ```
///
/// What is held back by a limit isn't in there, so it blocks nobody (P6). An event takes O(log n) for each
/// kind of workers; there are as many kinds as different sets of names that workers can run.
struct Lanes {
    typealias Number = Int
    typealias QueueNumber = Int
    typealias GroupNumber = Int
    typealias KindNumber = Int

    /// What is known of a queue.
    struct Queue {
        let name: String
        var rules = QueueRules()
        var limit: StartLimit
        /// Lanes that are open.
        var lanes: Set<Number> = []
        /// How many keys of it are remembered.
        var groups = 0
        /// Tasks that wait in them, and adds whose verdict is still to come.
        var waiting = 0
        var unanswered = 0
        /// Something may start, as far as the queue's own rules go.
        var isOpen = true
        /// When that is to be looked at again.
        var alarm = UInt64.max
    }

    private struct Place {
        var queue: QueueNumber
        var group: GroupNumber?
    }

    /// Tasks of one key in one queue, whatever their names.
    private struct Group {
        let id: GroupID
        var limit: StartLimit
        var lanes: [Number] = []
        var isOpen = true
        var alarm = UInt64.max
        /// It is among those that are looked at again.
        var isCooling = false
    }

    private struct GroupID: Hashable {
        var queue: QueueNumber
        var key: [UInt8]
    }

    /// Workers that can run the same names.
    private struct Kind {
        let names: Set<String>
        var workers = 0
        var queues = IndexedHeap<LeaseRank>()
        var lanes: [QueueNumber: IndexedHeap<LeaseRank>] = [:]
    }

    /// Something that a rate closes, and when it opens.
    private struct Alarm: Comparable {
        enum Subject { case queue(QueueNumber), group(GroupNumber) }

        let time: UInt64
        let subject: Subject

        static func < (left: Self, right: Self) -> Bool { left.time < right.time }
        static func == (left: Self, right: Self) -> Bool { left.time == right.time }
    }

    /// The time of what happens; `CLOCK_BOOTTIME`, in nanoseconds.
    var now: UInt64 = 0

    /// Before that it isn't known what has started.
    private var since: UInt64 = 0

    private var numbers = ShardedNumbers<Lane.Key, Number>()
    private var lanes: [Lane?] = []
    /// Where each lane belongs, without a look at the lane: that would copy it.
    private var places: [Place] = []
    private var free: [Number] = []
    private var numbersOfName: [String: Set<Number>] = [:]

    private var queues: [Queue?] = []
    private var queueNumbers: [String: QueueNumber] = [:]
    private var freeQueues: [QueueNumber] = []
    private var queuesWithMost = 0

    private var groups: [Group?] = []
    private var groupNumbers = ShardedNumbers<GroupID, GroupNumber>()
    private var freeGroups: [GroupNumber] = []
    /// Groups without a lane that are remembered for their rate's sake.
    private var cooling = Heap<CoolingGroup>()

    private var kinds: [Kind?] = []
    private var alarms = Heap<Alarm>()

    /// Adds without a lease and without a verdict, in all lanes.
    private(set) var unanswered = 0

    /// Tasks that wait for a worker, in all lanes.
    private(set) var waiting = 0

    /// Tasks among them that run alone.
    private(set) var suspectsWaiting = 0
    private var suspectLanes: Set<Number> = []

    subscript(number: Number) -> Lane {
        guard let lane = lanes[number] else { preconditionFailure("lane \(number) was closed") }
        return lane
    }

    var count: Int { numbers.count }

    /// Keys that are remembered, and how many of them are to be looked at.
    var groupCount: Int { groupNumbers.count }
    var coolingCount: Int { cooling.count }

    /// Every open lane with its number.
    var open: [(number: Number, lane: Lane)] {
        lanes.enumerated().compactMap { index, lane in lane.map { (index, $0) } }
    }

    /// The lanes of a name.
    func all(of name: String) -> Set<Number> { numbersOfName[name] ?? [] }

    // MARK: Opening and closing

    /// The lane with this key, opened where there is none.
    mutating func number(for key: Lane.Key) -> Number {
        if let number = numbers[key] { return number }
        let queue = queueNumber(key.queue)
        let number = free.popLast() ?? lanes.count
        let group = key.key.isEmpty ? nil : groupNumber(GroupID(queue: queue, key: key.key))
        let place = Place(queue: queue, group: group)
        if number == lanes.count {
            lanes.append(nil)
            places.append(place)
        } else {
            places[number] = place
        }
        lanes[number] = Lane(
            key: key,
            queue: queue,
            group: group,
            kinds: kinds.indices.filter { kinds[$0]?.names.contains(key.name) == true }
        )
        lanes[number]?.ageing = queues[queue]?.rules.ageing
        numbers[key] = number
        numbersOfName[key.name, default: []].insert(number)
        queues[queue]?.lanes.insert(number)
        if let group { groups[group]?.lanes.append(number) }
        return number
    }

    /// Closes a lane that nothing refers to any more; `true` if it did.
    mutating func closeIfUnused(_ number: Number) -> Bool {
        guard let lane = lanes[number], lane.isUnused else { return false }
        numbers[lane.key] = nil
        numbersOfName[lane.key.name]?.remove(number)
        if numbersOfName[lane.key.name]?.isEmpty == true { numbersOfName[lane.key.name] = nil }
        lanes[number] = nil
        free.append(number)
        if let group = lane.group { leaveGroup(group, number) }
        queues[lane.queue]?.lanes.remove(number)
        closeQueueIfUnused(lane.queue)
        return true
    }

    /// Forgets every task, lane and rule: Storage tells them anew.
    ///
    /// - Parameter knowsPast: Nothing can have started before. Else rates are kept as if all had just been
    ///   used up.
    mutating func removeAll(knowsPast: Bool) {
        let now = now
        self = Lanes()
        self.now = now
        since = knowsPast ? 0 : now
    }

    private mutating func queueNumber(_ name: String) -> QueueNumber {
        if let number = queueNumbers[name] { return number }
        let number = freeQueues.popLast() ?? queues.count
        if number == queues.count { queues.append(nil) }
        queues[number] = Queue(name: name, limit: StartLimit(since: since))
        queueNumbers[name] = number
        return number
    }

    private mutating func closeQueueIfUnused(_ number: QueueNumber) {
        guard let queue = queues[number], queue.lanes.isEmpty, queue.groups == 0,
            queue.rules.isDefault
        else { return }
        queueNumbers[queue.name] = nil
        queues[number] = nil
        freeQueues.append(number)
        for kind in kinds.indices {
            kinds[kind]?.lanes[number] = nil
            kinds[kind]?.queues.set(number, rank: nil)
        }
    }

    private mutating func groupNumber(_ id: GroupID) -> GroupNumber {
        if let number = groupNumbers[id] { return number }
        let number = freeGroups.popLast() ?? groups.count
        if number == groups.count { groups.append(nil) }
        groups[number] = Group(id: id, limit: StartLimit(since: since))
        groupNumbers[id] = number
        queues[id.queue]?.groups += 1
        // only now, or its queue might go with the last of them
        forgetCooledGroups()
        refreshGroup(number)
        return number
    }

    private mutating func leaveGroup(_ number: GroupNumber, _ lane: Number) {
        groups[number]?.lanes.removeAll { $0 == lane }
        forgetIfUnused(number)
        forgetCooledGroups()
    }

    /// Forgets a key that no lane has, or has it looked at once its rate has nothing to say any more.
    private mutating func forgetIfUnused(_ number: GroupNumber) {
        guard let group = groups[number], group.lanes.isEmpty, !group.isCooling else { return }
        let rate = queues[group.id.queue]?.rules.keyRate
        guard let rate, !group.limit.isForgettable(rate, now: now) else {
            groupNumbers[group.id] = nil
            groups[number] = nil
            freeGroups.append(number)
            queues[group.id.queue]?.groups -= 1
            return closeQueueIfUnused(group.id.queue)
        }
        groups[number]?.isCooling = true
        cooling.insert(CoolingGroup(time: now + rate.span(of: rate.burst), number: number))
    }

    /// Two are looked at for each that comes or goes, so that they never become more than a rate lets them.
    private mutating func forgetCooledGroups() {
        for _ in 0..<2 {
            guard let first = cooling.min, first.time <= now else { return }
            cooling.removeMin()
            groups[first.number]?.isCooling = false
            forgetIfUnused(first.number)
        }
    }

    // MARK: Kinds of workers

    /// A worker that can run these names; the kind is kept for its successor when it goes.
    mutating func join(_ names: Set<String>) -> KindNumber {
        if let number = kinds.firstIndex(where: { $0?.names == names }) {
            kinds[number]?.workers += 1
            return number
        }
        let number = freeKind()
        var kind = Kind(names: names)
        kind.workers = 1
        kinds[number] = kind
        for lane in names.flatMap({ numbersOfName[$0] ?? [] }) {
            lanes[lane]?.kinds.append(number)
            refresh(lane)
        }
        return number
    }

    mutating func leave(_ kind: KindNumber) {
        kinds[kind]?.workers -= 1
    }

    /// How many workers can run a lane's tasks.
    func workers(of number: Number) -> Int {
        self[number].kinds.reduce(0) { $0 + (kinds[$1]?.workers ?? 0) }
    }

    /// Whether there is a worker for this name.
    func hasWorker(for name: String) -> Bool {
        kinds.contains { $0.map { $0.workers > 0 && $0.names.contains(name) } ?? false }
    }

    /// Kinds without a worker that are kept.
    private static let emptyKindsMax = 8

    private mutating func freeKind() -> KindNumber {
        let empty = kinds.indices.filter { kinds[$0].map { $0.workers == 0 } ?? false }
        if empty.count > Self.emptyKindsMax, let oldest = empty.first { dropKind(oldest) }
        if let gap = kinds.firstIndex(where: { $0 == nil }) { return gap }
        kinds.append(nil)
        return kinds.count - 1
    }

    private mutating func dropKind(_ number: KindNumber) {
        for lane in (kinds[number]?.names ?? []).flatMap({ numbersOfName[$0] ?? [] }) {
            lanes[lane]?.kinds.removeAll { $0 == number }
        }
        kinds[number] = nil
    }

    // MARK: Rules

    /// What a queue's rules are.
    func rules(of queue: String) -> QueueRules {
        queueNumbers[queue].flatMap { queues[$0]?.rules } ?? QueueRules()
    }

    /// Every queue that has tasks or rules.
    var allQueues: [Queue] { queues.compactMap { $0 } }

    /// Rules hold from now on; what runs already goes on.
    mutating func set(_ rules: QueueRules, of queue: String) {
        let number = queueNumber(queue)
        guard let old = queues[number]?.rules, old != rules else {
            return closeQueueIfUnused(number)
        }
        queues[number]?.rules = rules
        queuesWithMost += (rules.maxQueued == nil ? 0 : 1) - (old.maxQueued == nil ? 0 : 1)
        for lane in queues[number]?.lanes ?? [] {
            if old.ageing != rules.ageing { lanes[lane]?.ageing = rules.ageing }
            if let group = places[lane].group { refreshGroup(group) }
            refresh(lane)
        }
        refreshQueue(number)
        closeQueueIfUnused(number)
    }

    /// Whether any queue takes so many adds only.
    var limitsQueues: Bool { queuesWithMost > 0 }

    /// Why a queue takes no more adds; `nil` if it does.
    func mostQueued(in queue: String) -> UInt32? {
        guard let number = queueNumbers[queue], let queue = queues[number],
            let most = queue.rules.maxQueued, queue.waiting + queue.unanswered >= Int(most)
        else { return nil }
        return most
    }

    /// Whether an operator has paused the lane's queue.
    func isPaused(_ number: Number) -> Bool {
        queues[places[number].queue]?.rules.isPaused == true
    }

    /// Whether a task of this lane may start, as far as limits go.
    func isOpen(_ number: Number) -> Bool {
        let place = places[number]
        return queues[place.queue]?.isOpen == true && (place.group.map(isGroupOpen) ?? true)
    }

    /// Whether a new task of this lane would overtake nobody if it started at once.
    func isNext(_ number: Number) -> Bool {
        guard isOpen(number) else { return false }
        return lanes[number]?.queued.isEmpty == true
            && queues[places[number].queue]?.unanswered == 0
    }

    /// When something opens that tasks wait for.
    var nextAlarm: UInt64? { alarms.min?.time }

    /// Looks at what may open by now.
    mutating func ring() {
        while let alarm = alarms.min, alarm.time <= now {
            alarms.removeMin()
            switch alarm.subject {
            case .queue(let number):
                queues[number]?.alarm = .max
                refreshQueue(number)
            case .group(let number):
                groups[number]?.alarm = .max
                refreshGroup(number)
            }
        }
    }

    private func isGroupOpen(_ number: GroupNumber) -> Bool { groups[number]?.isOpen == true }

    private mutating func refreshQueue(_ number: QueueNumber) {
        guard let queue = queues[number] else { return }
        let rules = queue.rules
        let opens =
            rules.isPaused ? nil : queue.limit.opens(rules.concurrency, rules.rate, now: now)
        queues[number]?.isOpen = opens == 0
        if let opens, opens > 0, queue.waiting > 0, opens < queue.alarm {
            queues[number]?.alarm = opens
            alarms.insert(Alarm(time: opens, subject: .queue(number)))
        }
        guard queue.isOpen != (opens == 0) else { return }
        for kind in kinds.indices { arrange(number, in: kind) }
    }

    private mutating func refreshGroup(_ number: GroupNumber) {
        guard let group = groups[number], let rules = queues[group.id.queue]?.rules else { return }
        let opens = group.limit.opens(rules.keyConcurrency, rules.keyRate, now: now)
        groups[number]?.isOpen = opens == 0
        if let opens, opens > 0, opens < group.alarm,
            group.lanes.contains(where: { lanes[$0].map { $0.waiting > 0 } ?? false })
        {
            groups[number]?.alarm = opens
            alarms.insert(Alarm(time: opens, subject: .group(number)))
        }
        guard group.isOpen != (opens == 0) else { return }
        for lane in group.lanes { refresh(lane) }
    }

    // MARK: Who is next

    /// The lane whose first task goes before those of all others that this kind of workers can run.
    func best(for kind: KindNumber) -> Number? {
        guard let queue = kinds[kind]?.queues.first else { return nil }
        return kinds[kind]?.lanes[queue]?.first
    }

    /// The same for several kinds.
    func best(for kinds: [KindNumber]) -> Number? {
        var first: (rank: LeaseRank, kind: KindNumber)?
        for kind in kinds {
            guard let rank = self.kinds[kind]?.queues.firstRank else { continue }
            if first.map({ rank < $0.rank }) ?? true { first = (rank, kind) }
        }
        return first.flatMap { best(for: $0.kind) }
    }

    /// The lane whose first suspect goes before those of all others.
    func bestSuspect(except stuck: Set<Number>) -> Number? {
        suspectLanes.lazy
            .filter { !stuck.contains($0) && self.isOpen($0) }
            .compactMap { number in self.lanes[number]?.suspects.firstRank.map { ($0, number) } }
            .min { $0.0 < $1.0 }?.1
    }

    /// A lane has another first task, or may be served, or not.
    private mutating func refresh(_ number: Number) {
        let (queue, group) = (places[number].queue, places[number].group)
        let isServed = group.map(isGroupOpen) ?? true
        let rank = isServed ? lanes[number]?.queued.firstRank : nil
        for kind in lanes[number]?.kinds ?? [] {
            let isChanged = kinds[kind]?.lanes[queue, default: IndexedHeap()]
                .set(number, rank: rank)
            if isChanged == true { arrange(queue, in: kind) }
        }
    }

    private mutating func arrange(_ queue: QueueNumber, in kind: KindNumber) {
        let isServed = queues[queue]?.isOpen == true
        let rank = isServed ? kinds[kind]?.lanes[queue]?.firstRank : nil
        kinds[kind]?.queues.set(queue, rank: rank)
    }

    // MARK: Tasks
    //
    // A lane is never copied here: its line would be copied with it by the next change.

    mutating func push(_ task: QueuedTask, isSuspect: Bool, to number: Number) {
        count(1, in: number)
        if isSuspect {
            suspectsWaiting += 1
            suspectLanes.insert(number)
            // withdrawn from there perhaps, and queued again since
            lanes[number]?.suspects.putBack(task)
        } else {
            let first = lanes[number]?.queued.first
            lanes[number]?.queued.insert(task)
            if lanes[number]?.queued.first != first { refresh(number) }
        }
        watch(number)
    }

    /// The same for many tasks at once, which differ in nothing but their places.
    mutating func push(_ run: QueuedRun, to number: Number) {
        guard !run.isSuspect else {
            for place in run.places {
                push(QueuedTask(place, priority: run.priority), isSuspect: true, to: number)
            }
            return
        }
        count(run.places.count, in: number)
        lanes[number]?.queued.insert(run)
        refresh(number)
        watch(number)
    }

    /// Takes the head, the suspects' where `isSuspect`.
    mutating func popHead(of number: Number, isSuspect: Bool) -> QueuedTask? {
        let head =
            isSuspect ? lanes[number]?.suspects.removeFirst() : lanes[number]?.queued.removeFirst()
        guard let head else { return nil }
        count(-1, in: number)
        if isSuspect { dropSuspect(from: number) } else { refresh(number) }
        return head
    }

    /// A task that waits is cancelled.
    mutating func withdraw(_ task: QueuedTask, isSuspect: Bool, from number: Number) {
        count(-1, in: number)
        guard isSuspect else {
            lanes[number]?.queued.withdraw(task)
            return refresh(number)
        }
        lanes[number]?.suspects.withdraw(task)
        dropSuspect(from: number)
    }

    /// A task that had ended waits again, no suspect; it may have been withdrawn from the line.
    mutating func putBack(_ task: QueuedTask, to number: Number) {
        count(1, in: number)
        lanes[number]?.queued.putBack(task)
        refresh(number)
        watch(number)
    }

    private mutating func count(_ change: Int, in number: Number) {
        waiting += change
        queues[places[number].queue]?.waiting += change
    }

    private mutating func dropSuspect(from number: Number) {
        suspectsWaiting -= 1
        if lanes[number]?.suspects.isEmpty == true { suspectLanes.remove(number) }
    }

    mutating func addUnanswered(_ change: Int, to number: Number) {
        unanswered += change
        lanes[number]?.unanswered += change
        queues[places[number].queue]?.unanswered += change
    }

    /// A task of this lane is leased.
    ///
    /// - Parameters:
    ///   - number: The lane.
    ///   - isStart: It starts now; else it runs already.
    mutating func beginLease(in number: Number, isStart: Bool) {
        let (queue, group) = (places[number].queue, places[number].group)
        lanes[number]?.leased += 1
        let rules = queues[queue]?.rules
        queues[queue]?.limit.begin(rules?.rate, now: now, isStart: isStart)
        if let group { groups[group]?.limit.begin(rules?.keyRate, now: now, isStart: isStart) }
        refreshLimits(queue, group)
    }

    /// A lease on a task of this lane has ended.
    mutating func endLease(in number: Number) {
        let (queue, group) = (places[number].queue, places[number].group)
        lanes[number]?.leased -= 1
        queues[queue]?.limit.end()
        if let group { groups[group]?.limit.end() }
        refreshLimits(queue, group)
    }

    mutating func addScheduled(_ change: Int, to number: Number) {
        lanes[number]?.scheduled += change
    }

    private mutating func refreshLimits(_ queue: QueueNumber, _ group: GroupNumber?) {
        guard queues[queue]?.rules.isDefault == false else { return }
        if let group { refreshGroup(group) }
        refreshQueue(queue)
    }

    /// Something waits in this lane: what a rate closes is looked at again when it opens.
    private mutating func watch(_ number: Number) {
        let (queue, group) = (places[number].queue, places[number].group)
        if queues[queue]?.isOpen == false, queues[queue]?.rules.isPaused == false {
            refreshQueue(queue)
        }
        if let group, !isGroupOpen(group) { refreshGroup(group) }
    }
}

/// A group that is only remembered until its rate has nothing to say any more.
private struct CoolingGroup: Comparable {
    let time: UInt64
    let number: Int

    static func < (left: Self, right: Self) -> Bool { left.time < right.time }
}
