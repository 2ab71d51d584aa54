// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import AppendLog

/// A writer that is killed, loses power and meets failing syncs at any step, over and over, and
/// what the next opening must then find.
private struct Ordeal {
    let disk: SimulatedDisk
    let seed: UInt64
    var chance: SimulatedDisk.Chance

    /// What was appended under each sequence, last.
    var payloads: [UInt64: [UInt8]] = [:]
    /// What must be there after loss of power, and after the end of the process alone.
    var durable: UInt64 = 0
    var written: UInt64 = 0
    var incarnation: UInt32 = 0
    /// Whether the power went since the last opening that came through.
    var hasLostPower = false

    init(seed: UInt64) {
        self.seed = seed
        disk = SimulatedDisk(seed: seed)
        chance = SimulatedDisk.Chance(seed: seed &+ 1000)
    }

    mutating func run(rounds: Int) {
        for _ in 0..<rounds {
            plan()
            if let log = open() { work(log) }
            end()
        }
        disk.crash(seed: seed)
        hasLostPower = true
        if let log = open() { #expect(throws: Never.self) { try log.close() } }
        #expect(open()?.recovery.wasClean == true, "seed \(seed)")
    }

    /// Decides what will go wrong, and when.
    private mutating func plan() {
        switch Int.random(in: 0..<10, using: &chance) {
        case 0..<5: disk.losePower(after: Int.random(in: 1..<40, using: &chance))
        case 5: disk.failSync(after: Int.random(in: 0..<8, using: &chance), errno: EIO)
        case 6: disk.failWrite(after: Int.random(in: 0..<8, using: &chance), errno: EIO)
        default: break
        }
    }

    private mutating func open() -> Log? {
        guard let opened = try? Opened(disk) else { return nil }
        let log = opened.log
        let last = log.lastSequence
        #expect(log.recovery.lost.isEmpty, "seed \(seed): \(log.recovery.lost)")
        #expect(opened.entries.map(\.sequence) == Array(1..<last + 1), "seed \(seed)")
        #expect(last >= (hasLostPower ? durable : written), "seed \(seed)")
        for entry in opened.entries {
            #expect(entry.payload == payloads[entry.sequence], "seed \(seed), \(entry.sequence)")
            guard !disk.isPowerless else { continue }
            #expect((try? log.read(entry.position)) == entry.payload, "seed \(seed)")
        }
        #expect(log.incarnation > incarnation, "seed \(seed)")
        incarnation = log.incarnation
        (written, durable) = (last, last)
        payloads = payloads.filter { $0.key <= last }
        hasLostPower = false
        return log
    }

    /// Appends and lets the jobs run in any order, until something fails or it is enough.
    private mutating func work(_ log: Log) {
        for _ in 0..<Int.random(in: 1..<60, using: &chance) {
            guard log.failure == nil else { return }
            switch Int.random(in: 0..<8, using: &chance) {
            case 0..<3: append(log)
            case 3: log.submit(sync: Bool.random(using: &chance))
            case 4: _ = log.runOneWrite()
            case 5: _ = log.runOneSync()
            case 6: _ = log.runOnePreparation()
            default: if Int.random(in: 0..<4, using: &chance) == 0 { log.noteIdle() }
            }
            let marks = log.watermarks()
            (written, durable) = (marks.written, marks.durable)
        }
        if Int.random(in: 0..<4, using: &chance) == 0, (try? log.close()) != nil {
            (written, durable) = (log.lastSequence, log.lastSequence)
        }
    }

    private mutating func append(_ log: Log) {
        let bytes = Int.random(in: 0..<10, using: &chance) == 0 ? 2900 : 90
        let payload = (0..<Int.random(in: 0..<bytes, using: &chance)).map { _ in
            UInt8.random(in: 0...255, using: &chance)
        }
        guard let sequence = try? log.append(kind: 1, payload: payload).sequence else { return }
        payloads[sequence] = payload
    }

    private mutating func end() {
        if disk.endProcess(orPower: &chance) { hasLostPower = true }
    }
}

@Suite(.timeLimit(.minutes(10)))
struct `A writer that crashes at any step` {
    @Test(arguments: 0..<10)
    func `leaves every acknowledged record and nothing half`(batch: UInt64) {
        for seed in batch * 20..<batch * 20 + 20 {
            var ordeal = Ordeal(seed: seed)
            ordeal.run(rounds: 6)
        }
    }

    @Test func `can lose power at each step of opening, writing and closing`() throws {
        var steps = 1
        while true {
            let disk = SimulatedDisk(seed: UInt64(steps))
            disk.losePower(after: steps)
            var durable: UInt64 = 0
            let isDone = (try? story(on: disk, &durable)) != nil
            disk.crash(seed: UInt64(steps))
            let opened = try Opened(disk)
            #expect(opened.log.lastSequence >= durable, "power lost after \(steps) steps")
            #expect(opened.log.recovery.lost.isEmpty, "power lost after \(steps) steps")
            for entry in opened.entries {
                #expect(entry.payload == payload(Int(entry.sequence), bytes: 700))
            }
            if isDone { break }
            steps += 1
        }
        #expect(steps > 40)
    }

    private func story(on disk: SimulatedDisk, _ durable: inout UInt64) throws {
        for round in 0..<3 {
            let log = try Opened(disk).log
            defer { durable = max(durable, log.watermarks().durable) }
            for _ in 0..<12 {
                let next = Int(log.lastSequence) + 1
                try log.append(kind: 1, payload: payload(next, bytes: 700))
                try log.flush()
                durable = log.watermarks().durable
                _ = log.runOnePreparation()
            }
            if round == 1 { disk.endProcess() } else { try log.close() }
        }
    }
}
