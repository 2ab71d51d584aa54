// Part of QTasks. License: see LICENSE.

import Glibc

/// What a ``SimulatedDisk`` knows, and what happens to it when the power goes.
extension SimulatedDisk {
    static let pageBytes = 4096
    static let sectorBytes = 512

    struct File {
        /// What a power failure leaves for sure.
        var durable: [UInt8] = []
        /// What reading gives.
        var cached: [UInt8] = []
        /// Pages that the next sync takes to the disk.
        var dirty: Set<Int> = []
        /// Counted up with each failed sync; every open handle hears of each once.
        var failures = 0
    }

    struct Handle {
        var file: Int
        var path: String
        var failuresHeard: Int
        var isLock = false
    }

    struct State {
        var files: [Int: File] = [:]
        var names: [String: Int] = [:]
        var durableNames: [String: Int] = [:]
        var handles: [Int32: Handle] = [:]
        var nextFile = 1
        var nextHandle: Int32 = 1
        var chance: Chance
        var counts = Counts()
        var capacity = Int.max
        var stepsLeft: Int?
        var faults: [Call: (after: Int, errno: Int32)] = [:]
    }
}

extension SimulatedDisk.State {
    var bytesUsed: Int {
        names.values.reduce(0) { $0 + (files[$1]?.cached.count ?? 0) }
    }

    mutating func make(_ path: String) -> Int {
        let number = nextFile
        nextFile += 1
        names[path] = number
        files[number] = SimulatedDisk.File()
        return number
    }

    mutating func handle(to file: Int, _ path: String) -> LogFileHandle {
        let raw = nextHandle
        nextHandle += 1
        handles[raw] = SimulatedDisk.Handle(
            file: file,
            path: path,
            failuresHeard: files[file]?.failures ?? 0
        )
        return LogFileHandle(rawValue: raw)
    }

    func opened(
        _ file: LogFileHandle,
        _ call: String
    ) throws(AppendLogError) -> SimulatedDisk.Handle {
        guard let handle = handles[file.rawValue] else {
            throw .system(call: call, path: "descriptor \(file.rawValue)", errno: EBADF)
        }
        return handle
    }

    /// One more change has been made; the power may go with it.
    mutating func step(_ call: String, _ path: String) throws(AppendLogError) {
        guard let left = stepsLeft else { return }
        stepsLeft = left - 1
        if left == 1 { throw .system(call: call, path: path, errno: EIO) }
    }

    /// What this call is to fail with, if it is.
    mutating func take(_ call: SimulatedDisk.Call) -> Int32? {
        guard let (after, code) = faults[call] else { return nil }
        faults[call] = after == 0 ? nil : (after - 1, code)
        return after == 0 ? code : nil
    }

    /// Fails where this call is to.
    mutating func meet(
        _ call: SimulatedDisk.Call,
        _ name: String,
        _ path: String
    ) throws(AppendLogError) {
        guard let code = take(call) else { return }
        throw .system(call: name, path: path, errno: code)
    }

    mutating func put(_ bytes: [UInt8], _ number: Int, _ offset: Int) {
        guard !bytes.isEmpty, var file = files.removeValue(forKey: number) else { return }
        let end = offset + bytes.count
        if file.cached.count < end {
            file.cached += [UInt8](repeating: 0, count: end - file.cached.count)
        }
        file.cached.replaceSubrange(offset..<end, with: bytes)
        file.dirty.formUnion(
            offset / SimulatedDisk.pageBytes...(end - 1) / SimulatedDisk.pageBytes
        )
        files[number] = file
    }

    mutating func flush(_ number: Int) {
        guard var file = files.removeValue(forKey: number) else { return }
        for page in file.dirty { file.settle(page) { _ in true } }
        file.grow(to: file.cached.count)
        file.dirty = []
        files[number] = file
    }

    /// A failed sync: some pages got there, all are clean now.
    mutating func dropDirty(_ number: Int) {
        guard var file = files.removeValue(forKey: number) else { return }
        for page in file.dirty.sorted() where Bool.random(using: &chance) {
            file.settle(page) { _ in true }
        }
        file.dirty = []
        file.failures += 1
        files[number] = file
    }

    mutating func crash(_ seeded: SimulatedDisk.Chance) {
        chance = seeded
        handles = [:]
        stepsLeft = nil
        faults = [:]
        for path in Set(names.keys).union(durableNames.keys).sorted()
        where names[path] != durableNames[path] && Bool.random(using: &chance) {
            durableNames[path] = names[path]
        }
        names = durableNames
        files = files.filter { names.values.contains($0.key) }
        for number in files.keys.sorted() {
            guard var file = files.removeValue(forKey: number) else { continue }
            file.crash(&chance)
            files[number] = file
        }
    }
}

extension SimulatedDisk.File {
    mutating func grow(to count: Int) {
        guard durable.count < count else { return }
        durable += [UInt8](repeating: 0, count: count - durable.count)
    }

    /// Takes those sectors of a page to the disk that `isKept` says.
    mutating func settle(_ page: Int, _ isKept: (Int) -> Bool) {
        let start = page * SimulatedDisk.pageBytes
        let end = min(start + SimulatedDisk.pageBytes, cached.count)
        for sector in stride(from: start, to: end, by: SimulatedDisk.sectorBytes)
        where isKept(sector) {
            let sectorEnd = min(sector + SimulatedDisk.sectorBytes, end)
            grow(to: sectorEnd)
            durable.replaceSubrange(sector..<sectorEnd, with: cached[sector..<sectorEnd])
        }
    }

    /// Each dirty page is on disk, or isn't, or is in part.
    mutating func crash(_ chance: inout SimulatedDisk.Chance) {
        for page in dirty.sorted() {
            switch Int.random(in: 0..<3, using: &chance) {
            case 0: settle(page) { _ in true }
            case 1: settle(page) { _ in Bool.random(using: &chance) }
            default: break
            }
        }
        if cached.count > durable.count, Bool.random(using: &chance) { grow(to: cached.count) }
        dirty = []
        cached = durable
    }
}
