// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// The tasks that a program can run, by name.
public struct TaskRegistry: Sendable {
    /// In the order of registration.
    public private(set) var handlers: [TaskHandler] = []

    private var names: Set<String> = []

    public init() {}

    /// Adds a task.
    ///
    /// - Throws: ``QTasksError/Code/badName`` where the name isn't one, and
    ///   ``QTasksError/Code/badConfiguration`` where it is taken or the time limit isn't above
    ///   zero; nothing is then added.
    public mutating func register(_ handler: TaskHandler) throws(QTasksError) {
        guard TaskName.isValid(handler.name) else {
            throw QTasksError(
                .badName,
                "task name '\(handler.name)': a name is 1 to 255 bytes of UTF-8 without control "
                    + "characters"
            )
        }
        if let limit = handler.timeLimit, limit <= .zero {
            throw QTasksError(
                .badConfiguration,
                "task '\(handler.name)' has a time limit of \(limit): it must be above zero"
            )
        }
        guard names.insert(handler.name).inserted else {
            throw QTasksError(
                .badConfiguration,
                "two tasks are named '\(handler.name)': give one of them another name"
            )
        }
        handlers.append(handler)
    }

    /// The task of that name, if there is one.
    public subscript(name: String) -> TaskHandler? {
        names.contains(name) ? handlers.first { $0.name == name } : nil
    }
}

/// Finds a name's number by its bytes as they stand in a message, without making a string of them.
struct NameTable: Sendable {
    private struct Entry {
        var hash: UInt64
        var name: [UInt8]
        var number: Int
    }

    // Open addressing, at most half full: a search always meets an empty place.
    private var entries: [Entry?]

    /// - Parameter names: No two alike; each one's number is its place.
    init(_ names: [String]) {
        var size = 8
        while size < names.count * 2 { size *= 2 }
        entries = Array(repeating: nil, count: size)
        for (number, name) in names.enumerated() {
            let name = Array(name.utf8)
            let hash = name.withUnsafeBytes { Self.hash($0) }
            var place = Int(truncatingIfNeeded: hash) & (size - 1)
            while entries[place] != nil { place = (place + 1) & (size - 1) }
            entries[place] = Entry(hash: hash, name: name, number: number)
        }
    }

    func number(of name: UnsafeRawBufferPointer) -> Int? {
        let hash = Self.hash(name)
        var place = Int(truncatingIfNeeded: hash) & (entries.count - 1)
        while let entry = entries[place] {
            if entry.hash == hash && entry.name.elementsEqual(name) { return entry.number }
            place = (place + 1) & (entries.count - 1)
        }
        return nil
    }

    /// FNV-1a, 64 bits (draft-eastlake-fnv): names are short and are our own.
    private static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        return hash
    }
}
