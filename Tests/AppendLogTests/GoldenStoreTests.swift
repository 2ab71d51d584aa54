// Part of QTasks. License: see LICENSE.
//
// Stores that released versions have written lie in Tests/GoldenStores, and beside each of version 2 the
// list of its records. They are never made anew: `QTASKS_GOLDEN=1` makes those that are missing.

import Glibc
import QTasksProcess
import Testing

@testable import AppendLog

@Suite
struct `A store that an earlier release has written` {
    private static let home =
        #filePath.split(separator: "/").dropLast(2).map { "/" + $0 }
        .joined() + "/GoldenStores"

    /// A copy on a disk that nobody keeps.
    private func copy(_ name: String) throws -> SimulatedDisk {
        let disk = SimulatedDisk()
        for file in try PosixFiles().list("\(Self.home)/\(name)") {
            let bytes = try read("\(name)/\(file)")
            disk.setContents(of: "\(Opened.directory)/\(file)", to: bytes)
        }
        return disk
    }

    private func read(_ name: String) throws -> [UInt8] {
        let mapping = try PosixFiles().map("\(Self.home)/\(name)")
        return withExtendedLifetime(mapping) { [UInt8](mapping.bytes) }
    }

    @Test(arguments: [("v1-clean", 43), ("v1-killed", 41)])
    func `of version 1 is all there, and is written on`(name: String, count: Int) throws {
        let disk = try copy(name)
        let reader = try LogReader(Opened.directory, files: disk)
        var read: [Entry] = []
        let report = reader.forEach { read.append(Entry($0)) }
        #expect(read.count == count)
        #expect(!report.isDamaged)
        #expect(try reader.checkpoints().isEmpty)

        let opened = try Opened(disk)
        #expect(!opened.log.recovery.isDamaged)
        #expect(opened.log.recovery.wasClean == (name == "v1-clean"))
        #expect(opened.entries.map(\.payload) == read.map(\.payload))
        #expect(opened.entries.map(\.sequence) == Array(1...UInt64(count)))
        for number in 0..<50 {
            try opened.log.append(kind: 1, payload: payload(number, bytes: 300))
        }
        try opened.log.close()
        let again = try Opened(disk)
        #expect(again.entries.count == count + 50)
        #expect(again.log.recovery.wasClean && !again.log.recovery.isDamaged)
        #expect(Array(again.entries.map(\.payload).prefix(count)) == read.map(\.payload))
    }

    @Test func `of version 1 is opened in place on a real disk`() throws {
        let home = try TemporaryFolder()
        for file in try PosixFiles().list("\(Self.home)/v1-clean") {
            let target = try PosixFiles().open("\(home.path)/\(file)", .create)
            try self.read("v1-clean/\(file)").withBytes { (bytes) throws(AppendLogError) in
                try PosixFiles().write(target, [bytes], at: 0)
            }
            PosixFiles().close(target)
        }
        var count = 0
        let log = try Log.open(at: home.path) { _ in count += 1 }
        #expect(count == 43)
        try log.append(kind: 1, payload: [1])
        try log.close()
        count = 0
        try Log.open(at: home.path) { _ in count += 1 }.close()
        #expect(count == 44)
    }

    @Test(arguments: ["v2-clean", "v2-killed", "v2-compacted"])
    func `of version 2 has record for record what it had`(name: String) throws {
        let expected = String(decoding: try read("\(name).records"), as: UTF8.self)
        let disk = try copy(name)
        let reader = try LogReader(Opened.directory, files: disk)
        var lines = ""
        let report = reader.forEach { lines += line($0) }
        #expect(lines == expected)
        #expect(!report.isDamaged)

        lines = ""
        let log = try Log.open(
            at: Opened.directory,
            options: .small,
            files: disk,
            driver: .manual
        ) { lines += line($0) }
        #expect(!log.recovery.isDamaged)
        #expect(log.recovery.wasClean == (name != "v2-killed"))
        #expect(lines == expected)
        let last = log.lastSequence
        for number in 0..<20 { try log.append(kind: 1, payload: payload(number, bytes: 300)) }
        try log.close()
        #expect(try Opened(disk).log.lastSequence == last + 20)
    }

    @Test func `of version 2 begins with its checkpoint`() throws {
        let disk = try copy("v2-compacted")
        for usesCheckpoints in [true, false] {
            let found = try StoreStory.read(disk, usesCheckpoints: usesCheckpoints)
            #expect(try StoreStory(golden: disk).complaint(found, mayLose: false) == nil)
        }
        #expect(try OpenedTable(disk, StoreStory.options).log.recovery.checkpoint == 1)
    }

    private func line(_ record: borrowing RecordView) -> String {
        let source = record.source.map { "\($0.segment):\($0.offset)" } ?? "-"
        let payload = record.payload.map { String($0, radix: 16) }.joined(separator: " ")
        return "\(record.sequence) \(record.kind) \(record.flags) \(source) \(payload)\n"
    }

    // MARK: Making them

    private static let isMaking = getenv("QTASKS_GOLDEN") != nil

    @Test(.enabled(if: isMaking, "makes the stores that are missing, with QTASKS_GOLDEN=1"))
    func `is made once`() throws {
        for name in ["v2-clean", "v2-killed"] {
            let disk = SimulatedDisk(seed: 2)
            var options = LogOptions.small
            options.zeroFillAheadBytes = 0
            let log = try Opened(disk, options).log
            for number in 0..<40 {
                log.stamp = UInt64(1000 + number)
                let bytes = number % 9 == 0 ? 1500 : number * 5 % 60
                try log.append(
                    kind: UInt8(number % 5),
                    flags: UInt8(number % 3),
                    payload: payload(number, bytes: bytes)
                )
                if number % 4 == 0 { try log.flush() }
            }
            try log.append(kind: 255, flags: 255, payload: [255])
            if name == "v2-clean" { try log.close() } else { try log.flush() }
            try save(disk, name)
        }
        var story = StoreStory()
        try story.tell(.closed)
        try save(story.disk, "v2-compacted")
    }

    private func save(_ disk: SimulatedDisk, _ name: String) throws {
        let files = PosixFiles()
        guard try files.createDirectory("\(Self.home)/\(name)") else { return }
        for file in try disk.list(Opened.directory) where file != "lock" {
            var bytes = disk.contents(of: "\(Opened.directory)/\(file)") ?? []
            if file.hasPrefix("segment-") {
                while bytes.suffix(8).allSatisfy({ $0 == 0 }), !bytes.isEmpty {
                    bytes.removeLast(8)
                }
            }
            if !bytes.isEmpty { try write(bytes, "\(name)/\(file)") }
        }
        var lines = ""
        try LogReader(Opened.directory, files: disk).forEach { lines += line($0) }
        try write(Array(lines.utf8), "\(name).records")
    }

    private func write(_ bytes: [UInt8], _ name: String) throws {
        let file = try PosixFiles().open("\(Self.home)/\(name)", .createNew)
        defer { PosixFiles().close(file) }
        try bytes.withBytes { (bytes) throws(AppendLogError) in
            try PosixFiles().write(file, [bytes], at: 0)
        }
    }
}

extension StoreStory {
    /// The story as it is told for the golden store, of which only the end counts.
    init(golden disk: SimulatedDisk) throws {
        var story = StoreStory()
        try story.tell(.closed)
        self = story
    }
}
