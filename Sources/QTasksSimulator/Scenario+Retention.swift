// Part of QTasks. License: see LICENSE.
//
// Seeds in which finished tasks are forgotten while the run goes on, and their places in the log are
// compacted.

import QTasksModel

extension Scenario {
    /// Whether finished tasks go during the run: about one seed in four, in each chunk of the tests.
    var keepsShortly: Bool { (seed >> 3) % 4 == 1 }

    /// The longest that a finished task is kept here, in seconds, but for those that outlive the run.
    static let shortSecondsMax = 1200

    /// For tasks that outlive the run.
    static let longSeconds: UInt64 = 86_400

    /// How long after the last fault everything must be done, in nanoseconds of virtual time.
    ///
    /// The longest that anything waits by design: a result that is sent again after 10 s; a worker that is
    /// started again after 5 s, for each task that kills it; a delay that a restart of the host reckons by a
    /// wall clock that was set back; and where tasks are to be forgotten the time that they are kept.
    var patience: UInt64 {
        let steps = faults.reduce(UInt64(0)) { sum, fault in
            guard case .stepClock(let step) = fault.kind else { return sum }
            return sum + step.magnitude
        }
        return 600 * .second + steps
            + (keepsShortly ? (UInt64(Self.shortSecondsMax) + 60) * .second : 0)
    }

    /// Short times for finished tasks, and hours in which nothing happens, so that those times pass while
    /// there is still something to come.
    ///
    /// No retention is shorter than ten minutes (P3), and the rest of a plan takes seconds.
    mutating func planRetention() {
        var random = SeededRandom(seed: seed &* 0x9E37_79B9_7F4A_7C15 ^ 0x5244)
        let counts: [Int?] = [nil, nil, 0, 3]
        config.retention.standard =
            Retention(
                seconds: seconds(&random),
                failureSeconds: seconds(&random),
                count: random.pick(counts)
            ) ?? .standard
        for number in tasks.indices {
            switch random.below(10) {
            case ..<3: tasks[number].submission.retentionSeconds = seconds(&random)
            case 3: tasks[number].submission.retentionSeconds = Self.longSeconds
            default: break
            }
        }
        for _ in 0..<random.between(1...3) { planGap(&random) }
        steps.sort { $0.at < $1.at }
        faults.sort { $0.at < $1.at }
    }

    private func seconds(_ random: inout SeededRandom) -> UInt64 {
        UInt64(random.between(Int(Retention.secondsMin)...Self.shortSecondsMax))
    }

    /// Everything from some moment on comes later, most of all by more than tasks are kept.
    private mutating func planGap(_ random: inout SeededRandom) {
        let start = random.nanoseconds(calmAt / 8...calmAt)
        let gap = random.nanoseconds(300 * .second...1500 * .second)
        for index in steps.indices where steps[index].at > start { steps[index].at += gap }
        for index in faults.indices where faults[index].at > start { faults[index].at += gap }
        calmAt += gap
        let end = start + gap
        // the same IDs again, whose first tasks may be forgotten by now, and questions about them
        for _ in 0..<random.between(1...4) {
            let first = random.below(tasks.count)
            let batch = Array(first..<min(tasks.count, first + random.between(1...6)))
            let isKnown = steps.contains { step in
                guard case .add(let added, _) = step.deed, step.at < start else { return false }
                return !Set(added).isDisjoint(with: batch)
            }
            guard isKnown else { continue }
            let deed: ClientStep.Deed =
                switch random.below(10) {
                case ..<5: .add(tasks: batch, waits: random.chance(50))
                case ..<8: .get(tasks: batch)
                default: .wait(tasks: batch)
                }
            planAround(end, deed, &random)
        }
        for _ in 0..<random.between(0...3) { planAround(end, .compact, &random) }
        // a run without faults stays one; elsewhere somebody has to read what is left
        let kinds: [Fault.Kind] = [.killStorage, .killStorage, .killBroker, .killAll, .losePower]
        for _ in 0..<(faults.isEmpty ? 0 : random.between(1...3)) {
            let at = end + random.nanoseconds(0...UInt64.second)
            faults.append(Fault(at: at, kind: random.pick(kinds)))
        }
        calmAt = max(calmAt, end + .second)
    }

    /// At times before what is due then is forgotten.
    private mutating func planAround(
        _ time: UInt64,
        _ deed: ClientStep.Deed,
        _ random: inout SeededRandom
    ) {
        plan(deed, at: time + random.nanoseconds(0...500 * .millisecond), &random)
    }
}
