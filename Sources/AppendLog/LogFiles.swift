// Part of QTasks. License: see LICENSE.

/// An open file of a ``LogFiles``; for ``PosixFiles`` the descriptor.
public struct LogFileHandle: Hashable, Sendable {
    /// What the file layer knows it by.
    public let rawValue: Int32

    /// For file layers.
    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }
}

/// How a file is opened.
public enum LogFileMode: Hashable, Sendable {
    /// To read only; it must be there.
    case read
    /// To read and write; it must be there.
    case readWrite
    /// To read and write; made where it isn't there.
    case create
    /// To read and write; it must not be there yet (`EEXIST`).
    case createNew
}

/// What a directory lies on, as far as the log cares.
public enum LogFileSystem: Hashable, Sendable {
    case ordinary
    /// tmpfs or ramfs: gone with the power, whatever `fdatasync` says.
    case memory
    /// NFS, 9p, SMB: locks and mappings aren't to be relied on; refused.
    case network(String)
}

/// How much room a file system has, in bytes.
public struct LogFileSystemSpace: Hashable, Sendable {
    /// What this process may still use.
    public var freeBytes: Int
    /// What it has in all.
    public var totalBytes: Int

    /// For file layers.
    public init(freeBytes: Int, totalBytes: Int) {
        self.freeBytes = freeBytes
        self.totalBytes = totalBytes
    }
}

/// A file's bytes, mapped read-only for as long as this object lives.
public final class LogMapping {
    /// Valid for as long as this object lives.
    public let bytes: UnsafeRawBufferPointer
    private let populateBytes: () -> Bool
    private let release: (UnsafeRawBufferPointer) -> Void

    /// `release` is called once, when nobody holds the mapping any more; `populate` brings all of it
    /// into memory and says whether that could be done.
    public init(
        _ bytes: UnsafeRawBufferPointer,
        populate: @escaping () -> Bool = { true },
        release: @escaping (UnsafeRawBufferPointer) -> Void
    ) {
        self.bytes = bytes
        populateBytes = populate
        self.release = release
    }

    /// Brings all of it into memory with one system call instead of a fault for every few pages.
    ///
    /// - Returns: `false` where the disk can't read it.
    public func populate() -> Bool { populateBytes() }

    deinit {
        release(bytes)
    }
}

/// The file layer under the log: a seam, so that tests and the simulator can put their own disk
/// there.
///
/// Every call may come from any thread and throws ``AppendLogError/system(call:path:errno:)``. What
/// is durable when follows POSIX: bytes after ``syncData(_:)``, names after ``syncDirectory(_:)``.
public protocol LogFiles: Sendable {
    /// Opens `path`; the descriptor is close-on-exec.
    func open(_ path: String, _ mode: LogFileMode) throws(AppendLogError) -> LogFileHandle

    /// Closes; errors are of no use here, since what matters was synced before.
    func close(_ file: LogFileHandle)

    /// Reads until `buffer` is full or the file ends, and says how many bytes that were.
    func read(
        _ file: LogFileHandle,
        at offset: Int,
        into buffer: UnsafeMutableRawBufferPointer
    ) throws(AppendLogError) -> Int

    /// Writes all of `buffers`, one after the other, from `offset` on.
    func write(
        _ file: LogFileHandle,
        _ buffers: [UnsafeRawBufferPointer],
        at offset: Int
    ) throws(AppendLogError)

    /// Writes what nobody waits for, so that whoever waits for the same disk waits little: a part at a
    /// time, each on its way to the disk before the next. Durable after ``syncData(_:)``, as ever.
    func writeInSteps(
        _ file: LogFileHandle,
        _ buffer: UnsafeRawBufferPointer,
        at offset: Int
    ) throws(AppendLogError)

    /// `fdatasync(2)`.
    func syncData(_ file: LogFileHandle) throws(AppendLogError)

    /// `fsync(2)` of a directory.
    func syncDirectory(_ path: String) throws(AppendLogError)

    /// Gives a file another name, at once and in the place of a file that has it; see rename(2).
    func rename(_ path: String, to newPath: String) throws(AppendLogError)

    /// Removes a name; whoever has the file open, or mapped, keeps it.
    func remove(_ path: String) throws(AppendLogError)

    /// Removes a large file of a store that is in use: gives its blocks back bit by bit, where nobody
    /// holds the file.
    ///
    /// It takes its time, and so belongs on a thread that nothing waits for.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - isHurried: Asked before each step: whether room is wanted more than that others aren't held up.
    /// - Throws: As every call does.
    func removeInSteps(_ path: String, isHurried: () -> Bool) throws(AppendLogError)

    /// Has the bytes of an open file stay as they are, also once its name is removed, for as long as it
    /// is open or mapped.
    ///
    /// - Throws: `ENOENT` where it is being removed.
    func hold(_ file: LogFileHandle) throws(AppendLogError)

    /// The names in a directory, in no order.
    func list(_ directory: String) throws(AppendLogError) -> [String]

    /// The file's size in bytes.
    func size(_ file: LogFileHandle) throws(AppendLogError) -> Int

    /// Makes the directory (mode 0700); `false` where it was there.
    func createDirectory(_ path: String) throws(AppendLogError) -> Bool

    /// Takes the one writer's lock and writes this process's id into the file.
    ///
    /// - Throws: ``AppendLogError/locked(path:holder:)`` where somebody else has it.
    func lock(_ path: String) throws(AppendLogError) -> LogFileHandle

    /// Maps the whole file read-only, and holds it.
    func map(_ path: String) throws(AppendLogError) -> LogMapping

    /// Maps `bytes` bytes of an open file from `offset` on, read-only; the file may be closed then.
    ///
    /// - Parameters:
    ///   - file: The file, which reaches that far.
    ///   - offset: The first byte.
    ///   - bytes: How many; at least one.
    ///   - path: For the error.
    /// - Returns: The mapping; its pages are read as they are touched.
    /// - Throws: As every call does.
    func map(
        _ file: LogFileHandle,
        at offset: Int,
        bytes: Int,
        path: String
    ) throws(AppendLogError) -> LogMapping

    /// What kind of file system the directory lies on.
    func fileSystem(of directory: String) throws(AppendLogError) -> LogFileSystem

    /// How much room there is where the directory lies, see statvfs(3).
    func space(of directory: String) throws(AppendLogError) -> LogFileSystemSpace

    /// A random number for a new segment's checksums.
    func salt() -> UInt32
}

extension LogFiles {
    /// Opens a file for reading that its writer may remove at any moment, and holds it.
    func openHeld(_ path: String) throws(AppendLogError) -> LogFileHandle {
        let file = try open(path, .read)
        do throws(AppendLogError) {
            try hold(file)
        } catch {
            close(file)
            throw error
        }
        return file
    }

    /// At once, for disks on which that takes no time.
    public func writeInSteps(
        _ file: LogFileHandle,
        _ buffer: UnsafeRawBufferPointer,
        at offset: Int
    ) throws(AppendLogError) {
        try write(file, [buffer], at: offset)
    }

    /// At once, for disks on which that takes no time.
    public func removeInSteps(_ path: String, isHurried: () -> Bool) throws(AppendLogError) {
        try remove(path)
    }

    /// Nothing has to be done where files keep their bytes until nobody has them open.
    public func hold(_ file: LogFileHandle) throws(AppendLogError) {}

    /// A copy in memory, for disks that nothing can be mapped from.
    public func map(
        _ file: LogFileHandle,
        at offset: Int,
        bytes: Int,
        path: String
    ) throws(AppendLogError) -> LogMapping {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 8)
        do throws(AppendLogError) {
            guard try read(file, at: offset, into: copy) == bytes else {
                throw .corrupt(path: path, offset: offset)
            }
        } catch {
            copy.deallocate()
            throw error
        }
        return LogMapping(UnsafeRawBufferPointer(copy)) { $0.deallocate() }
    }

    /// Never 0.
    public func salt() -> UInt32 {
        UInt32.random(in: 1...UInt32.max)
    }
}
