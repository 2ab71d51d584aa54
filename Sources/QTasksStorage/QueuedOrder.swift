// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire

/// The queued tasks of an index, line by line, each line in the order of its adds.
///
/// Numbers are given out again, so their order isn't that of the adds once tasks have been removed. It
/// takes time and memory (8 bytes a task, 16 where a line is out of order) in proportion to the tasks.
struct QueuedOrder {
    /// Tasks that differ in nothing but their place.
    struct Line {
        let key: Key
        // where its tasks are among all
        fileprivate var start = 0
        fileprivate var end = 0
        fileprivate var newest: UInt64 = 0
        fileprivate var isInOrder = true

        /// How many tasks stand in it.
        var count: Int { end - start }
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

    /// Whether every place in line, from the oldest's, fits into half of a word; else they are all 0,
    /// and lines that are out of order are sorted the slow way.
    private var fits: Bool { places.isEmpty || newest - oldest <= UInt64(UInt32.max) }

    private var oldest = UInt64.max
    private var newest: UInt64 = 0

    /// Those with a key are left out.
    init(_ index: TaskIndex, keys: TaskKeys, lanes: Int) {
        lineOfLane = ContiguousArray(repeating: -1, count: lanes)
        count(index, keys)
        arrange()
        fill(index, keys)
        for line in lines where !line.isInOrder { sort(line.start..<line.end, index) }
    }

    /// The tasks of one line, in order, as the Broker is told of them: `atMost` from `start` on.
    func places(
        of line: Line,
        from start: Int,
        atMost count: Int,
        in index: TaskIndex
    ) -> [QueuedPlace] {
        let end = min(line.start + start + count, line.end)
        return places[line.start + start..<end].map { place in
            let number = TaskIndex.Number(truncatingIfNeeded: place)
            let sequence = fits ? oldest + place >> 32 : index.core(number).sequence
            return QueuedPlace(sequence: sequence, handle: number)
        }
    }

    // MARK: In two passes

    private mutating func count(_ index: TaskIndex, _ keys: TaskKeys) {
        let hasKeys = !keys.isEmpty
        index.forEachCore { number, core in
            guard core.status == .new, !hasKeys || keys.number(of: number) == nil else { return }
            let sequence = core.sequence
            let line = line(of: core)
            lines[line].end += 1
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
            let count = lines[index].end
            (lines[index].start, lines[index].end) = (start, start)
            start += count
        }
        places = ContiguousArray(repeating: 0, count: start)
    }

    private mutating func fill(_ index: TaskIndex, _ keys: TaskKeys) {
        let hasKeys = !keys.isEmpty
        index.forEachCore { number, core in
            guard core.status == .new, !hasKeys || keys.number(of: number) == nil else { return }
            let line = line(of: core)
            let place = fits ? core.sequence - oldest : 0
            places[lines[line].end] = place << 32 | UInt64(number)
            lines[line].end += 1
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
            lines.append(Line(key: key))
            lineOfKey[key] = line
        }
        if lineOfLane[Int(key.lane)] < 0 { lineOfLane[Int(key.lane)] = Int32(line) }
        return line
    }

    // MARK: Sorting

    private mutating func sort(_ range: Range<Int>, _ index: TaskIndex) {
        guard fits else {
            return places[range].sort {
                index.core(TaskIndex.Number($0)).sequence
                    < index.core(TaskIndex.Number($1)).sequence
            }
        }
        if range.count < 256 { places[range].sort() } else { sortByDigits(range) }
    }

    /// Digit by digit from the lowest of the upper half on: O(n).
    private mutating func sortByDigits(_ range: Range<Int>) {
        let bits = UInt64.bitWidth - (newest - oldest).leadingZeroBitCount
        var room = ContiguousArray<UInt64>(repeating: 0, count: range.count)
        places.withUnsafeMutableBufferPointer { places in
            room.withUnsafeMutableBufferPointer { room in
                let home = UnsafeMutableBufferPointer(rebasing: places[range])
                var (source, target) = (home, room)
                for shift in stride(from: 32, to: 32 + bits, by: Self.digitBits) {
                    Self.sort(source, into: target, byDigitAt: UInt64(shift))
                    swap(&source, &target)
                }
                if source.baseAddress != home.baseAddress { _ = home.update(from: source) }
            }
        }
    }

    private static let digitBits = 11

    private static func sort(
        _ source: UnsafeMutableBufferPointer<UInt64>,
        into target: UnsafeMutableBufferPointer<UInt64>,
        byDigitAt shift: UInt64
    ) {
        let mask = 1 << digitBits - 1
        var starts = ContiguousArray<Int>(repeating: 0, count: mask + 2)
        for place in source { starts[Int(place >> shift) & mask + 1] += 1 }
        for digit in 0...mask { starts[digit + 1] += starts[digit] }
        for place in source {
            let digit = Int(place >> shift) & mask
            target[starts[digit]] = place
            starts[digit] += 1
        }
    }
}

extension QueuedOrder.Key: Comparable {
    static func < (left: Self, right: Self) -> Bool {
        if left.lane != right.lane { return left.lane < right.lane }
        if left.priority != right.priority { return left.priority > right.priority }
        return !left.isSuspect && right.isSuspect
    }
}
