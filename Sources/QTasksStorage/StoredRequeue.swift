// Part of QTasks. License: see LICENSE.
//
// Part of the store's format, as StoredRecord.swift is.

package import QTasksModel
package import QTasksWire

/// `REQUEUE`: at (8), task ID (16), the epoch that begins (2), and where the task holds a unique key
/// again, that as its add has it (option 13) to the end.
package struct StoredRequeue {
    package var at: Timestamp
    package var id: TaskID
    package var epoch: UInt16
    /// Without a window: that is reckoned from the add, and never taken again.
    package var unique: UniqueOption?

    func writeHead(to writer: inout WireWriter) {
        writer.integer(at.nanoseconds)
        writer.id(id)
        writer.integer(epoch)
        unique?.write(to: &writer)
    }

    init(at: Timestamp, id: TaskID, epoch: UInt16, unique: UniqueOption? = nil) {
        self.unique = unique
        self.at = at
        self.id = id
        self.epoch = epoch
    }

    package init(from reader: inout WireReader) throws(WireError) {
        at = Timestamp(nanoseconds: try reader.integer("at"))
        id = try reader.id("task ID")
        epoch = try reader.integer("epoch")
        if !reader.isAtEnd { unique = try UniqueOption(from: &reader) }
    }
}
