// Part of QTasks. License: see LICENSE.
//
// When Storage keeps house, how much of it at a time, and when it stops.

import AppendLog
import QTasksModel
import QTasksWire
import Testing

@testable import QTasksStorage

private let second: UInt64 = 1_000_000_000

private func keeping(
    checkpointBytes: Int = 1 << 30,
    history: HistoryWindow = .none
) -> StorageKeeper.Settings {
    var settings = StorageKeeper.Settings(history: history)
    settings.checkpointBytes = checkpointBytes
    return settings
}

@Suite
struct `A checkpoint` {
    /// How many bytes of records lie behind the last one when the next is begun.
    private static func bytesUntilNext(_ house: House) throws -> Int {
        for _ in 0..<10_000 {
            try house.add(2)
            try house.commit()
            let bytes = house.log.kept.bytesSinceCheckpoint
            house.step()
            if house.log.kept.isWritingCheckpoint { return bytes }
        }
        throw KeptModel.Complaint("no checkpoint is ever begun")
    }

    @Test func `is begun once so many bytes have come, and again after as many`() throws {
        let least = 40 << 10
        let house = try House(keeping(checkpointBytes: least))
        for number in 1...3 {
            let bytes = try Self.bytesUntilNext(house)
            // the keeper looks at the log whenever a segment has ended
            #expect(bytes >= least && bytes < least + 13 << 10)
            try house.settle()
            #expect(house.log.kept.checkpoints.last?.number == UInt32(number))
        }
    }

    @Test func `is begun later where the last one was long`() throws {
        let house = try House(keeping(checkpointBytes: 1 << 10))
        try house.add(2000)
        try house.settle()
        let last = try #require(house.log.kept.checkpoints.last?.bytes)
        #expect(last > 40 << 10)
        let bytes = try Self.bytesUntilNext(house)
        #expect(bytes >= last / 2 && bytes < last / 2 + 13 << 10)
    }

    @Test func `is written a few hundred tasks at a step, and whole in the end`() throws {
        let house = try House(keeping(checkpointBytes: 40 << 10))
        try house.add(1000)
        try house.commit()
        var steps = 0
        while steps < 20, house.step(looks: 0) == .soon {
            steps += 1
            #expect(house.log.kept.isWritingCheckpoint)
        }
        #expect(steps >= 4 && steps < 10)
        #expect(house.log.kept.checkpoints.isEmpty, "nobody has written it yet")
        try house.settle()
        #expect(house.log.kept.checkpoints.count == 1)
    }

    @Test func `is the only one on its way, however much comes meanwhile`() throws {
        let house = try House(keeping(checkpointBytes: 20 << 10))
        _ = try Self.bytesUntilNext(house)
        for _ in 0..<20 {
            // the log's threads don't get to it
            try house.add(40)
            try house.commit()
            house.step()
            #expect(house.log.kept.checkpoints.isEmpty && house.log.kept.isWritingCheckpoint)
        }
        house.keepLog()
        #expect(house.log.kept.checkpoints.count == 1)
    }

    @Test func `that finds no room is given up, and tried again when there is more to gain (P9)`()
        throws
    {
        let least = 40 << 10
        let house = try House(keeping(checkpointBytes: least))
        let failedAt = try Self.bytesUntilNext(house)
        house.disk.failWrite(after: 0, errno: 28)
        house.keepLog()
        #expect(house.log.kept.checkpointFailure != nil)
        let bytes = try Self.bytesUntilNext(house)
        #expect(bytes >= failedAt + least / 4 && bytes < failedAt + least / 4 + 14 << 10)
        try house.settle()
        #expect(house.log.kept.checkpoints.count == 1 && house.state.failure == nil)
    }

    @Test func `waits where room is short (P9)`() throws {
        let house = try House(keeping(checkpointBytes: 20 << 10), quota: 120 << 10)
        try house.fill(until: { !house.log.kept.hasRoom })
        #expect(house.log.kept.bytesSinceCheckpoint > 20 << 10)
        house.step()
        #expect(!house.log.kept.isWritingCheckpoint)
    }
}

@Suite
struct `A compaction` {
    /// So many tasks have ended, and are forgotten.
    private static func forget(_ count: Int, in house: House) throws {
        let before = house.log.appended[.expire, default: 0]
        house.finish(try house.add(count))
        try house.settle()
        house.pass(620)
        try house.settle()
        #expect(house.log.appended[.expire, default: 0] == before + count)
    }

    private static func first(_ house: House) -> UInt32 { house.log.kept.segments[0].index }

    @Test func `begins where more is dead than alive, and not before`() throws {
        let house = try House(keeping())
        try house.add(300)
        try house.settle()
        #expect(house.log.kept.segments.count > 4)
        #expect(Self.first(house) == 1 && house.log.carried == 0)
        try Self.forget(100, in: house)
        #expect(Self.first(house) == 1 && house.log.carried == 0)
        try Self.forget(500, in: house)
        #expect(Self.first(house) > 1 && house.log.carried >= 300)
        #expect(house.state.tasks.index.count == 300)
    }

    @Test func `begins at a segment that is nearly dead, whatever the others are like`() throws {
        let house = try House(keeping())
        let ended = try house.add(80)
        try house.add(300)
        house.finish(ended)
        try house.settle()
        #expect(Self.first(house) == 1)
        house.pass(620)
        try house.settle()
        #expect(Self.first(house) > 1 && house.log.carried < 40)
        #expect(house.state.tasks.index.count == 300)
    }

    /// Steps until nothing moves but by a checkpoint that waits for the disk, which the log doesn't write.
    private static func stepBesideCheckpoint(_ house: House) throws {
        var (last, now) = (-1, 0)
        while now != last {
            last = now
            for _ in 0..<10 {
                try house.commit()
                _ = house.log.kept.runOneRead()
                house.step()
            }
            now = house.log.carried + Int(first(house)) + Int(house.log.kept.lastSequence)
        }
        #expect(house.log.kept.isWritingCheckpoint)
    }

    @Test func `of what is dead goes on beside a checkpoint, however long that takes`() throws {
        let house = try House(keeping(checkpointBytes: 60 << 10))
        house.finish(try house.add(120))
        try house.add(200)
        try house.commit()
        house.step()
        house.pass(620)
        try Self.stepBesideCheckpoint(house)
        #expect(Self.first(house) > 1)
        try house.settle()
        #expect(house.state.tasks.index.count == 200)
    }

    @Test func `of what is alive waits for a checkpoint, until others have appended 8 MiB`() throws
    {
        let house = try House(keeping(checkpointBytes: 60 << 10))
        let first = try house.add(120)
        house.finish(first.indices.filter { $0 % 2 == 0 }.map { first[$0] })
        house.finish(try house.add(400))
        try house.commit()
        house.step()
        house.pass(620)
        try Self.stepBesideCheckpoint(house)
        #expect(house.log.kept.isCompacting && house.log.carried == 0)
        try house.add(1800, bytes: 5000)
        try Self.stepBesideCheckpoint(house)
        #expect(house.log.carried > 0 && Self.first(house) > 1)
        try house.settle()
        #expect(house.state.tasks.index.count == 60 + 1800)
    }

    @Test func `that has begun ends, and its segment goes, before a checkpoint begins`() throws {
        let house = try House(keeping(checkpointBytes: 60 << 10))
        try house.add(300)
        try house.settle()
        house.finish(try house.add(500))
        try house.settle()
        house.pass(620)
        var waits = 0
        for _ in 0..<400 {
            try house.add(2)
            try house.commit()
            let log = house.log.kept
            let isBusy = log.isCompacting || log.isRemovingSegments
            let isWriting = log.isWritingCheckpoint
            let isDue = log.bytesSinceCheckpoint > 60 << 10
            house.step(looks: 0)
            if isBusy, !isWriting, isDue { waits += 1 }
            #expect(!isBusy || isWriting || !log.isWritingCheckpoint)
            _ = log.runOneKeep()
        }
        #expect(waits > 0)
        try house.settle()
        #expect(house.log.kept.bytesSinceCheckpoint < 80 << 10)
        #expect(house.state.tasks.index.count == 300 + 800)
    }

    @Test func `lets a checkpoint that is due come between two segments`() throws {
        let house = try House(keeping(checkpointBytes: 60 << 10))
        try house.add(100)
        try house.settle()
        house.finish(try house.add(4000))
        try house.commit()
        house.pass(620)
        var (last, longest, run) = (Self.first(house), 0, 0)
        for _ in 0..<1500 {
            try house.add(1)
            try house.commit()
            house.step(looks: 0)
            _ = house.log.kept.runOneKeep()
            let first = Self.first(house)
            let least = max(60 << 10, (house.log.kept.checkpoints.last?.bytes ?? 0) / 2)
            let isDue = house.log.kept.bytesSinceCheckpoint > least
            if first != last { run += 1 }
            if house.log.kept.isWritingCheckpoint || !isDue { run = 0 }
            (last, longest) = (first, max(longest, run))
        }
        #expect(longest <= 2 && Self.first(house) > 10)
    }

    @Test func `that is late has regard for what it copies itself alone`() throws {
        let house = try House(keeping())
        try house.add(1100, bytes: 5000)
        house.finish(try house.add(3400, bytes: 5000))
        try house.settle()
        house.pass(620)
        try house.settle()
        #expect(house.log.kept.isCompacting && house.log.carried < 500)
        let carried = house.log.carried
        // the disk takes nothing of all this
        for _ in 0..<80 {
            try house.add(25, bytes: 5000)
            _ = house.log.kept.runOneRead()
            house.step()
        }
        #expect(house.log.kept.pendingBytes > 10_000_000)
        for _ in 0..<1000 {
            _ = house.log.kept.runOneRead()
            house.step()
        }
        let copied = (house.log.carried - carried) * 5000
        #expect(copied > 1 << 20 && copied < 5 << 20)
        for _ in 0..<100 {
            house.pass(1)
            try house.settle()
        }
        #expect(house.log.carried >= 1100)
    }

    @Test func `that has done much at once goes on later, says when, and gets done (P8)`() throws {
        let house = try House(keeping())
        try house.add(500, bytes: 5000)
        house.finish(try house.add(600, bytes: 5000))
        try house.settle()
        house.pass(620)
        try house.settle()
        let carried = house.log.carried
        #expect(house.log.kept.isCompacting && carried > 100 && carried < 400)
        // nothing comes that would call it
        let deadline = try #require(house.nextDeadline)
        #expect(deadline > house.now.monotonic && deadline < house.now.monotonic + second / 10)
        var seconds = 0
        while house.log.kept.isCompacting, seconds < 20 {
            house.pass(1)
            try house.settle()
            seconds += 1
        }
        #expect(!house.log.kept.isCompacting && house.log.carried >= 500)
        #expect(seconds > 1 && house.nextDeadline == nil)
    }

    @Test func `leaves history alone`() throws {
        let window = HistoryWindow(seconds: 86_400, bytes: 1 << 30) ?? .none
        let house = try House(keeping(checkpointBytes: 20 << 10, history: window))
        try Self.forget(500, in: house)
        #expect(Self.first(house) == 1 && house.log.carried == 0)
    }

    @Test func `takes history where room is about to be short (P9)`() throws {
        let window = HistoryWindow(seconds: 86_400, bytes: 1 << 30) ?? .none
        let house = try House(keeping(history: window), quota: 400 << 10)
        try Self.forget(500, in: house)
        #expect(Self.first(house) == 1 && !house.log.kept.isAlmostFull)
        try house.fill(until: { house.log.kept.isAlmostFull })
        house.step()
        #expect(house.log.kept.isCompacting)
    }

    @Test func `that somebody asks for goes on to the end, gains nothing, and is answered once`()
        throws
    {
        let house = try House(keeping())
        try house.add(200)
        try house.settle()
        let last = try #require(house.log.kept.segments.last?.index)
        house.propose(.compact(number: 8))
        house.propose(.compact(number: 9))
        try house.settle()
        #expect(Self.first(house) == last)
        #expect(house.compactions.count == 2)
        for (told, number) in zip(house.compactions, [8, 9] as [UInt64]) {
            guard case .compacted(number, _) = told else {
                Issue.record("\(told)")
                continue
            }
        }
        let carried = house.log.carried
        try house.settle()
        #expect(house.log.carried == carried && house.compactions.count == 2)
        #expect(!house.keeper.isForced && !house.log.kept.isCompacting)
    }

    @Test func `carries 16 records between two looks at the clock`() throws {
        let house = try House(keeping())
        try house.add(200)
        try house.commit()
        house.propose(.compact(number: 8))
        #expect(house.step(looks: 0) == .waiting, "nothing is read yet")
        house.keepLog()
        var steps = 0
        while steps < 100, house.log.kept.isCompacting {
            let before = house.log.carried
            #expect(house.step(looks: 0) == .soon)
            #expect(house.log.carried - before <= 16)
            steps += 1
        }
        #expect(steps > 1 && !house.log.kept.isCompacting)
        #expect(house.log.carried > 0)
    }

    @Test func `takes one segment after the other`() throws {
        let house = try House(keeping())
        try house.add(200)
        try house.settle()
        let count = house.log.kept.segments.count
        house.propose(.compact(number: 8))
        #expect(house.step() == .waiting)
        house.keepLog()
        // the first is done; the second isn't begun in the same step
        #expect(house.step() == .soon)
        #expect(!house.log.kept.isCompacting && Self.first(house) == 2)
        #expect(house.log.kept.segments.count <= count)
        #expect(house.step() == .waiting)
        #expect(house.log.kept.isCompacting && Self.first(house) == 2)
    }

    @Test func `comes to an end where all that is left are workers that live (P8)`() throws {
        let house = try House(keeping())
        house.learnWorkers(200)
        try Self.forget(300, in: house)
        #expect(Self.first(house) > 1 && house.state.tasks.index.count == 0)
    }

    @Test func `forgets a queue that has no rules any more, with what said so`() throws {
        let house = try House(keeping())
        for isPaused in [true, false] {
            var change = QueueChange()
            change.setPaused(isPaused)
            house.propose(.queue(number: 4, QueueMessage(queue: "mail", change: change)))
        }
        var change = QueueChange()
        change.setConcurrency(2)
        house.propose(.queue(number: 5, QueueMessage(queue: "other", change: change)))
        try Self.forget(300, in: house)
        #expect(Self.first(house) > 1)
        #expect(house.state.tasks.queues.entries.keys.sorted() == ["other"])
        try house.reopen()
        #expect(house.state.tasks.queues["other"].concurrency == 2)
        #expect(!house.state.tasks.queues["mail"].isPaused)
    }

    @Test func `that is broken off again and again leaves one record of a worker`() throws {
        let house = try House(keeping())
        house.learnWorkers(30)
        try house.add(200)
        for _ in 0..<4 {
            house.propose(.compact(number: 8))
            while house.log.carried < 40 {
                try house.commit()
                house.keepLog()
                house.step(looks: 0)
            }
            try house.reopen()
        }
        house.propose(.compact(number: 8))
        try house.settle()
        #expect(house.log.carried <= 230)
    }

    /// Many tasks and living workers, and at the end one task at a time, until that is so.
    private static func crowded(until isFull: (House) -> Bool) throws -> House {
        let house = try House(keeping(), zeroFillAhead: 8 << 10)
        for _ in 0..<6 {
            // the oldest segment has some that compaction carries as they are
            house.learnWorkers(10)
            try house.add(50)
            try house.settle()
        }
        house.disk.setCapacity(house.disk.bytesUsed)
        try house.fill(until: { isFull(house) })
        return house
    }

    @Test func `that finds no room ends, and goes on where it was once there is some (P9)`() throws
    {
        let house = try Self.crowded { !$0.log.kept.hasRoom }
        let tasks = house.state.tasks.index.count
        let last = try #require(house.log.kept.segments.last?.index)
        house.propose(.compact(number: 8))
        var steps = 0
        while house.step() != .idle, steps < 100 {
            steps += 1
            try house.commit()
            house.keepLog()
        }
        #expect(steps < 100, "no room, and nothing else to do")
        #expect(!house.log.kept.isCompacting && house.state.failure == nil)
        #expect(house.state.tasks.index.count == tasks && house.compactions.isEmpty)
        let carried = house.log.carried
        #expect(carried > 0 && Self.first(house) < last)
        house.disk.setCapacity(.max)
        house.log.kept.retrySpace()
        try house.settle()
        #expect(house.compactions.count == 1 && Self.first(house) == last)
        #expect(house.log.carried > carried)

        // as much as where there was always room, so nothing a second time
        let roomy = try Self.crowded { $0.state.tasks.index.count == tasks }
        roomy.disk.setCapacity(.max)
        roomy.log.kept.retrySpace()
        roomy.propose(.compact(number: 8))
        try roomy.settle()
        #expect(Self.first(roomy) == last && roomy.log.carried == house.log.carried)
    }
}

@Suite
struct `Forgetting` {
    /// Tasks that ended just now.
    private static func ended(_ count: Int, in house: House) throws {
        house.finish(try house.add(count))
        try house.settle()
    }

    @Test func `takes a few tasks at a step, and wakes Storage up for no other`() throws {
        let house = try House(keeping())
        try Self.ended(200, in: house)
        house.pass(620)
        for expected in [64, 128, 192] {
            #expect(house.step() == .soon)
            #expect(house.log.appended[.expire] == expected)
        }
        house.step()
        #expect(house.log.appended[.expire] == 200)
        try house.settle()
        #expect(house.nextDeadline == nil && house.state.tasks.index.count == 0)
    }

    @Test func `is due 10 s after the time that a task is kept, and never before (P3, P8)`() throws
    {
        let house = try House(keeping())
        #expect(house.nextDeadline == nil)
        try Self.ended(1, in: house)
        let due = try #require(house.nextDeadline)
        #expect(due >= house.now.monotonic + 610 * second)
        #expect(due <= house.now.monotonic + 611 * second)
        house.pass(599)
        #expect(house.step() == .idle)
        #expect(house.log.appended[.expire] == nil)
        house.pass(2)
        house.step()
        #expect(house.log.appended[.expire] == 1)
        #expect(house.nextDeadline == nil)
    }

    @Test func `waits for the end to be durable, and for the log to call (P2, P8)`() throws {
        let house = try House(keeping())
        let ids = try house.add(3)
        try house.commit()
        house.finish(ids)
        house.pass(620)
        _ = house.takeSyncWish()
        #expect(house.step() == .waiting)
        #expect(house.log.appended[.expire] == nil)
        #expect(house.nextDeadline == nil, "the log calls")
        #expect(house.takeSyncWish())
        try house.commit()
        house.step()
        #expect(house.log.appended[.expire] == 3)
    }

    @Test func `waits without a timer where there is no room for it (P8, P9)`() throws {
        let house = try House(keeping(), quota: 160 << 10)
        try Self.ended(40, in: house)
        try house.fill(until: { !house.log.kept.hasRoom })
        house.pass(620)
        #expect(house.step() == .idle)
        #expect(house.log.appended[.expire] == nil && house.nextDeadline == nil)
    }
}

@Suite
struct `A keeper with nothing to do` {
    @Test func `is idle, sets no timer and writes nothing (P8)`() throws {
        let house = try House(keeping(checkpointBytes: 20 << 10))
        try house.add(200)
        try house.settle()
        let (end, count) = (house.log.kept.end, house.log.kept.housekeepingCount)
        for _ in 0..<20 {
            house.pass(3600)
            #expect(house.step() == .idle)
            #expect(house.nextDeadline == nil)
        }
        #expect(house.log.kept.end == end && house.log.kept.housekeepingCount == count)
        #expect(!house.log.kept.isCompacting && !house.log.kept.isWritingCheckpoint)
    }

    @Test func `is one whose log has failed (P9)`() throws {
        let house = try House(keeping(checkpointBytes: 1))
        house.finish(try house.add(200))
        try house.commit()
        house.pass(620)
        house.state.fail("the disk is gone")
        #expect(house.step() == .idle && house.nextDeadline == nil)
        #expect(house.log.appended[.expire] == nil && !house.log.kept.isWritingCheckpoint)
    }
}
