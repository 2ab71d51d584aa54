// Part of QTasks. License: see LICENSE.
//
// Seeds in which tasks have to start by a time, and seeds in which they share unique keys.

import QTasksModel

extension Scenario {
    /// Whether this seed has such tasks: about one in three.
    private var hasStanding: Bool { seed % 3 == 1 }

    /// Drawn by itself, so that everything else of a seed stays as it was.
    mutating func planStanding() {
        guard hasStanding else { return }
        var random = SeededRandom(seed: seed &* 0x9E37_79B9_7F4A_7C15 ^ 0x5551)
        let keys = random.between(1...6)
        for number in tasks.indices {
            if random.chance(60) {
                let scopes: [UniqueKey.Scope] = [
                    .whileQueued, .whileUnfinished, .whileUnfinished,
                    .window(seconds: UInt32(random.between(1...5))),
                ]
                tasks[number].submission.unique = UniqueKey(
                    Array("key \(random.below(keys))".utf8),
                    random.pick(scopes)
                )
            }
            if random.chance(30) {
                // also in the past
                let start = World.wallAtStart.nanoseconds - Int64(100 * UInt64.millisecond)
                let time = random.nanoseconds(0...calmAt + .second)
                let moment = (start + Int64(time)) / 1_000_000 * 1_000_000  // as the wire has it
                tasks[number].submission.expires = Timestamp(nanoseconds: moment)
            }
        }
    }
}
