// Part of QTasks. License: see LICENSE.

import AppendLog
import Glibc
import QTasksProcess
import Testing

/// On the real file system: what is tested is what its kernel does with locks and mappings.
@Suite
struct `A file that is removed in steps` {
    private let folder: TemporaryFolder
    private let files = PosixFiles()
    private let path: String
    private static let bytes = 3 << 20

    init() throws {
        folder = try TemporaryFolder("removal")
        path = "\(folder.path)/segment-0000000001"
        let file = try files.open(path, .createNew)
        defer { files.close(file) }
        let content = [UInt8](repeating: 7, count: Self.bytes)
        try content.withUnsafeBytes { try files.write(file, [$0], at: 0) }
    }

    private var exists: Bool { access(path, F_OK) == 0 }

    @Test(arguments: [false, true])
    func `is gone, and so are its bytes where nobody holds it`(isHurried: Bool) throws {
        let file = try files.open(path, .read)
        defer { files.close(file) }
        try files.removeInSteps(path, isHurried: { isHurried })
        #expect(!exists)
        #expect(try files.size(file) == 0)
    }

    @Test func `stays whole for whoever has mapped it`() throws {
        let mapping = try files.map(path)
        try files.removeInSteps(path, isHurried: { false })
        #expect(!exists)
        #expect(mapping.bytes.count == Self.bytes && mapping.bytes.allSatisfy { $0 == 7 })
    }

    @Test func `stays whole for whoever holds it open`() throws {
        let file = try files.open(path, .read)
        defer { files.close(file) }
        try files.hold(file)
        try files.removeInSteps(path, isHurried: { false })
        #expect(!exists)
        #expect(try files.size(file) == Self.bytes)
    }

    @Test func `can't be held any more once its removal has begun`() throws {
        let remover = try files.open(path, .readWrite)
        defer { files.close(remover) }
        try #require(flock(remover.rawValue, LOCK_EX | LOCK_NB) == 0)
        #expect(throws: AppendLogError.system(call: "open", path: path, errno: ENOENT)) {
            _ = try files.map(path)
        }
    }

    @Test func `can't be held by who had opened it before it went`() throws {
        let file = try files.open(path, .read)
        defer { files.close(file) }
        try files.removeInSteps(path, isHurried: { false })
        let gone = "\(path) (deleted)"
        #expect(throws: AppendLogError.system(call: "open", path: gone, errno: ENOENT)) {
            try files.hold(file)
        }
    }
}
