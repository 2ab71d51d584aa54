// Part of QTasks. License: see LICENSE.

import HeapModule

/// What happens next: by virtual time, and by the seed among what happens at once.
struct EventQueue {
    private struct Event: Comparable {
        var time: UInt64
        var tie: UInt64
        var serial: UInt64
        var action: () -> Void

        static func < (left: Self, right: Self) -> Bool {
            (left.time, left.tie, left.serial) < (right.time, right.tie, right.serial)
        }

        static func == (left: Self, right: Self) -> Bool { left.serial == right.serial }
    }

    private var events = Heap<Event>()
    private var serialNext: UInt64 = 0

    var isEmpty: Bool { events.isEmpty }

    mutating func insert(at time: UInt64, tie: UInt64, _ action: @escaping () -> Void) {
        events.insert(Event(time: time, tie: tie, serial: serialNext, action: action))
        serialNext += 1
    }

    mutating func next() -> (time: UInt64, action: () -> Void)? {
        events.popMin().map { ($0.time, $0.action) }
    }
}
