// Part of QTasks. License: see LICENSE.

import QTasksModel

/// The queued tasks of an index, line by line, each line in the order of its adds.
///
/// Numbers are given out again, so their order isn't that of the adds once tasks have been removed. It
/// takes time and memory (8 bytes a task, 16 where a line is out of order) in proportion to the tasks.
struct QueuedOrder {
    /// Tasks that differ in nothing but their place.
    struct Line {
        let key: Key
        /// Where its tasks are in ``QueuedOrder/numbers``.
        fileprivate(set) var range: Range<Int>
        fileprivate var newest: UInt64
        fileprivate var isInOrder = true
    }

    struct Key: Hashable {
        var lane: LaneTable.Number
        var priority: Int16
        var isSuspect: Bool
    }

    /// By lane, and in each by priority, the higher first.
    private(set) var lines: [Line] = []

    /// Each with its place in line in the upper half, so far as it was needed.
    private var places: ContiguousArray<UInt64> = []

    private var lineOfKey: [Key: Int] = [:]
    // most lanes have one priority and no suspects
    private var lineOfLane: ContiguousArray<Int32>

    private var oldest = UInt64.max
    private var newest: UInt64 = 0

    init(_ index: TaskIndex, lanes: Int) {
        lineOfLane = ContiguousArray(repeating: -1, count: lanes)
        count(index)
        arrange()
        fill(index)
        for line in lines.indices where !lines[line].isInOrder { sort(lines[line].range, index) }
        lines.removeAll { $0.range.isEmpty }
    }

    /// The tasks of one line, in order.
    func numbers(of line: Line) -> some Collection<TaskIndex.Number> {
        places[line.range].lazy.map { TaskIndex.Number(truncatingIfNeeded: $0) }
    }

    // MARK: In two passes

    private mutating func count(_ index: TaskIndex) {
        for number in 0..<index.endNumber {
            let core = index.core(number)
            guard core.status == .new else { continue }
            let sequence = core.sequence
            let line = line(of: core)
            let end = lines[line].range.upperBound
            lines[line].range = 0..<end + 1
            if sequence < lines[line].newest { lines[line].isInOrder = false }
            lines[line].newest = sequence
            oldest = min(oldest, sequence)
            newest = max(newest, sequence)
        }
    }

    /// Gives each line its room, still empty.
    private mutating func arrange() {
        lines.sort { $0.key < $1.key }
        lineOfKey.removeAll(keepingCapacity: true)
        lineOfLane = ContiguousArray(repeating: -1, count: lineOfLane.count)
        var start = 0
        for index in lines.indices {
            lineOfKey[lines[index].key] = index
            let count = lines[index].range.count
            lines[index].range = start..<start
            start += count
        }
        places = ContiguousArray(repeating: 0, count: start)
    }

    private mutating func fill(_ index: TaskIndex) {
        // without a place in the upper half where that doesn't fit: such a line is sorted the slow way
        let fits = places.isEmpty || newest - oldest <= UInt64(UInt32.max)
        for number in 0..<index.endNumber {
            let core = index.core(number)
            guard core.status == .new else { continue }
            let line = line(of: core)
            let range = lines[line].range
            let place = fits ? core.sequence - oldest : 0
            places[range.upperBound] = place << 32 | UInt64(number)
            lines[line].range = range.lowerBound..<range.upperBound + 1
        }
    }

    @inline(__always)
    private mutating func line(of core: TaskCore) -> Int {
        let key = Key(
            lane: core.lane,
            priority: core.priority,
            isSuspect: core.flags.contains(.suspect)
        )
        let usual = Int(lineOfLane[Int(key.lane)])
        if usual >= 0, lines[usual].key == key { return usual }
        return unusualLine(key)
    }

    private mutating func unusualLine(_ key: Key) -> Int {
        let line = lineOfKey[key] ?? lines.count
        if line == lines.count {
            lines.append(Line(key: key, range: 0..<0, newest: 0))
            lineOfKey[key] = line
        }
        if lineOfLane[Int(key.lane)] < 0 { lineOfLane[Int(key.lane)] = Int32(line) }
        return line
    }

    // MARK: Sorting

    private mutating func sort(_ range: Range<Int>, _ index: TaskIndex) {
        guard newest - oldest <= UInt64(UInt32.max) else {
            return places[range].sort {
                index.core(TaskIndex.Number($0)).sequence
                    < index.core(TaskIndex.Number($1)).sequence
            }
        }
        if range.count < 256 { places[range].sort() } else { sortByDigits(range) }
    }

    /// Digit by digit from the lowest of the upper half on: O(n).
    private mutating func sortByDigits(_ range: Range<Int>) {
        let digitBits = 11
        let buckets = 1 << digitBits
        let bits = UInt64.bitWidth - (newest - oldest).leadingZeroBitCount
        var source = ContiguousArray(places[range])
        var target = ContiguousArray<UInt64>(repeating: 0, count: range.count)
        for shift in stride(from: 32, to: 32 + bits, by: digitBits) {
            var starts = ContiguousArray<Int>(repeating: 0, count: buckets + 1)
            for place in source { starts[Int(place >> UInt64(shift)) & (buckets - 1) + 1] += 1 }
            for bucket in 0..<buckets { starts[bucket + 1] += starts[bucket] }
            for place in source {
                let digit = Int(place >> UInt64(shift)) & (buckets - 1)
                target[starts[digit]] = place
                starts[digit] += 1
            }
            swap(&source, &target)
        }
        places.replaceSubrange(range, with: source)
    }
}

extension QueuedOrder.Key: Comparable {
    static func < (left: Self, right: Self) -> Bool {
        if left.lane != right.lane { return left.lane < right.lane }
        if left.priority != right.priority { return left.priority > right.priority }
        return !left.isSuspect && right.isSuspect
    }
}
