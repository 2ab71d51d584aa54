// Part of QTasks. License: see LICENSE.
//
// Part of the store's format, as StoredRecord.swift is.

package import QTasksModel
package import QTasksWire

/// `REQUEUE`: at (8), task ID (16), the epoch that begins (2).
package struct StoredRequeue {
    package var at: Timestamp
    package var id: TaskID
    package var epoch: UInt16

    func writeHead(to writer: inout WireWriter) {
        writer.integer(at.nanoseconds)
        writer.id(id)
        writer.integer(epoch)
    }

    init(at: Timestamp, id: TaskID, epoch: UInt16) {
        self.at = at
        self.id = id
        self.epoch = epoch
    }

    package init(from reader: inout WireReader) throws(WireError) {
        at = Timestamp(nanoseconds: try reader.integer("at"))
        id = try reader.id("task ID")
        epoch = try reader.integer("epoch")
    }
}
