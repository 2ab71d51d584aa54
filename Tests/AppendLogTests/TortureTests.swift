// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import AppendLog

/// Every bit of every byte, where otherwise a sample will do.
private let isLong = getenv("QTASKS_LONG") != nil

/// Every file of a store with all that there is, cut anywhere and flipped anywhere.
@Suite(.timeLimit(.minutes(isLong ? 120 : 10)))
struct `A store that is damaged anywhere` {
    private func story(_ end: StoreStory.End) throws -> StoreStory {
        var story = StoreStory()
        try story.tell(end)
        return story
    }

    private func paths(_ disk: SimulatedDisk) throws -> [String] {
        try disk.list(Opened.directory).filter { $0 != "lock" }.map { "\(Opened.directory)/\($0)" }
    }

    @Test(arguments: StoreStory.End.allCases)
    func `is whole to begin with, and has carried records and a checkpoint`(
        end: StoreStory.End
    ) throws {
        let story = try story(end)
        var carried: Set<UInt8> = []
        let reader = try LogReader(Opened.directory, files: story.disk)
        reader.forEach { if $0.source != nil { carried.insert($0.kind) } }
        #expect(carried == [Change.putKind, Change.stateKind])
        #expect(try reader.checkpoints().count == 1)
        #expect(reader.segmentInfos.count >= 3)
        #expect(reader.segmentInfos.first?.index != 1)
        try check(story, story.disk, mayLose: false) { "untouched" }
    }

    @Test(arguments: StoreStory.End.allCases)
    func `by a cut of its last segment, tells what is gone`(end: StoreStory.End) throws {
        let story = try story(end)
        let segments = try paths(story.disk).filter { $0.contains("segment-") }
        for path in isLong ? segments : segments.suffix(2) {
            let bytes = try #require(story.disk.contents(of: path))
            for length in 0..<bytes.count where isLong || length % 11 == 0 || length < 66 {
                let copy = story.disk.copy()
                copy.setContents(of: path, to: Array(bytes.prefix(length)))
                try check(story, copy) { "\(path) cut after \(length)" }
            }
        }
    }

    @Test(arguments: StoreStory.End.allCases)
    func `by a file that is gone, tells what is gone`(end: StoreStory.End) throws {
        let story = try story(end)
        for path in try paths(story.disk) {
            let copy = story.disk.copy()
            try copy.remove(path)
            if path == metaPath {
                #expect(throws: AppendLogError.metaUnreadable(path: path)) {
                    try StoreStory.open(copy)
                }
            } else {
                try check(story, copy) { "\(path) gone" }
                try checkGoesOn(copy) { "\(path) gone" }
            }
        }
    }

    @Test(arguments: StoreStory.End.allCases)
    func `by a flipped bit, tells what is gone`(end: StoreStory.End) throws {
        let story = try story(end)
        for path in try paths(story.disk) {
            let bytes = try #require(story.disk.contents(of: path))
            for index in bytes.indices where isLong || isTelling(path, index) {
                for bit in isLong ? Array(0..<8) : [index % 8] {
                    var damaged = bytes
                    damaged[index] ^= 1 << bit
                    let copy = story.disk.copy()
                    copy.setContents(of: path, to: damaged)
                    try check(story, copy) { "\(path), bit \(bit) of \(index)" }
                }
            }
        }
    }

    /// A sector that reads as zeros is what a disk gives back for one that it has lost.
    @Test(arguments: StoreStory.End.allCases)
    func `by a sector of zeros, tells what is gone`(end: StoreStory.End) throws {
        let story = try story(end)
        for path in try paths(story.disk) {
            let bytes = try #require(story.disk.contents(of: path))
            for start in stride(from: 0, to: bytes.count, by: 512) {
                var damaged = bytes
                for index in start..<min(start + 512, bytes.count) { damaged[index] = 0 }
                let copy = story.disk.copy()
                copy.setContents(of: path, to: damaged)
                try check(story, copy) { "\(path), sector at \(start)" }
                try checkGoesOn(copy) { "\(path), sector at \(start)" }
            }
        }
    }

    /// A sample, without the many zeros.
    private func isTelling(_ path: String, _ index: Int) -> Bool {
        guard index % 7 == 0 else { return false }
        if path == metaPath {
            let inPage = index % MetaPage.bytes
            return inPage < 72 || inPage > 4090
        }
        guard path.contains("segment-") else { return true }
        return index < 64 || index == 300 || (512..<576).contains(index) || index >= 1024
    }

    /// Opens twice, and reads: what is there the first time must be there the second time as well.
    private func check(
        _ story: StoreStory,
        _ disk: SimulatedDisk,
        mayLose: Bool = true,
        _ what: () -> String
    ) throws {
        var all: [StoreStory.Found] = []
        for usesCheckpoints in [true, false] {
            all.append(try StoreStory.read(disk, usesCheckpoints: usesCheckpoints))
        }
        for _ in 0..<2 {
            all.append(try StoreStory.open(disk))
            disk.endProcess()
        }
        for (index, found) in all.enumerated() {
            if let complaint = story.complaint(found, mayLose: mayLose) {
                Issue.record("\(what()), \(Self.names[index]): \(complaint)")
            }
        }
        if all[2] != all[3] || all[0].last != all[2].last {
            Issue.record("\(what()): \(all[2]), then \(all[3])")
        }
    }

    /// Whatever is missing: what is appended from now on is there.
    private func checkGoesOn(_ disk: SimulatedDisk, _ what: () -> String) throws {
        var opened = try OpenedTable(disk, StoreStory.options)
        for number in 0..<10 {
            let change = Change.put(key: 40, value: payload(number, bytes: 200))
            _ = try opened.table.append(change, to: opened.log)
            try opened.log.flush()
        }
        disk.endProcess()
        let found = try StoreStory.open(disk)
        if found.things[40]??.value != payload(9, bytes: 200) {
            Issue.record("\(what()): what was appended afterwards is gone")
        }
        disk.endProcess()
    }

    private static let names = ["a reader", "a reader of all", "opening", "opening again"]
}
