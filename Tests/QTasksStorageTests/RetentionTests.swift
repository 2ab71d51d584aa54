// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksStorage
import Testing

private let second: Int64 = 1_000_000_000

private func moment(_ seconds: Int64) -> Timestamp { Timestamp(nanoseconds: seconds * second) }

@Suite
struct `What is kept no longer` {
    /// With one lane for each name of `names`.
    private struct Kept {
        var state: RetentionState
        var sequence: UInt64 = 0
        let names: [String]

        init(_ text: String, names: [String] = ["a"]) throws {
            state = RetentionState(rules: try #require(RetentionRules(text)))
            self.names = names
            state.opened()
        }

        mutating func finish(
            _ number: UInt32,
            lane: UInt32 = 0,
            _ status: TaskStatus = .success,
            at seconds: Int64,
            own: UInt64? = nil
        ) {
            sequence += 1
            state.finished(
                number,
                sequence: sequence,
                lane: lane,
                name: names[Int(lane)],
                status: status,
                at: moment(seconds),
                ownSeconds: own
            )
        }

        mutating func due(_ seconds: Int64) -> [UInt32] {
            state.due(now: moment(seconds), atMost: 100).map(\.number)
        }

        /// What is due goes.
        mutating func expire(_ seconds: Int64, lane: UInt32 = 0, _ status: TaskStatus = .success) {
            for task in state.due(now: moment(seconds), atMost: 100) {
                state.removed(sequence: task.sequence, lane: lane, status: status)
            }
        }
    }

    @Test func `is what is older than its age, failures later than the rest`() throws {
        var kept = try Kept("1h/2h")
        kept.finish(1, at: 1000)
        kept.finish(2, .cancel, at: 1001)
        kept.finish(3, .error, at: 1002)
        kept.finish(4, .dead, at: 1003)
        #expect(kept.state.nextDeadline == moment(4600))
        #expect(kept.due(4599) == [])
        #expect(kept.due(4601) == [1, 2])
        #expect(Set(kept.due(8300)) == [1, 2, 3, 4])
    }

    @Test func `is told again until it has gone, and few at a time`() throws {
        var kept = try Kept("1h")
        for number in 1...10 { kept.finish(UInt32(number), at: 1000) }
        for _ in 0..<2 {
            let due = kept.state.due(now: moment(5000), atMost: 3).map(\.number)
            #expect(due == [1, 2, 3])
        }
        kept.state.removed(sequence: 1, lane: 0, status: .success)
        let due = kept.state.due(now: moment(5000), atMost: 3).map(\.number)
        #expect(due == [2, 3, 4])
        kept.expire(5000)
        #expect(kept.state.nextDeadline == nil && kept.state.count == 0)
    }

    @Test func `are the oldest of too many of a name, but none within ten minutes (P3)`() throws {
        var kept = try Kept("1h,2", names: ["a", "b"])
        for number in 1...4 { kept.finish(UInt32(number), at: 1000 + Int64(number)) }
        kept.finish(5, lane: 1, at: 1010)
        kept.finish(6, .error, at: 1010)
        #expect(kept.state.nextDeadline == moment(1601))
        #expect(kept.due(1600) == [])
        #expect(kept.due(1601) == [1])
        #expect(kept.due(2000) == [1, 2])
        kept.expire(2000)
        #expect(kept.due(2000) == [])
        #expect(kept.state.nextDeadline == moment(1003 + 3600))
    }

    @Test func `is not what went on or went meanwhile`() throws {
        var kept = try Kept("1h,2")
        for number in 1...4 { kept.finish(UInt32(number), at: 1000) }
        kept.state.removed(sequence: 2, lane: 0, status: .success)
        kept.state.removed(sequence: 2, lane: 0, status: .success)
        kept.state.removed(sequence: 99, lane: 7, status: .error)
        #expect(kept.due(2000) == [1])
        #expect(kept.due(4600) == [1, 3, 4])
        kept.finish(2, at: 3000)
        #expect(kept.due(4600) == [1, 3, 4])
    }

    @Test func `is by its add's own age where that has one, uncounted and ten minutes at least`()
        throws
    {
        var kept = try Kept("1h,1")
        kept.finish(1, at: 1000, own: 7200)
        kept.finish(2, at: 1000, own: 1)
        kept.finish(3, .dead, at: 1000, own: .max)
        kept.finish(4, at: 1000)
        #expect(kept.due(1599) == [])
        #expect(kept.due(1600) == [2])
        #expect(Set(kept.due(4600)) == [2, 4])
        kept.state.removed(sequence: 1, lane: 0, status: .success)
        #expect(Set(kept.due(1_000_000_000)) == [2, 4])
    }

    @Test func `is up to a sixteenth later for the odd ones of very many ages`() throws {
        var kept = try Kept("1h")
        for number in 0..<5000 { kept.finish(UInt32(number), at: 1000, own: 601 + UInt64(number)) }
        for number in 0..<5000 where number.isMultiple(of: 7) {
            kept.state.removed(sequence: UInt64(number) + 1, lane: 0, status: .success)
        }
        for age: Int64 in [600, 650, 700, 1500, 4000, 5600, 6000] {
            let due = Set(kept.state.due(now: moment(1000 + age), atMost: 10_000).map(\.number))
            for number: Int64 in 0..<5000 where !number.isMultiple(of: 7) {
                let isDue = due.contains(UInt32(number))
                if 601 + number > age { #expect(!isDue) }
                if (601 + number) * 17 / 16 < age { #expect(isDue) }
            }
        }
    }
}

/// The same by looking at every task each time.
private struct NaiveRetention {
    struct Task: Hashable {
        var number: UInt32
        var sequence: UInt64
        var lane: UInt32
        var status: TaskStatus
        var ended: Int64
        var own: UInt64?
    }

    static let names = ["a", "b", "a", "c"]
    let rules: RetentionRules
    var tasks: [Task] = []

    /// When each may go, in seconds.
    var ends: [(task: Task, seconds: Int64)] {
        tasks.map { task in
            guard task.own == nil else {
                let age = RetentionRules.age(ownSeconds: task.own ?? 0)
                return (task, task.ended + Int64(age) / second)
            }
            let name = Self.names[Int(task.lane)]
            let (age, count) = rules.limit(name: name, status: task.status)
            let later = tasks.count {
                $0.own == nil && Self.names[Int($0.lane)] == name
                    && $0.status.isFailure == task.status.isFailure && $0.sequence > task.sequence
            }
            let isExcess = count.map { later >= $0 } ?? false
            return (task, task.ended + (isExcess ? 600 : Int64(age) / second))
        }
    }

    func due(_ now: Int64) -> Set<RetentionState.Finished> {
        Set(
            ends.filter { $0.seconds <= now }
                .map { .init(number: $0.task.number, sequence: $0.task.sequence) }
        )
    }
}

@Suite
struct `Retention and a naive model of it` {
    @Test(arguments: 1...30)
    func `agree about any history`(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let rules = try #require(RetentionRules("20m/40m,5;b=1h,3;c=10m/11m"))
        var state = RetentionState(rules: rules)
        var naive = NaiveRetention(rules: rules)
        var now: Int64 = 1_000_000
        var sequence: UInt64 = 0
        func newTask() -> NaiveRetention.Task {
            sequence += UInt64.random(in: 1...3, using: &random)
            return NaiveRetention.Task(
                number: UInt32.random(in: 0..<50, using: &random),
                sequence: sequence,
                lane: UInt32.random(in: 0..<4, using: &random),
                status: [.success, .error, .cancel, .dead].randomElement(using: &random) ?? .dead,
                ended: now,
                own: Int.random(in: 0..<5, using: &random) == 0
                    ? UInt64.random(in: 100...1500, using: &random) / 50 * 50 : nil
            )
        }
        func tell(_ task: NaiveRetention.Task, _ state: inout RetentionState) {
            state.finished(
                task.number,
                sequence: task.sequence,
                lane: task.lane,
                name: NaiveRetention.names[Int(task.lane)],
                status: task.status,
                at: moment(task.ended),
                ownSeconds: task.own
            )
        }
        func forget(_ task: NaiveRetention.Task, _ state: inout RetentionState) {
            state.removed(sequence: task.sequence, lane: task.lane, status: task.status)
        }
        // what the log had: copies and removals in any order
        for _ in 0..<60 {
            now += Int64.random(in: 0...30, using: &random)
            naive.tasks.append(newTask())
        }
        var replayed = naive.tasks.shuffled(using: &random)
        replayed += replayed.prefix(10)
        for (index, task) in replayed.enumerated() {
            tell(task, &state)
            guard index.isMultiple(of: 6) else { continue }
            forget(task, &state)
            naive.tasks.removeAll { $0 == task }
        }
        state.opened()
        for _ in 0..<400 {
            now += Int64.random(in: 0...120, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                if let task = naive.tasks.randomElement(using: &random) {
                    forget(task, &state)
                    naive.tasks.removeAll { $0 == task }
                }
            case 1, 2:
                let task = newTask()
                naive.tasks.append(task)
                tell(task, &state)
            default:
                let some = state.due(now: moment(now), atMost: 4)
                #expect(some.count == min(4, naive.due(now).count))
                for task in naive.tasks
                where some.contains(.init(number: task.number, sequence: task.sequence)) {
                    forget(task, &state)
                    naive.tasks.removeAll { $0 == task }
                }
            }
            let due = state.due(now: moment(now), atMost: .max)
            #expect(Set(due) == naive.due(now) && Set(due).count == due.count)
            #expect(state.count == naive.tasks.count)
            #expect(state.nextDeadline == naive.ends.map(\.seconds).min().map { moment($0) })
        }
    }
}

/// A seed's own random numbers (SplitMix64).
private struct SplitMix: RandomNumberGenerator {
    var seed: UInt64

    mutating func next() -> UInt64 {
        seed &+= 0x9E37_79B9_7F4A_7C15
        var mixed = seed
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
