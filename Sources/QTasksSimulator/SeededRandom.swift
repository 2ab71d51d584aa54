// Part of QTasks. License: see LICENSE.

import AppendLog

/// Where every decision of a simulation comes from: the same seed gives the same run.
package struct SeededRandom: RandomNumberGenerator, Sendable {
    private var numbers: SimulatedDisk.Chance

    package init(seed: UInt64) {
        numbers = SimulatedDisk.Chance(seed: seed)
    }

    package mutating func next() -> UInt64 { numbers.next() }

    /// A number in `0..<count`.
    mutating func below(_ count: Int) -> Int {
        precondition(count > 0, "nothing to choose from")
        return Int(truncatingIfNeeded: next() % UInt64(count))
    }

    mutating func between(_ range: ClosedRange<Int>) -> Int {
        range.lowerBound + below(range.count)
    }

    /// Nanoseconds, evenly between two bounds.
    mutating func nanoseconds(_ range: ClosedRange<UInt64>) -> UInt64 {
        range.lowerBound + next() % (range.upperBound - range.lowerBound + 1)
    }

    /// `true` that many times in a hundred.
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }

    mutating func pick<Element>(_ elements: [Element]) -> Element {
        elements[below(elements.count)]
    }
}

extension UInt64 {
    /// Nanoseconds.
    static var microsecond: UInt64 { 1_000 }
    static var millisecond: UInt64 { 1_000_000 }
    static var second: UInt64 { 1_000_000_000 }
}
