// Part of QTasks. License: see LICENSE.

import Glibc
import Synchronization
import Testing

@testable import AppendLog

/// A record as the tests remember it.
struct Entry: Equatable {
    var sequence: UInt64
    var payload: [UInt8]
    var position: RecordPosition

    init(_ view: borrowing RecordView) {
        sequence = view.sequence
        payload = [UInt8](view.payload)
        position = view.position
    }
}

/// A log run by hand on a simulated disk, and what it replayed.
struct Opened {
    static let directory = "/store"

    let log: Log
    let entries: [Entry]

    init(
        _ disk: SimulatedDisk,
        _ options: LogOptions = .small
    ) throws(AppendLogError) {
        var entries: [Entry] = []
        log = try Log.open(
            at: Self.directory,
            options: options,
            files: disk,
            driver: .manual,
            replay: { entries.append(Entry($0)) }
        )
        self.entries = entries
    }
}

extension SimulatedDisk {
    /// Whether the power has gone and nothing has brought it back.
    var isPowerless: Bool {
        (try? list(Opened.directory)) == nil
    }

    /// Ends the process, and now and then the power with it.
    ///
    /// - Returns: Whether the power went.
    func endProcess(orPower chance: inout Chance) -> Bool {
        guard Bool.random(using: &chance) || isPowerless else {
            endProcess()
            return false
        }
        crash(seed: chance.next())
        return true
    }
}

extension LogOptions {
    /// Segments of two pages: a few records fill one.
    static let small = LogOptions(
        segmentBytes: 8192,
        recordBytesMax: 3000,
        zeroFillAheadBytes: 4096,
        zeroFillChunkBytes: 1024
    )

    /// One segment, no preparation.
    static let plain = LogOptions(
        segmentBytes: 1 << 20,
        recordBytesMax: 1 << 16,
        zeroFillAheadBytes: 0
    )
}

/// The path of a segment on the simulated disk.
func segmentPath(_ index: UInt32) -> String {
    "\(Opened.directory)/\(LogFormat.segmentName(index))"
}

let metaPath = "\(Opened.directory)/meta"

/// A payload that tells its number.
func payload(_ number: Int, bytes: Int = 20) -> [UInt8] {
    (0..<bytes).map { UInt8(truncatingIfNeeded: number &* 31 &+ $0) }
}

/// What one thread tells another, once.
final class Flag: Sendable {
    private let value = Atomic<Bool>(false)

    var isRaised: Bool {
        value.load(ordering: .acquiring)
    }

    func raise() {
        value.store(true, ordering: .releasing)
    }
}
