// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import AppendLog

/// Each single call of a story with checkpoint, compaction, and new segments fails once.
@Suite(.timeLimit(.minutes(10)))
struct `A call that fails` {
    struct Fault: CustomTestStringConvertible, Sendable {
        var call: SimulatedDisk.Call
        var errno: Int32

        var testDescription: String {
            "\(call) with \(String(cString: strerror(errno)))"
        }
    }

    private static let faults = SimulatedDisk.Call.allCases.flatMap { call in
        [EIO, ENOSPC].map { Fault(call: call, errno: $0) }
    }

    @Test(arguments: faults)
    func `acknowledges nothing that isn't there`(fault: Fault) throws {
        var count = 0
        while try tell(fault, after: count) { count += 1 }
        #expect(count > 1)
    }

    /// Gives `false` once the story has ended before that many calls.
    private func tell(_ fault: Fault, after count: Int) throws -> Bool {
        var story = StoreStory(SimulatedDisk(seed: UInt64(count)))
        let end = StoreStory.End.allCases[count % 3]
        story.disk.fail(fault.call, after: count, errno: fault.errno)
        do {
            try story.tell(end)
        } catch is AppendLogError {
            // typed, as promised
        } catch is StoreStory.Damaged {
            #expect(fault.call == .read || fault.call == .open)
        }
        guard !story.disk.hasFaults else { return false }
        for hasLostPower in [false, true] {
            if hasLostPower {
                story.disk.crash(seed: UInt64(count))
            } else {
                story.disk.endProcess()
            }
            for found in [
                try? StoreStory.read(story.disk, usesCheckpoints: true),
                try StoreStory.open(story.disk),
            ] {
                // a reader needs a store, which may never have come to be
                guard let found else { continue }
                if let complaint = story.complaint(found, mayLose: false) {
                    Issue.record("\(fault.testDescription) at call \(count): \(complaint)")
                }
            }
            story.disk.endProcess()
        }
        return true
    }

    @Test(arguments: faults)
    func `at an opening leaves the store as good as it was`(fault: Fault) throws {
        for end in StoreStory.End.allCases {
            var story = StoreStory()
            try story.tell(end)
            var count = 0
            while true {
                let disk = story.disk.copy()
                disk.fail(fault.call, after: count, errno: fault.errno)
                let outcome = try? StoreStory.open(disk)
                guard !disk.hasFaults else { break }
                disk.endProcess()
                // the values may have met it as well
                if let outcome, let complaint = story.complaint(outcome, mayLose: true) {
                    Issue.record("\(fault.testDescription) at call \(count): \(complaint)")
                }
                let complaint = story.complaint(try StoreStory.open(disk), mayLose: false)
                if let complaint {
                    Issue.record("\(fault.testDescription) at call \(count), then: \(complaint)")
                }
                count += 1
            }
        }
    }
}
