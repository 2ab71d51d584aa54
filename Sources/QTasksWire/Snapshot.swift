// Part of QTasks. License: see LICENSE.
//
// What a Broker is told when its session begins: every unfinished task. Inside the system, as
// StorageProtocol.swift is.

package import QTasksModel

/// An unfinished task as Broker and Storage name it to each other: 12 bytes instead of an ID's 16.
///
/// The handle is Storage's number for it, good for one session. It may be another task's by the time
/// that a proposal arrives, so Storage looks at the sequence as well.
package struct QueuedPlace: Sendable, Hashable {
    static let byteCount = 12

    /// Of its add: its place in line.
    package var sequence: UInt64
    package var handle: UInt32

    package init(sequence: UInt64, handle: UInt32) {
        self.sequence = sequence
        self.handle = handle
    }

    package func write(to writer: inout WireWriter) {
        writer.integer(sequence)
        writer.integer(handle)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        sequence = try reader.integer("sequence")
        handle = try reader.integer("handle")
    }
}

/// Where a task stands in line: what the Broker has to know of each unfinished task.
package struct Placement: Sendable, Hashable {
    package var place: QueuedPlace
    package var priority: Int16
    /// It was in a process that died with several tasks in it: it runs alone next.
    package var isSuspect: Bool
    package var name: String
    package var queue: String
    /// What limits per key go by; empty: it has none.
    package var key: [UInt8]

    package init(
        place: QueuedPlace,
        priority: Int16,
        isSuspect: Bool,
        name: String,
        queue: String,
        key: [UInt8] = []
    ) {
        self.place = place
        self.priority = priority
        self.isSuspect = isSuspect
        self.name = name
        self.queue = queue
        self.key = key
    }

    package func write(to writer: inout WireWriter) {
        place.write(to: &writer)
        writer.line(priority, isSuspect, name, queue, key)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        place = try QueuedPlace(from: &reader)
        (priority, isSuspect, name, queue, key) = try reader.line()
    }
}

/// Queued tasks that differ in nothing but their places.
package struct QueuedRun: Sendable, Hashable {
    package var priority: Int16
    /// See ``Placement/isSuspect``.
    package var isSuspect: Bool
    package var name: String
    package var queue: String
    /// See ``Placement/key``.
    package var key: [UInt8]
    /// By sequence, ascending.
    package var places: [QueuedPlace]

    package init(
        priority: Int16,
        isSuspect: Bool,
        name: String,
        queue: String,
        key: [UInt8] = [],
        places: [QueuedPlace]
    ) {
        self.priority = priority
        self.isSuspect = isSuspect
        self.name = name
        self.queue = queue
        self.key = key
        self.places = places
    }

    /// How many places about so many bytes hold.
    package static func places(in bytes: Int) -> Int { bytes / QueuedPlace.byteCount }

    package func write(to writer: inout WireWriter) {
        writer.line(priority, isSuspect, name, queue, key)
        writer.counted(packed)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        (priority, isSuspect, name, queue, key) = try reader.line()
        let packed = try reader.counted("places")
        guard packed.count.isMultiple(of: QueuedPlace.byteCount) else {
            throw .invalid(field: "places")
        }
        places = Self.unpack(packed)
    }

    // a million of them in a few milliseconds: field by field through the writer it would be ten times that
    private var packed: [UInt8] {
        let byteCount = places.count * QueuedPlace.byteCount
        return [UInt8](unsafeUninitializedCapacity: byteCount) { target, written in
            let target = UnsafeMutableRawBufferPointer(target)
            var offset = 0
            for place in places {
                target.storeBytes(
                    of: place.sequence.littleEndian,
                    toByteOffset: offset,
                    as: UInt64.self
                )
                target.storeBytes(
                    of: place.handle.littleEndian,
                    toByteOffset: offset + 8,
                    as: UInt32.self
                )
                offset += QueuedPlace.byteCount
            }
            written = byteCount
        }
    }

    private static func unpack(_ packed: UnsafeRawBufferPointer) -> [QueuedPlace] {
        let count = packed.count / QueuedPlace.byteCount
        return [QueuedPlace](unsafeUninitializedCapacity: count) { target, written in
            for index in 0..<count {
                let offset = index * QueuedPlace.byteCount
                let sequence = packed.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
                let handle = packed.loadUnaligned(fromByteOffset: offset + 8, as: UInt32.self)
                target.initializeElement(
                    at: index,
                    to: QueuedPlace(
                        sequence: UInt64(littleEndian: sequence),
                        handle: UInt32(littleEndian: handle)
                    )
                )
            }
            written = count
        }
    }
}

/// One item of `SNAPSHOT`, which tells a Broker every unfinished task.
package enum SnapshotItem: Sendable, Equatable {
    case queued(QueuedRun)
    case scheduled(Placement, due: DueTime)
    case running(Placement, id: TaskID, lease: Lease, worker: WorkerID)
    case worker(id: WorkerID, process: WorkerProcess)
    /// Told before any task.
    case queue(String, QueueRules)
    /// Nothing follows.
    case end

    package func write(to writer: inout WireWriter) {
        switch self {
        case .queued(let run):
            writer.u8(1)
            run.write(to: &writer)
        case .scheduled(let placement, let due):
            writer.u8(2)
            placement.write(to: &writer)
            writer.integer(due.rawValue)
        case .running(let placement, let id, let lease, let worker):
            writer.u8(3)
            placement.write(to: &writer)
            writer.id(id)
            writer.integer(lease.rawValue)
            writer.worker(worker)
        case .worker(let id, let process):
            writer.u8(4)
            writer.worker(id)
            process.write(to: &writer)
        case .end:
            writer.u8(5)
        case .queue(let queue, let rules):
            writer.u8(6)
            writer.text(queue)
            rules.write(to: &writer)
        }
    }

    package init(from reader: inout WireReader) throws(WireError) {
        switch try reader.u8("item") {
        case 1: self = .queued(try QueuedRun(from: &reader))
        case 2:
            self = .scheduled(try Placement(from: &reader), due: try reader.dueTime())
        case 3:
            self = .running(
                try Placement(from: &reader),
                id: try reader.id("task ID"),
                lease: try reader.lease("lease"),
                worker: try reader.worker("worker")
            )
        case 4:
            self = .worker(
                id: try reader.worker("worker"),
                process: try WorkerProcess(from: &reader)
            )
        case 5: self = .end
        case 6: self = .queue(try reader.text("queue"), try QueueRules(from: &reader))
        default: throw .invalid(field: "item")
        }
    }
}

extension WireWriter {
    /// What decides which line a task stands in.
    fileprivate mutating func line(
        _ priority: Int16,
        _ isSuspect: Bool,
        _ name: String,
        _ queue: String,
        _ key: [UInt8]
    ) {
        integer(priority)
        u8((isSuspect ? 1 : 0) | (key.isEmpty ? 0 : 2))
        u8(UInt8(name.utf8.count))
        u8(UInt8(queue.utf8.count))
        raw(name.utf8)
        raw(queue.utf8)
        guard !key.isEmpty else { return }
        integer(UInt16(key.count))
        raw(key)
    }
}

extension WireReader {
    fileprivate mutating func line() throws(WireError) -> (Int16, Bool, String, String, [UInt8]) {
        let priority = try integer("priority", as: Int16.self)
        let flags = try u8("flags")
        let nameBytes = Int(try u8("name byte count"))
        let queueBytes = Int(try u8("queue byte count"))
        let name = try text(nameBytes, "name")
        let queue = try text(queueBytes, "queue")
        var key: [UInt8] = []
        if flags & 2 != 0 {
            let keyBytes = Int(try integer("key byte count", as: UInt16.self))
            key = Array(try raw(keyBytes, "key"))
        }
        return (priority, flags & 1 != 0, name, queue, key)
    }
}
