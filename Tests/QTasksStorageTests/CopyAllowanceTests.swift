// Part of QTasks. License: see LICENSE.

import AppendLog
import Testing

@testable import QTasksStorage

@Suite
struct `What a compaction may copy` {
    private static let second: UInt64 = 1_000_000_000
    private static let step = 64 << 10

    /// Copies as much as it may, and no more.
    private static func copy(_ allowance: inout CopyAllowance) -> Int {
        var copied = 0
        while !allowance.isSpent {
            allowance.spend(copied: step)
            copied += step
        }
        return copied
    }

    @Test func `comes with time, however much of it has gone by`() {
        var allowance = CopyAllowance()
        allowance.begin(now: Self.second)
        let first = Self.copy(&allowance)
        #expect(first >= 64 << 10 && first <= 1 << 20)
        let moment = allowance.nextAt
        #expect(moment > Self.second && moment < Self.second + 20_000_000)
        allowance.grow(appended: 0, now: moment - 1_000_000)
        let early = allowance.nextAt
        allowance.grow(appended: 0, now: moment)
        // but for what a byte takes
        #expect(early <= moment + 1000 && !allowance.isSpent)
        _ = Self.copy(&allowance)
        allowance.grow(appended: 0, now: 1_000_000 * Self.second)
        #expect(Self.copy(&allowance) <= 1 << 20)
        allowance.grow(appended: 0, now: 0)
        #expect(allowance.isSpent)
    }

    @Test func `comes with what others append, so that it gets done however much they do`() {
        var allowance = CopyAllowance()
        allowance.begin(now: 0)
        _ = Self.copy(&allowance)
        #expect(!allowance.isBehind)
        var (copied, appended) = (0, 0)
        for _ in 0..<1000 {
            allowance.grow(appended: 100 << 10, now: 0)
            appended += 100 << 10
            copied += Self.copy(&allowance)
        }
        #expect(copied > 2 * appended && copied < 4 * appended)
    }

    @Test func `has no regard for others once it has fallen behind them`() {
        var allowance = CopyAllowance()
        allowance.begin(now: 0)
        allowance.grow(appended: 0, now: 3600 * Self.second)
        #expect(!allowance.isBehind)
        for _ in 0..<100 { allowance.grow(appended: 100 << 10, now: 0) }
        #expect(allowance.isBehind)
        // and what it missed long ago is forgotten
        #expect(Self.copy(&allowance) <= 4 << 20)
    }

    @Test func `waits for a checkpoint, but not for ever where others append`() {
        var allowance = CopyAllowance()
        allowance.begin(now: 0)
        _ = Self.copy(&allowance)
        let step = 64 << 10
        var appended = 0
        // however much time goes by
        var hour: UInt64 = 1
        while appended < 32 << 20, !allowance.goesOn(beside: step, now: hour * 3600 * Self.second) {
            #expect(allowance.isSpent)
            appended += step
            hour += 1
        }
        #expect(appended > 4 << 20 && appended < 16 << 20)
        #expect(!allowance.isSpent)
        // the next checkpoint is another
        allowance.grow(appended: 0, now: 0)
        let goesOn = allowance.goesOn(beside: step, now: 0)
        #expect(!goesOn)
    }

    @Test func `is spent by reading as well, though less`() {
        var (copying, reading) = (CopyAllowance(), CopyAllowance())
        let copied = Self.copy(&copying)
        var read = 0
        while !reading.isSpent {
            reading.read(Self.step)
            reading.spend(copied: 0)
            read += Self.step
        }
        #expect(read >= 4 * copied)
    }
}
