// Part of QTasks. License: see LICENSE.

import Glibc
import Synchronization

/// A disk in memory that loses power, tears writes and fails when told to: ``LogFiles`` for tests
/// and the simulator.
///
/// It is as unkind as POSIX allows. What isn't synced may be on disk or not, page by page and in
/// any order, a page also in part (sectors of 512 bytes are whole). A name is durable only after a
/// sync of its directory. A failed `fdatasync` marks the pages clean all the same: they read back
/// from the cache until the power goes. Directories themselves are taken to be there.
package final class SimulatedDisk: LogFiles {
    /// Splitmix64: the same seed gives the same disk.
    package struct Chance: RandomNumberGenerator, Sendable {
        private var state: UInt64

        package init(seed: UInt64) {
            state = seed
        }

        package mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
            return mixed ^ (mixed >> 31)
        }
    }

    /// How often each call was made.
    package struct Counts: Hashable, Sendable {
        package var writes = 0
        package var syncs = 0
        package var directorySyncs = 0
        package var opens = 0
    }

    /// What can be made to fail.
    package enum Call: Hashable, Sendable, CaseIterable {
        case write, sync, syncDirectory, read, open, rename, remove, space
    }

    let state: Mutex<State>

    package init(seed: UInt64 = 0) {
        state = Mutex(State(chance: Chance(seed: seed)))
    }

    package var counts: Counts {
        state.withLock { $0.counts }
    }

    /// Steps made so far that a power failure can come between: all calls that change something.
    package var steps: Int {
        state.withLock { $0.counts.writes + $0.counts.syncs + $0.counts.directorySyncs }
    }

    /// Bytes that all files may have together; beyond them a write gets `ENOSPC`.
    package func setCapacity(_ bytes: Int) {
        state.withLock { $0.capacity = bytes }
    }

    /// Bytes that all files have together.
    package var bytesUsed: Int {
        state.withLock { $0.bytesUsed }
    }

    /// Lets `count` more changing calls pass; from then on every call fails with `EIO`, until
    /// ``crash(seed:)``.
    ///
    /// The call at which it happens has still reached the cache.
    package func losePower(after count: Int) {
        state.withLock { $0.stepsLeft = count }
    }

    /// Lets `count` calls pass; the next fails with `errno`.
    ///
    /// A write that fails has written half; a sync has synced half and calls the rest clean.
    package func fail(_ call: Call, after count: Int, errno: Int32) {
        state.withLock { $0.faults[call] = (count, errno) }
    }

    package func failWrite(after count: Int, errno: Int32) {
        fail(.write, after: count, errno: errno)
    }

    package func failSync(after count: Int, errno: Int32) {
        fail(.sync, after: count, errno: errno)
    }

    /// Whether a fault that was asked for has not come to pass yet.
    package var hasFaults: Bool {
        state.withLock { !$0.faults.isEmpty }
    }

    /// The process dies: its files are closed, its locks let go.
    ///
    /// The cache stays.
    package func endProcess() {
        state.withLock { $0.handles = [:] }
    }

    /// The power goes and comes back.
    package func crash(seed: UInt64) {
        state.withLock { $0.crash(Chance(seed: seed)) }
    }

    /// The bytes of a file, as reading gives them; `nil` where there is none of this name.
    package func contents(of path: String) -> [UInt8]? {
        state.withLock { state in
            state.names[path].flatMap { state.files[$0]?.cached }
        }
    }

    /// Puts bytes on the disk behind everybody's back.
    package func setContents(of path: String, to bytes: [UInt8]) {
        state.withLock { state in
            let number = state.names[path] ?? state.make(path)
            state.durableNames[path] = number
            state.files[number] = File(durable: bytes, cached: bytes)
        }
    }

    /// Another disk with what this one would give after an orderly end of everything.
    package func copy() -> SimulatedDisk {
        let other = SimulatedDisk()
        for (path, number) in state.withLock({ $0.names }) {
            let bytes = state.withLock { $0.files[number]?.cached } ?? []
            other.setContents(of: path, to: bytes)
        }
        return other
    }
}

// MARK: - The file layer

extension SimulatedDisk {
    package func open(
        _ path: String,
        _ mode: LogFileMode
    ) throws(AppendLogError) -> LogFileHandle {
        try locked("open", path) { (state) throws(AppendLogError) -> LogFileHandle in
            try state.meet(.open, "open", path)
            if mode == .create || mode == .createNew {
                try state.step("open", path)
            }
            state.counts.opens += 1
            guard let number = state.names[path] else {
                guard mode == .create || mode == .createNew else {
                    throw .system(call: "open", path: path, errno: ENOENT)
                }
                return state.handle(to: state.make(path), path)
            }
            guard mode != .createNew else {
                throw .system(call: "open", path: path, errno: EEXIST)
            }
            return state.handle(to: number, path)
        }
    }

    package func close(_ file: LogFileHandle) {
        state.withLock { _ = $0.handles.removeValue(forKey: file.rawValue) }
    }

    package func read(
        _ file: LogFileHandle,
        at offset: Int,
        into buffer: UnsafeMutableRawBufferPointer
    ) throws(AppendLogError) -> Int {
        let bytes = try locked("pread", "") { (state) throws(AppendLogError) -> ArraySlice<UInt8> in
            let handle = try state.opened(file, "pread")
            try state.meet(.read, "pread", handle.path)
            let all = state.files[handle.file]?.cached ?? []
            return all.dropFirst(offset).prefix(buffer.count)
        }
        buffer.copyBytes(from: bytes)
        return bytes.count
    }

    package func write(
        _ file: LogFileHandle,
        _ buffers: [UnsafeRawBufferPointer],
        at offset: Int
    ) throws(AppendLogError) {
        let bytes = buffers.flatMap { Array($0) }
        try locked("pwrite", "") { (state) throws(AppendLogError) in
            let handle = try state.opened(file, "pwrite")
            state.counts.writes += 1
            if let code = state.take(.write) {
                state.put(Array(bytes.prefix(bytes.count / 2)), handle.file, offset)
                throw .system(call: "pwrite", path: handle.path, errno: code)
            }
            let growth = offset + bytes.count - (state.files[handle.file]?.cached.count ?? 0)
            guard growth <= 0 || state.bytesUsed + growth <= state.capacity else {
                throw .system(call: "pwrite", path: handle.path, errno: ENOSPC)
            }
            state.put(bytes, handle.file, offset)
            try state.step("pwrite", handle.path)
        }
    }

    package func syncData(_ file: LogFileHandle) throws(AppendLogError) {
        try locked("fdatasync", "") { (state) throws(AppendLogError) in
            let handle = try state.opened(file, "fdatasync")
            state.counts.syncs += 1
            try state.step("fdatasync", handle.path)
            if let code = state.take(.sync) {
                state.dropDirty(handle.file)
                state.handles[file.rawValue]?.failuresHeard += 1
                throw .system(call: "fdatasync", path: handle.path, errno: code)
            }
            let failures = state.files[handle.file]?.failures ?? 0
            guard handle.failuresHeard == failures else {
                state.handles[file.rawValue]?.failuresHeard = failures
                throw .system(call: "fdatasync", path: handle.path, errno: EIO)
            }
            state.flush(handle.file)
        }
    }

    package func syncDirectory(_ path: String) throws(AppendLogError) {
        try locked("fsync", path) { (state) throws(AppendLogError) in
            state.counts.directorySyncs += 1
            try state.meet(.syncDirectory, "fsync", path)
            try state.step("fsync", path)
            state.durableNames = state.durableNames.filter { !$0.key.hasPrefix(path + "/") }
            for (name, number) in state.names where name.hasPrefix(path + "/") {
                state.durableNames[name] = number
            }
        }
    }

    package func rename(_ path: String, to newPath: String) throws(AppendLogError) {
        try locked("rename", path) { (state) throws(AppendLogError) in
            try state.meet(.rename, "rename", path)
            guard let number = state.names.removeValue(forKey: path) else {
                throw .system(call: "rename", path: path, errno: ENOENT)
            }
            state.names[newPath] = number
            try state.step("rename", path)
        }
    }

    package func remove(_ path: String) throws(AppendLogError) {
        try locked("unlink", path) { (state) throws(AppendLogError) in
            try state.meet(.remove, "unlink", path)
            guard state.names.removeValue(forKey: path) != nil else {
                throw .system(call: "unlink", path: path, errno: ENOENT)
            }
            try state.step("unlink", path)
        }
    }

    package func list(_ directory: String) throws(AppendLogError) -> [String] {
        try locked("opendir", directory) { (state) throws(AppendLogError) -> [String] in
            state.names.keys.sorted().compactMap { name in
                guard name.hasPrefix(directory + "/") else { return nil }
                let rest = name.dropFirst(directory.count + 1)
                return rest.contains("/") ? nil : String(rest)
            }
        }
    }

    package func size(_ file: LogFileHandle) throws(AppendLogError) -> Int {
        try locked("fstat", "") { (state) throws(AppendLogError) -> Int in
            let handle = try state.opened(file, "fstat")
            return state.files[handle.file]?.cached.count ?? 0
        }
    }

    package func createDirectory(_ path: String) throws(AppendLogError) -> Bool {
        false
    }

    package func lock(_ path: String) throws(AppendLogError) -> LogFileHandle {
        try locked("flock", path) { (state) throws(AppendLogError) -> LogFileHandle in
            guard !state.handles.values.contains(where: { $0.isLock && $0.path == path }) else {
                throw .locked(path: path, holder: getpid())
            }
            let handle = state.handle(to: state.names[path] ?? state.make(path), path)
            state.handles[handle.rawValue]?.isLock = true
            return handle
        }
    }

    package func map(_ path: String) throws(AppendLogError) -> LogMapping {
        guard let bytes = contents(of: path) else {
            throw .system(call: "open", path: path, errno: ENOENT)
        }
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        copy.copyBytes(from: bytes)
        return LogMapping(UnsafeRawBufferPointer(copy)) { $0.deallocate() }
    }

    package func fileSystem(of directory: String) throws(AppendLogError) -> LogFileSystem {
        .ordinary
    }

    package func space(of directory: String) throws(AppendLogError) -> LogFileSystemSpace {
        try locked("statvfs", directory) { (state) throws(AppendLogError) in
            try state.meet(.space, "statvfs", directory)
            return LogFileSystemSpace(
                freeBytes: max(0, state.capacity - state.bytesUsed),
                totalBytes: state.capacity
            )
        }
    }

    package func salt() -> UInt32 {
        state.withLock { UInt32.random(in: 1...UInt32.max, using: &$0.chance) }
    }

    private func locked<Result: Sendable>(
        _ call: String,
        _ path: String,
        _ body: (inout State) throws(AppendLogError) -> Result
    ) throws(AppendLogError) -> Result {
        try state.withLock { (state) throws(AppendLogError) -> Result in
            guard state.stepsLeft != 0 else { throw .system(call: call, path: path, errno: EIO) }
            return try body(&state)
        }
    }
}
