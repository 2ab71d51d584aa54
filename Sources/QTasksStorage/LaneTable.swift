// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
package import QTasksModel
package import QTasksWire

/// The pairs of task name and queue that tasks have, each under a number, and how many of its tasks
/// are in which status.
package struct LaneTable: Equatable {
    package typealias Number = UInt32

    /// Tasks of one name in one queue.
    struct Lane: Equatable {
        var name: String
        var queue: String
        /// By ``TaskStatus/code`` - 1.
        var byStatus = [UInt64](repeating: 0, count: TaskStatus.allCases.count)
        fileprivate var hash: UInt32
    }

    private(set) var lanes: [Lane] = []
    private var slots = [UInt32](repeating: 0, count: 64)

    package init() {}

    subscript(number: Number) -> Lane { lanes[Int(number)] }

    /// The number for a name and a queue in UTF-8; a new one where they are.
    ///
    /// An empty queue stands for `default`.
    mutating func number(
        name: UnsafeRawBufferPointer,
        queue: UnsafeRawBufferPointer
    ) -> Number {
        guard !queue.isEmpty else {
            var queue = TaskName.defaultQueue
            return queue.withUTF8 { number(name: name, queue: UnsafeRawBufferPointer($0)) }
        }
        let hash = Self.hash(name, queue)
        var slot = Int(hash) & (slots.count - 1)
        while slots[slot] != 0 {
            let number = slots[slot] - 1
            if matches(number, hash, name, queue) { return number }
            slot = (slot + 1) & (slots.count - 1)
        }
        return insert(name, queue, hash)
    }

    /// A task of this lane went from one status to another; `nil` before its add, and when it goes.
    mutating func count(_ number: Number, from old: TaskStatus?, to new: TaskStatus?) {
        if let old { lanes[Int(number)].byStatus[Int(old.code) - 1] -= 1 }
        if let new { lanes[Int(number)].byStatus[Int(new.code) - 1] += 1 }
    }

    /// How many tasks have this status, in all lanes.
    package func count(of status: TaskStatus) -> UInt64 {
        lanes.reduce(0) { $0 + $1.byStatus[Int(status.code) - 1] }
    }

    /// Appends the counts of every lane.
    package func writeCounts(to writer: inout WireWriter) {
        for lane in lanes {
            TaskCounts(name: lane.name, queue: lane.queue, byStatus: lane.byStatus)
                .write(to: &writer)
        }
    }

    private func matches(
        _ number: Number,
        _ hash: UInt32,
        _ name: UnsafeRawBufferPointer,
        _ queue: UnsafeRawBufferPointer
    ) -> Bool {
        let index = Int(number)
        return lanes[index].hash == hash && Self.isEqual(lanes[index].name, name)
            && Self.isEqual(lanes[index].queue, queue)
    }

    private static func isEqual(_ text: String, _ bytes: UnsafeRawBufferPointer) -> Bool {
        let count = bytes.count
        guard text.utf8.count == count else { return false }
        let isEqual = text.utf8.withContiguousStorageIfAvailable { text in
            guard let text = text.baseAddress, let bytes = bytes.baseAddress else { return true }
            return memcmp(text, bytes, count) == 0
        }
        return isEqual ?? text.utf8.elementsEqual(bytes)
    }

    private mutating func insert(
        _ name: UnsafeRawBufferPointer,
        _ queue: UnsafeRawBufferPointer,
        _ hash: UInt32
    ) -> Number {
        let lane = Lane(
            name: String(decoding: name, as: UTF8.self),
            queue: String(decoding: queue, as: UTF8.self),
            hash: hash
        )
        lanes.append(lane)
        if lanes.count * 2 > slots.count {
            slots = [UInt32](repeating: 0, count: slots.count * 2)
            for (index, lane) in lanes.enumerated() { place(Number(index), hash: lane.hash) }
        } else {
            place(Number(lanes.count - 1), hash: hash)
        }
        return Number(lanes.count - 1)
    }

    private mutating func place(_ number: Number, hash: UInt32) {
        var slot = Int(hash) & (slots.count - 1)
        while slots[slot] != 0 { slot = (slot + 1) & (slots.count - 1) }
        slots[slot] = number + 1
    }

    private static func hash(
        _ name: UnsafeRawBufferPointer,
        _ queue: UnsafeRawBufferPointer
    ) -> UInt32 {
        let crc = clinux_crc32c(UInt32(name.count), name.baseAddress, name.count)
        return clinux_crc32c(crc, queue.baseAddress, queue.count)
    }
}
