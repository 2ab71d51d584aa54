// Part of QTasks. License: see LICENSE.
//
// What goes wrong with the host, its disk and its clock, and when the system is stopped.

import AppendLog

extension Scenario {
    /// Drawn by itself, so that everything else of a seed stays as it was.
    mutating func planHost() {
        var random = SeededRandom(seed: seed &* 0x9E37_79B9_7F4A_7C15 ^ 0x484F)
        graceMilliseconds = UInt64(random.below(2_000))
        planSettings(&random)
        // a run without faults stays one
        guard !faults.isEmpty else { return }
        func plan(_ kind: Fault.Kind, _ random: inout SeededRandom) {
            faults.append(Fault(at: random.nanoseconds(0...calmAt), kind: kind))
        }
        if random.chance(30) {
            for _ in 0..<random.between(1...3) { plan(.stepClock(clockStep(&random)), &random) }
        }
        if random.chance(30) {
            for _ in 0..<random.between(1...2) { plan(.stop, &random) }
        }
        if random.chance(15) { plan(.killStarter, &random) }
        for _ in 0..<random.below(3) { plan(.killGlobalConfig, &random) }
        if random.chance(25) {
            for _ in 0..<random.between(1...3) {
                let call: SimulatedDisk.Call = random.chance(60) ? .sync : .write
                plan(.failDisk(call, after: random.between(0...3)), &random)
                // a failed sync shows when the power goes
                if random.chance(30) { plan(.losePower, &random) }
            }
        }
        if random.chance(12) {
            let time = random.nanoseconds(100 * .millisecond...2 * .second)
            plan(.fillDisk(room: random.below(24 << 10), for: time), &random)
        }
        if random.chance(15) { plan(.rotMeta, &random) }
        rotsAtRelease = random.chance(5)
        if random.chance(25) {
            // late, so that there are old segments, and somebody reads them
            let at = random.nanoseconds(calmAt / 2...calmAt)
            faults.append(Fault(at: at, kind: .rotSegment))
            faults.append(Fault(at: random.nanoseconds(at...calmAt), kind: .killStorage))
        }
        faults.sort { $0.at < $1.at }
    }

    private mutating func planSettings(_ random: inout SeededRandom) {
        watchers = random.between(1...2)
        for number in 0..<random.below(9) {
            let key = ["app.colour", "app.size", "app.mood"][random.below(3)]
            settings.append(
                Setting(
                    at: random.nanoseconds(0...calmAt),
                    watcher: random.below(watchers),
                    key: key,
                    value: random.chance(15) ? nil : Array("\(number)".utf8)
                )
            )
        }
    }

    /// From a blink to hours, either way.
    ///
    /// Where tasks are forgotten during the run by a minute at most: what the checker knows of those
    /// times gets as loose as the clock is.
    func clockStep(_ random: inout SeededRandom) -> Int64 {
        let most = keepsShortly ? 60 * UInt64.second : 7200 * UInt64.second
        let least = UInt64.millisecond
        let step = random.nanoseconds(least...(random.chance(50) ? most : 5 * .second))
        return random.chance(50) ? Int64(step) : -Int64(step)
    }
}
