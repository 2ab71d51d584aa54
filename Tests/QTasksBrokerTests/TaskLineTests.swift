// Part of QTasks. License: see LICENSE.

import QTasksWire
import Testing

@testable import QTasksBroker

@Suite
struct `A line of tasks` {
    private struct Generator: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state ^ state >> 29) &* 0x9E37_79B9_7F4A_7C15
        }
    }

    private static func task(_ sequence: UInt64, priority: Int16 = 0) -> QueuedTask {
        let place = QueuedPlace(
            sequence: sequence,
            handle: UInt32(truncatingIfNeeded: sequence &* 7)
        )
        return QueuedTask(place, priority: priority)
    }

    @Test(arguments: [nil, 3] as [UInt32?])
    func `takes many at once as it takes them one by one`(ageing: UInt32?) {
        var (one, many) = (TaskLine(), TaskLine())
        (one.ageing, many.ageing) = (ageing, ageing)
        let runs: [(priority: Int16, sequences: [UInt64])] = [
            (0, [5, 7, 9]), (2, [6]), (0, [8, 20, 21]), (1, []), (2, [3, 30]),
        ]
        for run in runs {
            let places = run.sequences.map { Self.task($0).place }
            for place in places { one.insert(QueuedTask(place, priority: run.priority)) }
            many.insert(
                QueuedRun(
                    priority: run.priority,
                    isSuspect: false,
                    name: "a",
                    queue: "b",
                    places: places
                )
            )
            #expect(one.count == many.count)
        }
        while let task = one.removeFirst() { #expect(many.removeFirst() == task) }
        #expect(many.isEmpty && many.first == nil)
    }

    /// Compares with an array that is kept sorted; tasks that were taken come back now and then, others
    /// are withdrawn and put back.
    private static func run(_ random: inout Generator, _ priorities: ClosedRange<Int16>) {
        var line = TaskLine()
        var model: [QueuedTask] = []
        var taken: [QueuedTask] = []
        var withdrawn: [QueuedTask] = []
        var sequence: UInt64 = 0
        func insert(_ task: QueuedTask, isBack: Bool = false) {
            if isBack { line.putBack(task) } else { line.insert(task) }
            var (low, high) = (0, model.count)
            while low < high {
                let middle = (low + high) / 2
                if model[middle] < task { low = middle + 1 } else { high = middle }
            }
            model.insert(task, at: low)
        }
        for step in 0..<20_000 {
            // it grows and shrinks in turn, so that runs come and go
            let grows = step / 2500 % 2 == 0
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<(grows ? 7 : 3):
                // seldom farther than a chunk can tell apart
                let far = Int.random(in: 0..<500, using: &random) == 0
                sequence += far ? 1 << 33 : .random(in: 1...5, using: &random)
                insert(task(sequence, priority: .random(in: priorities, using: &random)))
            case 7 where !model.isEmpty:
                let place = Int.random(in: model.indices, using: &random)
                line.withdraw(model[place])
                withdrawn.append(model.remove(at: place))
            case 8 where !withdrawn.isEmpty:
                insert(
                    withdrawn.remove(at: .random(in: withdrawn.indices, using: &random)),
                    isBack: true
                )
            case 9 where !taken.isEmpty:
                insert(taken.remove(at: .random(in: taken.indices, using: &random)))
            default:
                let first = model.isEmpty ? nil : model.removeFirst()
                let found = line.removeFirst()
                guard found == first, found?.place == first?.place else {
                    Issue.record("\(String(describing: found)), not \(String(describing: first))")
                    return
                }
                if let first { taken.append(first) }
            }
            guard line.first == model.first, line.count == model.count else {
                Issue.record("begins otherwise after \(step) steps")
                return
            }
        }
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func `is in the order of a sorted list, whatever comes and goes (P6)`(seed: UInt64) {
        var random = Generator(state: seed)
        Self.run(&random, 0...0)
        Self.run(&random, -3...3)
        Self.run(&random, .min ... .max)
    }

    @Test func `hands out a long run as it came, across its chunks`() {
        var line = TaskLine()
        for sequence in 1...5000 as ClosedRange<UInt64> { line.insert(Self.task(sequence)) }
        for sequence in 1...5000 as ClosedRange<UInt64> {
            #expect(line.removeFirst()?.place == Self.task(sequence).place)
        }
        #expect(line.isEmpty && line.first == nil && line.removeFirst() == nil)
    }

    @Test func `keeps what comes back in its old place`() {
        var line = TaskLine()
        for sequence in [5, 9, 7, 1] as [UInt64] { line.insert(Self.task(sequence)) }
        line.insert(Self.task(8, priority: 3))
        line.insert(Self.task(3, priority: 3))
        let order = (0..<6).compactMap { _ in line.removeFirst()?.sequence }
        #expect(order == [3, 8, 1, 5, 7, 9])
    }

    @Test func `is made of small pieces`() {
        #expect(MemoryLayout<QueuedTask>.stride == 16)
        #expect(MemoryLayout<ScheduledTask>.stride == 32)
    }
}
