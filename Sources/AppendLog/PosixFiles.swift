// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import Synchronization

/// The real file system.
public struct PosixFiles: LogFiles {
    public init() {}

    public func open(
        _ path: String,
        _ mode: LogFileMode
    ) throws(AppendLogError) -> LogFileHandle {
        let flags: Int32 =
            switch mode {
            case .read: O_RDONLY
            case .readWrite: O_RDWR
            case .create: O_RDWR | O_CREAT
            case .createNew: O_RDWR | O_CREAT | O_EXCL
            }
        let descriptor = try check("open", path) { Glibc.open(path, flags | O_CLOEXEC, 0o600) }
        return LogFileHandle(rawValue: Int32(descriptor))
    }

    public func close(_ file: LogFileHandle) {
        _ = Glibc.close(file.rawValue)
    }

    public func read(
        _ file: LogFileHandle,
        at offset: Int,
        into buffer: UnsafeMutableRawBufferPointer
    ) throws(AppendLogError) -> Int {
        guard let base = buffer.baseAddress else { return 0 }
        var done = 0
        while done < buffer.count {
            let count = try check("pread", file) {
                pread(file.rawValue, base + done, buffer.count - done, offset + done)
            }
            if count == 0 { break }
            done += count
        }
        return done
    }

    public func write(
        _ file: LogFileHandle,
        _ buffers: [UnsafeRawBufferPointer],
        at offset: Int
    ) throws(AppendLogError) {
        let vectorsMax = 1024  // IOV_MAX on Linux, writev(2)
        var vectors = buffers.map {
            iovec(iov_base: UnsafeMutableRawPointer(mutating: $0.baseAddress), iov_len: $0.count)
        }
        var first = 0
        var offset = offset
        while first < vectors.count {
            var count = try vectors.withUnsafeMutableBufferPointer { (all) throws(AppendLogError) in
                let rest = UnsafeMutableBufferPointer(rebasing: all[first...])
                return try check("pwritev", file) {
                    pwritev(
                        file.rawValue,
                        rest.baseAddress,
                        Int32(min(rest.count, vectorsMax)),
                        offset
                    )
                }
            }
            offset += count
            while first < vectors.count, count >= vectors[first].iov_len {
                count -= vectors[first].iov_len
                first += 1
            }
            if count > 0, let base = vectors[first].iov_base {
                vectors[first].iov_base = base + count
                vectors[first].iov_len -= count
            }
        }
    }

    /// Held by whoever does a step of what may wait: zeros, checkpoints and removals take turns, so that a
    /// sync of the log never finds more than one of them at the disk.
    static let step = Mutex<Void>(())

    /// With `sync_file_range(2)`, which writes out a file's bytes and nothing about the file.
    public func writeInSteps(
        _ file: LogFileHandle,
        _ buffer: UnsafeRawBufferPointer,
        at offset: Int
    ) throws(AppendLogError) {
        let stepBytes = 128 << 10
        for start in stride(from: 0, to: buffer.count, by: stepBytes) {
            let part = buffer[start..<min(start + stepBytes, buffer.count)]
            try Self.step.withLock { (_) throws(AppendLogError) in
                try write(file, [UnsafeRawBufferPointer(rebasing: part)], at: offset + start)
                _ = try check("sync_file_range", file) {
                    Int(clinux_write_out(file.rawValue, Int64(offset + start), Int64(part.count)))
                }
            }
        }
    }

    public func syncData(_ file: LogFileHandle) throws(AppendLogError) {
        _ = try check("fdatasync", file) { Int(fdatasync(file.rawValue)) }
    }

    public func syncDirectory(_ path: String) throws(AppendLogError) {
        let descriptor = try check("open", path) {
            Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        }
        defer { _ = Glibc.close(Int32(descriptor)) }
        _ = try check("fsync", path) { Int(fsync(Int32(descriptor))) }
    }

    public func rename(_ path: String, to newPath: String) throws(AppendLogError) {
        _ = try check("rename", path) { Int(Glibc.rename(path, newPath)) }
    }

    public func remove(_ path: String) throws(AppendLogError) {
        _ = try check("unlink", path) { Int(unlink(path)) }
    }

    public func list(_ directory: String) throws(AppendLogError) -> [String] {
        guard let stream = opendir(directory) else {
            throw .system(call: "opendir", path: directory, errno: errno)
        }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else { break }
            names.append(
                withUnsafeBytes(of: &entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
            )
        }
        guard errno == 0 else { throw .system(call: "readdir", path: directory, errno: errno) }
        return names.filter { $0 != "." && $0 != ".." }
    }

    public func size(_ file: LogFileHandle) throws(AppendLogError) -> Int {
        var about = stat()
        _ = try check("fstat", file) { Int(fstat(file.rawValue, &about)) }
        return Int(about.st_size)
    }

    public func createDirectory(_ path: String) throws(AppendLogError) -> Bool {
        if mkdir(path, 0o700) == 0 { return true }
        let code = errno
        var about = stat()
        guard code == EEXIST, stat(path, &about) == 0 else {
            throw .system(call: "mkdir", path: path, errno: code)
        }
        return false
    }

    public func lock(_ path: String) throws(AppendLogError) -> LogFileHandle {
        let file = try open(path, .create)
        do throws(AppendLogError) {
            _ = try check("flock", path) { Int(flock(file.rawValue, LOCK_EX | LOCK_NB)) }
            // Padded, so that a shorter number leaves nothing of the longer one before it.
            let digits = "\(getpid())"
            var line = Array((digits + String(repeating: " ", count: 15 - digits.count)).utf8)
            line.append(UInt8(ascii: "\n"))
            try line.withBytes { (bytes) throws(AppendLogError) in
                try write(file, [bytes], at: 0)
            }
            return file
        } catch {
            defer { close(file) }
            guard case .system("flock", _, EWOULDBLOCK) = error else { throw error }
            throw .locked(path: path, holder: holder(file))
        }
    }

    public func map(_ path: String) throws(AppendLogError) -> LogMapping {
        let file = try openHeld(path)
        defer { close(file) }
        let bytes = try size(file)
        guard bytes > 0 else {
            return LogMapping(UnsafeRawBufferPointer(start: nil, count: 0)) { _ in }
        }
        guard let base = mmap(nil, bytes, PROT_READ, MAP_SHARED, file.rawValue, 0),
            base != MAP_FAILED
        else {
            throw .system(call: "mmap", path: path, errno: errno)
        }
        return LogMapping(UnsafeRawBufferPointer(start: base, count: bytes)) {
            _ = munmap(base, $0.count)
        }
    }

    public func map(
        _ file: LogFileHandle,
        at offset: Int,
        bytes: Int,
        path: String
    ) throws(AppendLogError) -> LogMapping {
        // mmap(2): the offset is a multiple of the page size
        let before = offset % Self.pageBytes
        let count = before + bytes
        guard
            let base = mmap(nil, count, PROT_READ, MAP_SHARED, file.rawValue, offset - before),
            base != MAP_FAILED
        else {
            throw .system(call: "mmap", path: path, errno: errno)
        }
        nonisolated(unsafe) let start = base  // unmapped once, when nobody holds it any more
        return LogMapping(
            UnsafeRawBufferPointer(start: start + before, count: bytes),
            populate: {
                // EINVAL: before Linux 5.14, which finds out page by page
                madvise(start, count, Self.populateRead) == 0 || errno == EINVAL
            },
            release: { _ in _ = munmap(start, count) }
        )
    }

    private static let pageBytes = Int(getpagesize())
    /// MADV_POPULATE_READ, which older headers lack: a page that would be a SIGBUS is EFAULT.
    private static let populateRead: Int32 = 22

    public func fileSystem(of directory: String) throws(AppendLogError) -> LogFileSystem {
        // The numbers are those of statfs(2).
        switch try check("statfs", directory, { clinux_file_system_type(directory) }) {
        case 0x6969: .network("NFS")
        case 0x0102_1997: .network("9p")
        case 0x517B, 0xFF53_4D42, 0xFE53_4D42: .network("SMB")
        case 0x0102_1994, 0x8584_58F6: .memory
        default: .ordinary
        }
    }

    public func space(of directory: String) throws(AppendLogError) -> LogFileSystemSpace {
        var about = statvfs()
        _ = try check("statvfs", directory) { Int(statvfs(directory, &about)) }
        let unit = Int(clamping: about.f_frsize)
        return LogFileSystemSpace(
            freeBytes: Int(clamping: about.f_bavail) * unit,
            totalBytes: Int(clamping: about.f_blocks) * unit
        )
    }

    /// The process id that the lock file names.
    private func holder(_ file: LogFileHandle) -> Int32? {
        var line = [UInt8](repeating: 0, count: 16)
        let count = try? line.withMutableBytes { (bytes) throws(AppendLogError) -> Int in
            try read(file, at: 0, into: bytes)
        }
        let digits = line.prefix(count ?? 0).prefix { (0x30...0x39).contains($0) }
        return Int32(String(decoding: digits, as: UTF8.self))
    }

    /// Makes the call until no signal comes between, and turns -1 into an error.
    private func check(
        _ call: String,
        _ path: String,
        _ body: () -> Int
    ) throws(AppendLogError) -> Int {
        while true {
            let result = body()
            if result >= 0 { return result }
            let code = errno
            guard code == EINTR else { throw .system(call: call, path: path, errno: code) }
        }
    }

    private func check(
        _ call: String,
        _ path: String,
        _ body: () -> Int32
    ) throws(AppendLogError) -> Int32 {
        Int32(try check(call, path) { Int(body()) })
    }

    /// The same for an open file, whose path the kernel knows.
    private func check(
        _ call: String,
        _ file: LogFileHandle,
        _ body: () -> Int
    ) throws(AppendLogError) -> Int {
        do {
            return try check(call, "", body)
        } catch {
            guard case .system(let call, _, let code) = error else { throw error }
            throw .system(call: call, path: path(of: file), errno: code)
        }
    }

    func path(of file: LogFileHandle) -> String {
        var name = [UInt8](repeating: 0, count: 4096)
        let count = name.withUnsafeMutableBytes { buffer -> Int in
            guard let base = buffer.baseAddress else { return 0 }
            return readlink("/proc/self/fd/\(file.rawValue)", base, buffer.count)
        }
        guard count > 0 else { return "descriptor \(file.rawValue)" }
        return String(decoding: name.prefix(count), as: UTF8.self)
    }
}
