// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import AppendLog

/// A table over a log that is compacted, checkpointed, closed, killed and loses power at any step, over
/// and over; beside it a list of all that was ever done, which says what must then be there.
private struct Ordeal {
    let disk: SimulatedDisk
    let seed: UInt64
    let options: LogOptions
    var chance: SimulatedDisk.Chance

    /// What was done, by sequence.
    var changes: [Change] = []
    /// What must be there after loss of power, and after the end of the process alone.
    var durable: UInt64 = 0
    var written: UInt64 = 0
    var incarnation: UInt32 = 0
    /// Whether the power went since the last opening that came through.
    var hasLostPower = false

    /// Of the log that is open now.
    private var cursor: [UInt8]?
    private var held: [(position: RecordPosition, payload: [UInt8])] = []
    private(set) var tally = Tally()

    /// How often the rarer things came to pass: a test that never compacts proves nothing.
    struct Tally {
        var openings = 0
        var restored = 0
        var compactions = 0
        var carried = 0
        var checkpoints = 0
    }

    init(seed: UInt64) {
        self.seed = seed
        disk = SimulatedDisk(seed: seed)
        chance = SimulatedDisk.Chance(seed: seed &+ 7000)
        var options = LogOptions.small
        if seed % 5 == 4 { options.zeroFillAheadBytes = 0 }
        if seed % 7 == 6 { (options.quotaBytes, options.reserveBytes) = (60_000, 20_000) }
        self.options = options
    }

    mutating func run(rounds: Int) {
        for _ in 0..<rounds {
            plan()
            if var opened = open() { work(&opened) }
            end()
        }
        disk.crash(seed: seed)
        hasLostPower = true
        if let opened = open() { #expect(throws: Never.self) { try opened.log.close() } }
        #expect(open()?.log.recovery.wasClean == true, "seed \(seed)")
    }

    /// Decides what will go wrong, and when.
    private mutating func plan() {
        switch Int.random(in: 0..<12, using: &chance) {
        case 0..<3: disk.losePower(after: Int.random(in: 1..<30, using: &chance))
        case 3: disk.losePower(after: Int.random(in: 1..<200, using: &chance))
        case 4: disk.failSync(after: Int.random(in: 0..<20, using: &chance), errno: EIO)
        case 5: disk.failWrite(after: Int.random(in: 0..<40, using: &chance), errno: EIO)
        case 6: disk.failWrite(after: Int.random(in: 0..<40, using: &chance), errno: ENOSPC)
        default: break
        }
    }

    // MARK: Opening

    private mutating func open() -> OpenedTable? {
        let before = chance.next() % 3 == 0 && !disk.isPowerless ? disk.copy() : nil
        guard let opened = try? OpenedTable(disk, options) else { return nil }
        tally.openings += 1
        if opened.log.recovery.checkpoint != nil { tally.restored += 1 }
        let last = opened.log.lastSequence
        #expect(!opened.log.recovery.isDamaged, "seed \(seed): \(opened.log.recovery)")
        #expect(last >= (hasLostPower ? durable : written), "seed \(seed)")
        #expect(last <= changes.count, "seed \(seed)")
        changes.removeLast(max(0, changes.count - Int(last)))
        if !disk.isPowerless {
            check("the log", contents: try? opened.contents())
            if let before { checkOthers(before) }
        }
        #expect(opened.log.incarnation > incarnation, "seed \(seed)")
        incarnation = opened.log.incarnation
        (written, durable) = (last, last)
        hasLostPower = false
        (cursor, held) = (nil, [])
        return opened
    }

    private func check(_ what: String, contents: Contents?) {
        var expected = Contents()
        for change in changes { expected.apply(change) }
        if contents != expected {
            Issue.record("seed \(seed), \(what) has \(difference(contents, expected))")
        }
    }

    private func difference(_ found: Contents?, _ expected: Contents) -> String {
        guard let found else { return "an entry whose record can't be read" }
        return Set(found.things.keys).union(expected.things.keys).sorted()
            .filter { found.things[$0] != expected.things[$0] }
            .map {
                """
                \($0): \(String(describing: found.things[$0])) instead of \
                \(String(describing: expected.things[$0]))
                """
            }.joined(separator: "; ")
    }

    /// Everybody who looks at the same bytes sees the same: a reader, and a writer for whom the
    /// checkpoints are gone or rotten, or the newer meta page is.
    private mutating func checkOthers(_ before: SimulatedDisk) {
        guard before.contents(of: metaPath) != nil else { return }
        for usesCheckpoints in [true, false] {
            let read = try? Contents.read(before, usesCheckpoints: usesCheckpoints)
            check("a reader, checkpoints \(usesCheckpoints),", contents: read?.contents)
            #expect(read?.last == UInt64(changes.count), "seed \(seed)")
            #expect(read?.report.isDamaged == false, "seed \(seed)")
        }
        let checkpoints = ((try? before.list(Opened.directory)) ?? [])
            .filter { LogFormat.checkpointNumber($0) != nil }
            .map { "\(Opened.directory)/\($0)" }
        for path in checkpoints {
            guard var bytes = before.contents(of: path), !bytes.isEmpty else { continue }
            bytes[Int.random(in: 0..<bytes.count, using: &chance)] ^= 0x40
            let copy = before.copy()
            copy.setContents(of: path, to: bytes)
            check("a log with a rotten checkpoint", contents: contents(copy))
        }
        let copy = before.copy()
        for path in checkpoints { try? copy.remove(path) }
        check("a log without checkpoints", contents: contents(copy))
        let rotten = before.copy()
        if rotten.rotNewerMetaPage() {
            check("a log by its older meta page", contents: contents(rotten))
        }
    }

    private func contents(_ disk: SimulatedDisk) -> Contents? {
        try? OpenedTable(disk, options).contents()
    }

    // MARK: Work

    /// Does and lets be done one thing or another, until something fails or it is enough.
    private mutating func work(_ opened: inout OpenedTable) {
        let log = opened.log
        let checkpoints = log.checkpoints.map(\.number)
        for _ in 0..<Int.random(in: 1..<250, using: &chance) {
            guard log.failure == nil else { return }
            step(&opened)
            let marks = log.watermarks()
            (written, durable) = (marks.written, marks.durable)
        }
        tally.checkpoints += log.checkpoints.count { !checkpoints.contains($0.number) }
        if Int.random(in: 0..<4, using: &chance) == 0, (try? log.close()) != nil {
            (written, durable) = (log.lastSequence, log.lastSequence)
        }
    }

    private mutating func step(_ opened: inout OpenedTable) {
        let log = opened.log
        switch Int.random(in: 0..<24, using: &chance) {
        case 0..<6: append(&opened)
        case 6..<8: log.submit(sync: chance.next() % 3 != 0)
        case 8..<10: _ = log.runOneWrite()
        case 10..<12: _ = log.runOneSync()
        case 12..<14: _ = log.runOnePreparation()
        case 14..<17: _ = log.runOneKeep()
        case 17: if chance.next() % 4 == 0 { log.noteIdle() }
        case 18: read(opened)
        case 19..<22: compact(&opened)
        case 22: checkpoint(opened)
        default: hold(opened)
        }
    }

    private mutating func append(_ opened: inout OpenedTable) {
        let key = UInt8.random(in: 0..<20, using: &chance)
        let isLong = Int.random(in: 0..<10, using: &chance) == 0
        let change: Change =
            switch Int.random(in: 0..<6, using: &chance) {
            case 0..<2:
                .put(
                    key: key,
                    value: (0..<Int.random(in: 0..<(isLong ? 2900 : 200), using: &chance)).map {
                        UInt8(truncatingIfNeeded: $0 &* 7 &+ changes.count)
                    }
                )
            case 2..<4: .update(key: key, with: UInt8.random(in: 0...255, using: &chance))
            default: .end(key: key)
            }
        opened.log.stamp = UInt64(changes.count)
        guard (try? opened.table.append(change, to: opened.log)) != nil else { return }
        changes.append(change)
    }

    private mutating func read(_ opened: OpenedTable) {
        if !disk.isPowerless { check("the log while at work", contents: try? opened.contents()) }
        for (position, payload) in held where !disk.isPowerless {
            #expect((try? opened.log.read(position)) == payload, "seed \(seed), held")
        }
    }

    private mutating func compact(_ opened: inout OpenedTable) {
        guard opened.log.isCompacting else {
            if Int.random(in: 0..<3, using: &chance) == 0 { _ = opened.log.beginCompaction() }
            return
        }
        if Int.random(in: 0..<200, using: &chance) == 0 { return opened.log.abandonCompaction() }
        for _ in 0..<Int.random(in: 1..<8, using: &chance) {
            let before = opened.table
            switch opened.table.compact(opened.log, carriesState: chance.next() % 2 == 0) {
            case .record: if before.entries != opened.table.entries { tally.carried += 1 }
            case .waiting: return
            case .finished:
                tally.compactions += 1
                return
            case .damaged:
                if !disk.isPowerless { Issue.record("seed \(seed): nothing is damaged") }
                return
            }
        }
    }

    private mutating func checkpoint(_ opened: OpenedTable) {
        let log = opened.log
        if let keys = cursor {
            guard log.takesCheckpointBlocks else { return giveUp(log) }
            // Keys that come to be meanwhile are behind the cursor, or are replayed.
            let count = Int.random(in: 1..<12, using: &chance)
            let block = opened.table.block(keys.prefix(count))
            block.withUnsafeBytes { log.addCheckpointBlock($0) }
            cursor = Array(keys.dropFirst(count))
            guard cursor?.isEmpty == true else { return }
            log.endCheckpoint(stamp: UInt64(changes.count))
            cursor = nil
        } else if !log.isWritingCheckpoint {
            for old in log.checkpoints.dropLast(Int.random(in: 1..<3, using: &chance)) {
                log.removeCheckpoint(old.number)
            }
            log.beginCheckpoint()
            cursor = Array(0..<20)
        }
    }

    private mutating func giveUp(_ log: Log) {
        guard log.checkpointFailure != nil || Int.random(in: 0..<4, using: &chance) == 0 else {
            return
        }
        log.abandonCheckpoint()
        cursor = nil
    }

    private mutating func hold(_ opened: OpenedTable) {
        if let first = held.first, Bool.random(using: &chance) {
            opened.log.unhold(first.position.segment)
            held.removeFirst()
        } else if let key = opened.table.entries.keys.sorted().randomElement(using: &chance),
            let entry = opened.table.entries[key],
            let payload = try? opened.log.read(entry.position)
        {
            opened.log.hold(entry.position.segment)
            held.append((entry.position, payload))
        }
    }

    private mutating func end() {
        if disk.endProcess(orPower: &chance) { hasLostPower = true }
    }
}

@Suite(.timeLimit(.minutes(10)))
struct `An owner that crashes at any step` {
    /// `QTASKS_SEEDS` for more.
    private static let seeds = getenv("QTASKS_SEEDS").flatMap { UInt64(String(cString: $0)) } ?? 100

    @Test(arguments: 0..<10)
    func `finds exactly what was done, whichever way it reads`(batch: UInt64) {
        var tally = (restored: 0, compactions: 0, carried: 0, checkpoints: 0)
        let count = Self.seeds / 10
        for seed in batch * count..<(batch + 1) * count {
            var ordeal = Ordeal(seed: seed)
            ordeal.run(rounds: 8)
            tally.restored += ordeal.tally.restored
            tally.compactions += ordeal.tally.compactions
            tally.carried += ordeal.tally.carried
            tally.checkpoints += ordeal.tally.checkpoints
        }
        let isTelling =
            tally.restored > 5 && tally.compactions > 5 && tally.carried > 5
            && tally.checkpoints > 5
        #expect(isTelling, "\(tally)")
        if getenv("QTASKS_TALLY") != nil { print(tally) }
    }
}

extension SimulatedDisk {
    /// Flips a bit in the newer page; `false` where the other one isn't whole either.
    func rotNewerMetaPage() -> Bool {
        guard var bytes = contents(of: metaPath), bytes.count == MetaPage.fileBytes else {
            return false
        }
        let pages = [0, 1].map { index in
            bytes.withUnsafeBytes { all in
                try? MetaPage.decode(
                    UnsafeRawBufferPointer(rebasing: all[(index * MetaPage.bytes)...]),
                    path: ""
                )
            }
        }
        guard let first = pages[0], let second = pages[1] else { return false }
        let newer = first.transaction > second.transaction ? 0 : 1
        bytes[newer * MetaPage.bytes + 100] ^= 1
        setContents(of: metaPath, to: bytes)
        return true
    }
}
