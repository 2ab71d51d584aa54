// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

@Suite
struct `A damaged store` {
    /// Where each record lies.
    private struct Place {
        var position: RecordPosition
        var kind: UInt8
        var headerBytes: Int
        var payloadBytes: Int
        var id: TaskID?

        var payloadStart: Int { Int(position.offset) + headerBytes }
    }

    /// A closed store with several segments, checkpoints, and tasks in every status.
    private static func store(seed: UInt64 = 7, steps: Int = 150) throws -> StoryStore {
        var chance = SimulatedDisk.Chance(seed: seed)
        var kept = try StoryStore(SimulatedDisk(seed: seed), checkpointBytes: 10 << 10)
        for _ in 0..<steps {
            try kept.live(&chance)
            if chance.next() % 4 == 0 { try kept.settle() }
        }
        try kept.close()
        return kept
    }

    private static func places(_ disk: SimulatedDisk) throws -> [Place] {
        var places: [Place] = []
        try StoryStore.read(disk).log.forEach { record in
            let kind = StoredKind(rawValue: record.kind)
            places.append(
                Place(
                    position: record.position,
                    kind: record.kind,
                    headerBytes: record.source == nil ? 24 : 32,
                    payloadBytes: record.payload.count,
                    id: kind?.taskID(in: record.payload)
                )
            )
        }
        return places
    }

    private static func names(_ disk: SimulatedDisk, _ prefix: String) throws -> [String] {
        try disk.list(StoryStore.directory).filter { $0.hasPrefix(prefix) }.sorted()
    }

    // MARK: Verify

    @Test func `is found out by a flip in each of its files (P9)`() throws {
        let kept = try Self.store()
        #expect(try StoryStore.verify(kept.disk).isOK)
        let checkpoint = try #require(try Self.names(kept.disk, "checkpoint-").last)
        let cases: [(file: String, byte: Int, FileDamage.Part)] = [
            ("meta", 30, .metaPage), ("meta", 4096 + 100, .metaPage),
            ("segment-0000000001", 20, .segmentHeader),
            ("segment-0000000001", 512 + 20, .segmentHeader),
            ("segment-0000000001", 1024 + 9, .groupHeader),
            (checkpoint, 30, .checkpoint), (checkpoint, 200, .checkpoint),
        ]
        for (file, byte, part) in cases {
            let disk = kept.disk.copy()
            try disk.flip(StoryStore.directory + "/" + file, byte: byte)
            let found = try StoryStore.verify(disk)
            #expect(!found.isOK && found.files.map(\.part) == [part], "\(file) at \(byte)")
            #expect(found.files.first?.file == file)
            #expect(found.lost.isEmpty && found.problems.isEmpty)
        }
    }

    @Test func `names the task of every record with a flipped bit (P9)`() throws {
        let kept = try Self.store()
        let places = try Self.places(kept.disk)
        var chance = SimulatedDisk.Chance(seed: 3)
        for place in places {
            let disk = kept.disk.copy()
            // behind what names the task
            let range = max(0, place.payloadBytes - 4)..<place.payloadBytes
            let byte = place.payloadStart + Int.random(in: range, using: &chance)
            try disk.flip(SimulatedDisk.segment(place.position.segment), byte: byte)
            let found = try StoryStore.verify(disk)
            #expect(!found.isOK)
            #expect(found.damagedRecords.map(\.position) == [place.position])
            #expect(found.damagedRecords.first?.id == place.id)
        }
    }

    @Test func `is found out by any lost page, and its tasks named by the checkpoints (P9)`() throws
    {
        let kept = try Self.store()
        let disk = kept.disk.copy()
        try disk.change(SimulatedDisk.segment(1)) { bytes in
            for index in 2048..<4096 { bytes[index] = 0 }
        }
        let found = try StoryStore.verify(disk)
        #expect(!found.isOK && !found.lost.isEmpty)
        #expect(found.checkpoints.contains { !$0.differing.isEmpty })
    }

    @Test func `has no damage where its writer is gone in the middle of it`() throws {
        var chance = SimulatedDisk.Chance(seed: 11)
        for seed in 1...10 as ClosedRange<UInt64> {
            var kept = try StoryStore(SimulatedDisk(seed: seed))
            for _ in 0..<60 {
                try kept.live(&chance)
                if chance.next() % 4 == 0 { try kept.settle() }
            }
            kept.log.submit(sync: true)
            _ = kept.log.runOneWrite()
            let disk = kept.disk.copy()
            #expect(try StoryStore.verify(disk).isOK, "while it is written")
            disk.crash(seed: seed)
            #expect(try StoryStore.verify(disk).isOK, "after loss of power")
        }
    }

    // MARK: Repair

    private static func salvage(_ disk: SimulatedDisk) throws -> StoreSalvage {
        try StoreSalvage(
            from: StoryStore.directory,
            to: "/q/new",
            files: disk,
            driver: .manual
        )
    }

    @Test func `is made anew as it was, where nothing is lost`() throws {
        let kept = try Self.store()
        let before = try StoryStore.records(kept.disk)
        let found = try Self.salvage(kept.disk)
        #expect(found.isWhole && found.tasks == before.count)
        #expect(try StoryStore.records(kept.disk, "/q/new") == before)
        #expect(try StoryStore.verify(kept.disk, "/q/new").isOK)

        let reader = try StoryStore.read(kept.disk, "/q/new")
        guard case .at(let begin) = try reader.historyBegin() else {
            Issue.record("history can't be complete")
            return
        }
        #expect(begin <= kept.now.wall)
        #expect(throws: BeforeHistory.self) {
            try reader.moment(Timestamp(nanoseconds: begin.nanoseconds - 1))
        }
        #expect(try reader.moment(kept.now.wall).tasks.index.count == before.count)

        let again = try StoryStore.open(
            kept.disk,
            kept.config,
            kept.keeping,
            kept.now,
            in: "/q/new"
        )
        #expect(again.log.incarnation > kept.log.incarnation)
        #expect(again.unreadable == 0)
        #expect(again.state.tasks.depths == kept.state.tasks.depths)
        try again.log.close()
        #expect(try StoryStore.verify(kept.disk, "/q/new").isOK)
    }

    @Test func `has single flipped bits healed (P9)`() throws {
        let kept = try Self.store(steps: 60)
        let before = try StoryStore.records(kept.disk)
        var chance = SimulatedDisk.Chance(seed: 5)
        for place in try Self.places(kept.disk) {
            let disk = kept.disk.copy()
            let bytes = place.headerBytes + place.payloadBytes
            let byte = Int(place.position.offset) + Int(chance.next() % UInt64(bytes))
            try disk.flip(
                SimulatedDisk.segment(place.position.segment),
                byte: byte,
                bit: Int(chance.next() % 8)
            )
            let found = try Self.salvage(disk)
            #expect(found.isWhole && found.report.healed.map(\.position) == [place.position])
            #expect(try StoryStore.records(disk, "/q/new") == before)
        }
    }

    @Test func `loses only what is damaged, and says what (P9)`() throws {
        let kept = try Self.store(steps: 60)
        let before = try StoryStore.records(kept.disk)
        for place in try Self.places(kept.disk) where place.kind == StoredKind.add.rawValue {
            let disk = kept.disk.copy()
            try disk.change(SimulatedDisk.segment(place.position.segment)) { bytes in
                let end = place.payloadStart + place.payloadBytes
                for index in end - 8..<end { bytes[index] ^= 0xFF }
            }
            let found = try Self.salvage(disk)
            let id = try #require(place.id)
            #expect(!found.isWhole)
            #expect(found.damagedRecords.map(\.record.id) == [id])
            #expect(try StoryStore.records(disk, "/q/new") == before.filter { $0.id != id })
            #expect(try StoryStore.verify(disk, "/q/new").isOK)
        }
    }

    @Test func `keeps a task that has ended where its result is lost (P2)`() throws {
        let kept = try Self.store()
        let before = try StoryStore.records(kept.disk)
        let tasks = kept.state.tasks
        let number = try #require(
            tasks.numbersInAddOrder.first { tasks.index[$0].status == .success }
        )
        let entry = tasks.index[number]
        let disk = kept.disk.copy()
        try disk.change(SimulatedDisk.segment(entry.finished.segment)) { bytes in
            for index in Int(entry.finished.offset)..<Int(entry.finished.offset) + 100 {
                bytes[index] = 0
            }
        }
        let found = try Self.salvage(disk)
        #expect(found.lostTasks.contains { $0.id == entry.id && $0.part == .result })
        let after = try StoryStore.records(disk, "/q/new")
        #expect(after.count == before.count)
        let record = try #require(after.first { $0.id == entry.id })
        #expect(record.status == .success && record.outcome == nil)
    }

    @Test func `is read from its segments alone where both meta pages are gone`() throws {
        let kept = try Self.store()
        let before = try StoryStore.records(kept.disk)
        for isRemoved in [true, false] {
            let disk = kept.disk.copy()
            let meta = StoryStore.directory + "/meta"
            if isRemoved {
                try disk.remove(meta)
            } else {
                try disk.change(meta) { bytes in
                    bytes[100] ^= 1
                    bytes[5000] ^= 1
                }
                let found = try StoryStore.verify(disk)
                #expect(!found.isOK && found.failure != nil)
            }
            let found = try Self.salvage(disk)
            #expect(!found.hadMeta && found.isWhole)
            #expect(try StoryStore.records(disk, "/q/new") == before)
        }
    }

    @Test func `is read by its checksums where a segment's headers are gone`() throws {
        let kept = try Self.store()
        let before = try StoryStore.records(kept.disk)
        let index = try #require(kept.log.segments.dropFirst().first).index
        let disk = kept.disk.copy()
        try disk.change(SimulatedDisk.segment(index)) { bytes in
            for index in 0..<1024 { bytes[index] = 0 }
        }
        #expect(try !StoryStore.verify(disk).isOK)
        let found = try Self.salvage(disk)
        #expect(found.segmentsWithoutHeader == [index] && found.isWhole)
        #expect(try StoryStore.records(disk, "/q/new") == before)
    }

    @Test func `is told of as lost where a whole segment is gone (P9)`() throws {
        let kept = try Self.store()
        let before = try StoryStore.records(kept.disk)
        for segment in kept.log.segments.dropLast() {
            let disk = kept.disk.copy()
            try disk.remove(SimulatedDisk.segment(segment.index))
            #expect(try !StoryStore.verify(disk).isOK)
            let found = try Self.salvage(disk)
            #expect(!found.isWhole)
            #expect(found.report.damaged.contains { $0.position.segment == segment.index })
            let after = try StoryStore.records(disk, "/q/new")
            let lost = Set(found.lostTasks.filter { $0.part == .task }.map(\.id))
            #expect(Set(after.map(\.id)).union(lost) == Set(before.map(\.id)))
            #expect(try StoryStore.verify(disk, "/q/new").isOK)
        }
    }

    @Test func `is told of as damaged where a segment's end is zeros (P9)`() throws {
        let kept = try Self.store()
        let segment = try #require(kept.log.segments.first)
        let end = try #require(segment.end)
        let last = try #require(
            try Self.places(kept.disk).last { $0.position.segment == segment.index }
        )
        let disk = kept.disk.copy()
        try disk.change(SimulatedDisk.segment(segment.index)) { bytes in
            for index in Int(last.position.offset)..<end { bytes[index] = 0 }
        }
        #expect(try !StoryStore.verify(disk).isOK)
        let found = try Self.salvage(disk)
        #expect(found.report.damaged.contains { $0.position.segment == segment.index })
        #expect(!found.isWhole)
    }

    @Test func `is never written to by who salvages it`() throws {
        let kept = try Self.store()
        let disk = kept.disk.copy()
        try disk.flip(SimulatedDisk.segment(1), byte: 1100)
        let names = try disk.list(StoryStore.directory).sorted()
        let contents = names.map { disk.contents(of: StoryStore.directory + "/" + $0) }
        _ = try Self.salvage(disk)
        #expect(try disk.list(StoryStore.directory).sorted() == names)
        #expect(names.map { disk.contents(of: StoryStore.directory + "/" + $0) } == contents)
    }

    @Test func `isn't compacted, and whoever asks is told where (P9)`() throws {
        let kept = try Self.store()
        let disk = kept.disk.copy()
        try disk.flip(SimulatedDisk.segment(1), byte: 1100)
        var damaged = try StoryStore(disk)
        damaged.propose(.compact(number: 9))
        try damaged.settle()
        guard case .notCompacted(9, .damaged)? = damaged.told.last else {
            Issue.record("it isn't refused: \(damaged.told)")
            return
        }
    }
}
