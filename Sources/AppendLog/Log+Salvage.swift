// Part of QTasks. License: see LICENSE.

import Glibc

// What tools need that work on a store nobody serves.

/// The one writer's lock of a store, held for as long as this object lives.
public final class WriterLock {
    private let file: LogFileHandle
    private let files: any LogFiles

    /// Takes it.
    ///
    /// - Throws: ``AppendLogError/locked(path:holder:)`` where somebody else has it.
    public init(_ directory: String, files: any LogFiles = PosixFiles()) throws(AppendLogError) {
        self.files = files
        file = try files.lock("\(directory)/\(LogFormat.lockName)")
    }

    deinit {
        files.close(file)
    }
}

extension Log {
    /// Makes an empty store that looks as if it had been opened `incarnation` times.
    ///
    /// What is salvaged from another store goes on where that one was: no incarnation comes twice.
    ///
    /// - Throws: `EEXIST` where a store is there already.
    public static func make(
        at directory: String,
        incarnation: UInt32,
        files: any LogFiles = PosixFiles()
    ) throws(AppendLogError) {
        _ = try files.createDirectory(directory)
        let path = "\(directory)/\(LogFormat.metaName)"
        guard try files.list(directory).isEmpty else {
            throw .system(call: "create", path: directory, errno: EEXIST)
        }
        var meta = MetaPage()
        meta.incarnation = incarnation
        meta.isClean = true
        let file = try files.open(path + LogFormat.unfinished, .createNew)
        defer { files.close(file) }
        try files.writeMeta(meta, to: file)
        meta.transaction += 1
        try files.writeMeta(meta, to: file)
        try files.rename(path + LogFormat.unfinished, to: path)
        try files.syncDirectory(directory)
    }

    /// What the files will take up once those that nothing refers to are gone, in bytes.
    public var bytesReferred: Int {
        let first = segments.first?.index ?? 0
        return board.look { jobs in
            jobs.keeping.sizes.reduce(MetaPage.fileBytes) { sum, size in
                size.key >= first ? sum + size.value : sum
            } + jobs.keeping.checkpoints.reduce(0) { $0 + $1.bytes }
        }
    }
}
