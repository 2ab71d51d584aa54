// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksWire
import Testing

@testable import QTasksStorage

extension TaskEntry {
    /// A task to which nothing has happened since its add.
    static func fresh(_ id: TaskID, sequence: UInt64) -> TaskEntry {
        TaskEntry(
            id: id,
            sequence: sequence,
            lastSequence: sequence,
            added: RecordPosition(segment: 3, offset: UInt32(truncatingIfNeeded: sequence &* 8)),
            due: .none,
            contentCRC: UInt32(truncatingIfNeeded: id.low),
            lane: 2,
            priority: -5,
            status: .new,
            flags: .writtenSuffices
        )
    }

    /// Whether nothing but what fresh tasks have is told apart.
    fileprivate mutating func change(_ random: inout SeededGenerator, _ sequence: UInt64) {
        switch Int.random(in: 0..<7, using: &random) {
        case 0: lease = Lease(incarnation: 1, counter: .random(in: 1...9, using: &random))
        case 1: due = DueTime(boot: .random(in: 1...9, using: &random))
        case 2: (attempt, worker) = (attempt &+ 1, .random(in: 0..<9, using: &random))
        case 3: flags.formSymmetricDifference(.suspect)
        case 4: addedBytes = 8 * .random(in: 0..<4096, using: &random)
        case 5:
            finished = RecordPosition(segment: 9, offset: 8 * .random(in: 0..<9, using: &random))
            (finishedBytes, epoch, failures) = (64, epoch &+ 1, failures &+ 1)
            (status, deaths) = (.error, deaths &+ 1)
        default:
            // as if it had never been touched
            let (old, bytes) = (self, addedBytes)
            self = .fresh(old.id, sequence: old.sequence)
            addedBytes = bytes
            return
        }
        lastSequence = sequence
    }
}

/// An index beside a dictionary that must agree with it.
private struct IndexWork {
    var random: SeededGenerator
    var index = TaskIndex(seed: 7)
    var model: [TaskID: TaskEntry] = [:]
    var numbers: [TaskID: TaskIndex.Number] = [:]
    var ids: [TaskID] = []
    var sequence: UInt64 = 0

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
    }

    mutating func step() {
        sequence += 1
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<40: insert()
        case 40..<60: change()
        case 60..<80: remove()
        default: lookUp()
        }
    }

    private mutating func insert() {
        let id = TaskID(high: random.next(), low: random.next())
        let entry = TaskEntry.fresh(id, sequence: sequence)
        numbers[id] = index.insert(entry)
        model[id] = entry
        ids.append(id)
    }

    private mutating func change() {
        guard let id = ids.randomElement(using: &random), let number = numbers[id] else { return }
        var entry = index[number]
        entry.change(&random, sequence)
        model[id] = entry
        // both ways to change it
        if sequence.isMultiple(of: 2) {
            index[number] = entry
        } else {
            index[number].attempt = entry.attempt
            index[number] = entry
        }
    }

    private mutating func remove() {
        guard !ids.isEmpty else { return }
        ids.swapAt(.random(in: ids.indices, using: &random), ids.count - 1)
        let id = ids.removeLast()
        guard let number = numbers.removeValue(forKey: id) else { return }
        index.remove(number)
        model[id] = nil
    }

    private mutating func lookUp() {
        let isKnown = Bool.random(using: &random)
        let id = isKnown ? ids.randomElement(using: &random) : nil
        guard let id else {
            let stranger = TaskID(high: random.next(), low: random.next())
            #expect(index.number(of: stranger) == nil)
            return
        }
        guard index.number(of: id) == numbers[id] else {
            Issue.record("\(id) isn't where it was put")
            return
        }
    }

    func check() {
        #expect(index.count == model.count)
        var seen = 0
        for number in index.numbers {
            seen += 1
            let entry = index[number]
            if model[entry.id] != entry || numbers[entry.id] != number {
                Issue.record("\(entry) is another than \(String(describing: model[entry.id]))")
                return
            }
        }
        #expect(seen == model.count)
        for (id, number) in numbers where index.number(of: id) != number {
            Issue.record("\(id) isn't found")
            return
        }
    }
}

@Suite
struct `A task index` {
    @Test(arguments: seeds(3))
    func `knows what a dictionary knows, whatever is done to both`(seed: UInt64) {
        var work = IndexWork(seed: seed)
        for _ in 0..<5 {
            for _ in 0..<20_000 { work.step() }
            work.check()
        }
    }

    @Test func `takes no more than 72 bytes for each of a million fresh tasks`() {
        #expect(MemoryLayout<TaskCore>.stride == 48 && MemoryLayout<TaskProgress>.stride == 64)
        var index = TaskIndex(seed: 1)
        var random = SeededGenerator(seed: 1)
        var worst = 0.0
        for sequence in 1...1_000_000 as ClosedRange<UInt64> {
            let id = TaskID(high: random.next(), low: random.next())
            _ = index.insert(.fresh(id, sequence: sequence))
            guard sequence >= 100_000, sequence.isMultiple(of: 1000) else { continue }
            worst = max(worst, Double(index.bytes) / Double(sequence))
        }
        #expect(worst <= 72, "also right after its shards were split")
    }

    @Test func `gives a number out again, and its sequence tells the tasks apart`() {
        var index = TaskIndex(seed: 1)
        let ids = (0..<3).map { TaskID(high: 1, low: $0) }
        let first = index.insert(.fresh(ids[0], sequence: 1))
        let second = index.insert(.fresh(ids[1], sequence: 2))
        #expect(index.isInAddOrder)
        index[first].attempt = 1
        index.remove(first)
        #expect(!index.isUsed(first) && index.isUsed(second) && !index.isUsed(.max))
        #expect(Array(index.numbers) == [second])
        #expect(index.insert(.fresh(ids[2], sequence: 3)) == first)
        #expect(index[first].sequence == 3 && index[first].attempt == 0)
        #expect(!index.isInAddOrder && index.endNumber == 2)
        #expect(index.number(of: ids[0]) == nil && index.number(of: ids[2]) == first)
    }

    @Test func `gives back what only a task with a history takes`() {
        var index = TaskIndex(seed: 1)
        let numbers = (0..<10_000).map {
            index.insert(.fresh(TaskID(high: 0, low: $0), sequence: $0 + 1))
        }
        let fresh = index.bytes
        for _ in 0..<3 {
            for number in numbers { index[number].attempt = 1 }
            #expect(index.bytes == fresh + 10_000 * 64, "the rows are used again")
            for number in numbers { index[number].attempt = 0 }
        }
    }

    @Test func `lists unfinished tasks in the order of their adds, also where numbers are not`() {
        var index = TaskIndex(seed: 1)
        var numbers = (1...9).map {
            index.insert(.fresh(TaskID(high: 0, low: $0), sequence: $0))
        }
        index[numbers[6]].status = .success
        #expect(index.unfinished(after: 5, atMost: 3).map(\.sequence) == [6, 8, 9])
        for place in [1, 7] { index.remove(numbers[place]) }
        #expect(index.unfinished(after: 0, atMost: 9).map(\.sequence) == [1, 3, 4, 5, 6, 9])
        numbers.append(index.insert(.fresh(TaskID(high: 0, low: 10), sequence: 10)))
        #expect(index.unfinished(after: 3, atMost: 9).map(\.sequence) == [4, 5, 6, 9, 10])
        #expect(index.unfinished(after: 3, atMost: 2).map(\.sequence) == [4, 5])
    }
}

@Suite
struct `A packed size` {
    @Test func `is exact up to 32,760 bytes and then never less than the size`() {
        for bytes in stride(from: 0, through: 32_760, by: 8) {
            #expect(PackedSize(bytes: bytes).bytes == bytes)
        }
        var bytes = 32_768
        while bytes < 1 << 30 {
            let kept = PackedSize(bytes: bytes).bytes
            #expect(kept >= bytes && kept - bytes <= bytes / 2048 + 8, "\(bytes)")
            #expect(PackedSize(bytes: kept).bytes == kept, "what was kept is kept again")
            bytes += bytes / 97 / 8 * 8 + 8
        }
        #expect(PackedSize(bytes: .max).bytes == 4095 << 15 * 8)
    }
}
