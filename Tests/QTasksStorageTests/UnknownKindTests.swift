// Part of QTasks. License: see LICENSE.
//
// A store that a later version wrote: what an older one may pass over, and what it may not.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

@Suite
struct `A record of a kind that nobody knows` {
    /// A store with a task that is cancelled, and behind it such a record, in the page cache or on the disk.
    private static func store(kind: UInt8, isDurable: Bool) throws -> StoryStore {
        var kept = try StoryStore()
        let id = try kept.add("told")
        kept.propose(.change(number: 5, .cancel, id: id, reason: "no need"))
        try kept.settle()
        _ = try kept.log.append(kind: kind, payload: [1, 2, 3])
        if isDurable {
            try kept.close()
        } else {
            kept.log.submit(sync: false)
            while kept.log.runOneWrite() {}
        }
        return kept
    }

    private static func files(_ disk: SimulatedDisk) throws -> [String: [UInt8]] {
        var files: [String: [UInt8]] = [:]
        for name in try disk.list(StoryStore.directory) {
            files[name] = disk.contents(of: "\(StoryStore.directory)/\(name)")
        }
        return files
    }

    private static func open(_ kept: StoryStore, _ disk: SimulatedDisk) throws -> OpenedStore {
        try StoryStore.open(disk, kept.config, kept.keeping, kept.now)
    }

    @Test(arguments: [60, 127] as [UInt8], [true, false])
    func `keeps an older version from opening the store, by its name`(
        kind: UInt8,
        isDurable: Bool
    ) throws {
        let kept = try Self.store(kind: kind, isDurable: isDurable)
        let disk = kept.disk.copy()
        let before = try Self.files(disk)
        let error = #expect(throws: AppendLogError.self) { try Self.open(kept, disk) }
        guard case .unknownKind(_, kind, let sequence, let format)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(sequence == kept.log.lastSequence)
        let words = error?.description ?? ""
        #expect(words.contains("kind \(kind)") && words.contains("version \(format)"))
        #expect(words.contains("use that one"))
        for (name, bytes) in before where name.hasPrefix("segment-") || name == "meta" {
            #expect(try Self.files(disk)[name] == bytes, "\(name) is as it was")
        }
        #expect(try StoryStore.verify(disk).isOK, "tools may look")
        #expect(throws: AppendLogError.self) { try Self.open(kept, disk) }
    }

    @Test(arguments: [128, 255] as [UInt8], [true, false])
    func `is passed over and kept where it says that it may be`(
        kind: UInt8,
        isDurable: Bool
    ) throws {
        let kept = try Self.store(kind: kind, isDurable: isDurable)
        let disk = kept.disk.copy()
        let store = try Self.open(kept, disk)
        #expect(store.log.lastSequence == kept.log.lastSequence)
        #expect(store.state.tasks.depths.map(\.byStatus) == kept.state.tasks.depths.map(\.byStatus))
        try store.log.close()
        var kinds: [UInt8] = []
        try StoryStore.read(disk).log.forEach { kinds.append($0.kind) }
        #expect(kinds.last == kind)
    }
}
