// Part of QTasks. License: see LICENSE.
//
// What goes wrong with the disk, by the plan; ``World/mendDisk()`` ends it.

import AppendLog
import Glibc

extension World {
    private static let pageBytes = 4096

    /// A write or a sync gets `EIO`.
    func failDisk(_ call: SimulatedDisk.Call, after passed: Int) {
        guard armed == nil else { return }
        isDiskSuspect = true
        armed = call == .sync ? .syncError : .writeError
        disk.fail(call, after: passed, errno: EIO)
    }

    /// The disk has done what it was told to.
    func noteArmed() {
        guard let kind = armed, !disk.hasFaults else { return }
        armed = nil
        count(kind)
        trace(ProcessName(role: .world), .note("the disk failed: \(kind.name)"))
    }

    /// Somebody else fills the disk, and makes room again.
    func fillDisk(room: Int, for time: UInt64) {
        isDiskSuspect = true
        count(.diskFull)
        trace(ProcessName(role: .world), .note("\(room) bytes are left on the disk"))
        disk.setCapacity(disk.bytesUsed + room)
        after(time) { [self] in disk.setCapacity(.max) }
    }

    /// Nothing is wrong with the disk from here on.
    func mendDisk() {
        noteArmed()
        armed = nil
        disk.mend()
    }

    /// Whether somebody may complain of the disk like that.
    func isDiskFault(_ error: AppendLogError) -> Bool {
        guard isDiskSuspect else { return false }
        switch error {
        case .system(_, _, EIO), .system(_, _, ENOSPC), .outOfSpace: return true
        default: return false
        }
    }

    // MARK: Rot

    /// The newest meta page rots while nobody writes: the older one must do (recovery.md, R3 and R6).
    func rotMeta() {
        guard !isDown else { return }
        let path = "\(Self.store)/meta"
        for storage in storages where storage.isAlive { storage.end("kill -9") }
        guard let bytes = disk.contents(of: path), bytes.count >= 2 * Self.pageBytes else { return }
        func transaction(_ page: Int) -> UInt64 {
            bytes[(page * Self.pageBytes + 16)...].prefix(8).reversed()
                .reduce(0) { $0 << 8 | UInt64($1) }
        }
        let newest = transaction(0) > transaction(1) ? 0 : 1
        let offset = newest * Self.pageBytes + random.below(72)
        guard disk.rot(path, at: offset, mask: 1 << UInt8(random.below(8))) else { return }
        count(.metaRot)
        trace(ProcessName(role: .world), .note("a bit turned over in the newest meta page"))
    }

    /// The newest page rots where the older one still names segments that it doesn't.
    ///
    /// - Returns: Whether it did; nobody lives then who writes.
    func rotAtRelease() -> Bool {
        guard scenario.rotsAtRelease, !hasRottedAtRelease, !isCalm,
            let meta = disk.contents(of: "\(Self.store)/meta"), meta.count >= 2 * Self.pageBytes
        else { return false }
        func first(_ page: Int) -> ArraySlice<UInt8> {
            meta[(page * Self.pageBytes + 40)...].prefix(4)
        }
        guard !first(0).elementsEqual(first(1)) else { return false }
        hasRottedAtRelease = true
        rotMeta()
        return true
    }

    /// A bit turns over in a segment that nobody writes to any more.
    ///
    /// Not in the newest two: of the last synced group no later one says that it was synced, so that
    /// rot there can't be told from a tear (H42).
    func rotSegment() {
        guard let names = try? disk.list(Self.store) else { return }
        let segments = names.filter { $0.hasPrefix("segment-") }.sorted().dropLast(3)
        guard !segments.isEmpty else { return }
        let path = "\(Self.store)/\(random.pick(Array(segments)))"
        guard let size = disk.contents(of: path)?.count, size > 0 else { return }
        let offset = random.below(size)
        guard disk.rot(path, at: offset, mask: 1 << UInt8(random.below(8))) else { return }
        hasRot = true
        count(.segmentRot)
        trace(ProcessName(role: .world), .note("a bit turned over in \(path) at \(offset)"))
    }

    /// Somebody has said that the store is damaged.
    func reportDamage() {
        isDamageReported = true
        checker.statistics.reportedDamage += 1
        trace(ProcessName(role: .world), .note("the damage is reported"))
    }
}
