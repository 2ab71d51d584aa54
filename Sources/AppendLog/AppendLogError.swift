// Part of QTasks. License: see LICENSE.

import Glibc

/// Why the log could not do what it was asked.
///
/// A write that a crash cut short is not here: it was never called durable, and opening cuts it
/// off.
public enum AppendLogError: Error, Hashable, Sendable {
    /// A system call failed; `call` is its name and `errno` what it set.
    case system(call: String, path: String, errno: Int32)

    /// The payload is longer than a record may be. Nothing was appended.
    case payloadTooLarge(bytes: Int, limit: Int)

    /// The disk is full and the record does not fit into what is already zero-filled. Nothing was
    /// appended; ``Log/retrySpace()`` asks the disk again.
    case outOfSpace(bytes: Int, preparedBytesLeft: Int)

    /// A record does not match its checksums, or there is none at that place.
    case corrupt(path: String, offset: Int)

    /// Neither meta page is whole, or the meta file is gone while segments are there. Nothing was
    /// changed.
    case metaUnreadable(path: String)

    /// The file is not one that this module wrote. Nothing was changed.
    case notAStore(path: String)

    /// A later version of this module wrote the store. Nothing was changed.
    case newerFormat(path: String, version: UInt32, supported: UInt32)

    /// A record is of a kind that the log's owner neither knows nor may pass over (``LogListener/knows``):
    /// most likely a later version of it wrote the store. Nothing was changed.
    case unknownKind(path: String, kind: UInt8, sequence: UInt64, format: UInt32)

    /// Another writer has the store; `holder` is its process id where the lock file tells it.
    case locked(path: String, holder: Int32?)

    /// A file system on which locks, mappings or `fdatasync` can't be relied on.
    case unsuitableFileSystem(path: String, name: String)
}

extension AppendLogError {
    /// Whether the disk or the user's quota was full.
    public var isNoSpace: Bool {
        switch self {
        case .system(_, _, let errno): errno == ENOSPC || errno == EDQUOT
        case .outOfSpace: true
        case .payloadTooLarge, .corrupt, .metaUnreadable, .notAStore, .newerFormat, .unknownKind,
            .locked, .unsuitableFileSystem:
            false
        }
    }
}

extension AppendLogError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .system(let call, let path, let errno):
            "\(call) \(path): \(String(cString: strerror(errno))) (errno \(errno))"
        case .payloadTooLarge(let bytes, let limit):
            "payload of \(bytes) bytes: a record holds at most \(limit)"
        case .outOfSpace(let bytes, let left):
            "the disk is full: a record of \(bytes) bytes does not fit into the \(left) prepared"
        case .corrupt(let path, let offset):
            "\(path): record at byte \(offset) does not match its checksum"
        case .metaUnreadable(let path):
            "\(path): no whole meta page; restore it, or salvage the segments to a new store"
        case .notAStore(let path):
            "\(path): not a store of this program; name another directory"
        case .newerFormat(let path, let version, let supported):
            "\(path): format version \(version), read up to \(supported); use the newer program"
        case .unknownKind(let path, let kind, let sequence, let format):
            "\(path): record \(sequence) is of kind \(kind), which this version of the program (format "
                + "version \(format)) doesn't know: a later one wrote it; use that one, since without the record "
                + "tasks could come back that were ended"
        case .locked(let path, let holder):
            "\(path): process \(holder.map { "\($0)" } ?? "unknown") has it; stop it first"
        case .unsuitableFileSystem(let path, let name):
            "\(path): a store can't live on \(name); use a local disk"
        }
    }
}
