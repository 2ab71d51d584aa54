// Part of QTasks. License: see LICENSE.

/// The last bytes of a stream, however long it is.
struct Tail {
    private let limit: Int
    private var kept: [UInt8] = []

    init(limit: Int) {
        self.limit = limit
    }

    mutating func add(_ chunk: UnsafeRawBufferPointer) {
        kept += chunk.suffix(limit)
        // cut now and then: a stream in small pieces isn't moved at each of them
        if kept.count > 2 * limit { kept.removeFirst(kept.count - limit) }
    }

    var bytes: [UInt8] { kept.suffix(limit) }
}
