// Part of QTasks. License: see LICENSE.
//
// Tasks that are due at a moment of the wall clock, and somebody who sets that meanwhile.

import QTasksModel

extension Scenario {
    /// Drawn by itself, so that everything else of a seed stays as it was.
    ///
    /// Most are due during the run, however the clock is set; others only because it is set forward: by the
    /// time since boot they would wait for hours.
    mutating func planMoments() {
        var random = SeededRandom(seed: seed &* 0x9E37_79B9_7F4A_7C15 ^ 0x4154)
        guard random.chance(25) else { return }
        // a run without faults stays one
        if !faults.isEmpty {
            for _ in 0..<random.between(1...3) {
                let step = Fault.Kind.stepClock(clockStep(&random))
                faults.append(Fault(at: random.nanoseconds(0...calmAt), kind: step))
            }
            faults.sort { $0.at < $1.at }
        }
        let forward = faults.reduce(Int64(0)) { sum, fault in
            guard case .stepClock(let step) = fault.kind else { return sum }
            return sum + step
        }
        for number in tasks.indices {
            guard tasks[number].submission.start == .now, random.chance(30) else { continue }
            var at = random.nanoseconds(0...calmAt + 2 * .second)
            if forward > 0, random.chance(50) { at += random.nanoseconds(0...UInt64(forward)) }
            tasks[number].submission.start = .at(World.moment(ofWorld: at))
        }
    }
}
