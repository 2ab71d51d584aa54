// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing

@testable import QTasksStorage

@Suite
struct `The order of queued tasks` {
    private struct Expected: Hashable {
        var key: QueuedOrder.Key
        var sequences: [UInt64]
    }

    private static func told(_ index: TaskIndex, lanes: Int) -> [Expected] {
        let order = QueuedOrder(index, keys: TaskKeys(), lanes: lanes)
        return order.lines.map { line in
            // in two pieces, as a message may break it up
            let half = line.count / 2
            let places =
                order.places(of: line, from: 0, atMost: half, in: index)
                + order.places(of: line, from: half, atMost: .max / 2, in: index)
            for place in places {
                #expect(index[place.handle].sequence == place.sequence)
            }
            return Expected(key: line.key, sequences: places.map(\.sequence))
        }
    }

    private static func expected(_ index: TaskIndex) -> [Expected] {
        let queued = index.numbers.map { index[$0] }.filter { $0.status == .new }
        let lines = Dictionary(grouping: queued) {
            QueuedOrder.Key(lane: $0.lane, priority: $0.priority, isSuspect: $0.isSuspect)
        }
        return lines.sorted { $0.key < $1.key }
            .map { Expected(key: $0.key, sequences: $0.value.map(\.sequence).sorted()) }
    }

    /// `spread`: how far apart sequences are at most.
    private static func index(
        _ random: inout SeededGenerator,
        tasks: Int,
        lanes: UInt32,
        spread: UInt64
    ) -> TaskIndex {
        var index = TaskIndex(seed: 1)
        var sequence: UInt64 = 0
        for _ in 0..<tasks {
            sequence += .random(in: 1...spread, using: &random)
            var entry = TaskEntry.fresh(TaskID(high: 0, low: sequence), sequence: sequence)
            entry.lane = .random(in: 0..<lanes, using: &random)
            entry.priority = Bool.random(using: &random) ? 0 : .random(in: -2...2, using: &random)
            if Int.random(in: 0..<20, using: &random) == 0 { entry.flags.insert(.suspect) }
            if Int.random(in: 0..<10, using: &random) == 0 { entry.status = .process }
            _ = index.insert(entry)
            // so that numbers are given out again
            let number = TaskIndex.Number.random(in: 0..<index.endNumber, using: &random)
            if Int.random(in: 0..<3, using: &random) == 0, index.isUsed(number) {
                index.remove(number)
            }
        }
        return index
    }

    @Test(arguments: seeds(6))
    func `is that of lanes, priorities and adds, also where numbers are used again (P6)`(
        seed: UInt64
    ) {
        var random = SeededGenerator(seed: seed)
        let spread: UInt64 = [1, 3, 1 << 30][Int(seed) % 3]
        for (tasks, lanes) in [(0, 1), (1, 1), (100, 3), (9000, 2), (3000, 40)] {
            let index = Self.index(&random, tasks: tasks, lanes: UInt32(lanes), spread: spread)
            #expect(Self.told(index, lanes: lanes) == Self.expected(index), "\(tasks) tasks")
        }
    }

    @Test func `is told to a new session in full, in messages of 256 KiB`() throws {
        var bench = Bench()
        var places: [String: [QueuedPlace]] = [:]
        for number in 0..<22_500 {
            let name = number.isMultiple(of: 5) ? "few" : "many"
            let task = bench.submission(name)
            try bench.add(task)
            places[name, default: []].append(bench.place(of: task.id))
        }
        var told: [String: [QueuedPlace]] = [:]
        for item in try bench.snapshot() {
            guard case .queued(let run) = item else { continue }
            told[run.name, default: []] += run.places
        }
        #expect(told == places)
    }
}
