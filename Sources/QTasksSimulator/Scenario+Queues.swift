// Part of QTasks. License: see LICENSE.
//
// Seeds in which operators pause and limit queues, and seeds in which they purge dead tasks.

import QTasksModel
import QTasksWire

extension Scenario {
    /// Drawn by itself, so that everything else of a seed stays as it was.
    ///
    /// All rules are lifted in the end, see ``World/liftRules()``.
    mutating func planQueues() {
        var random = SeededRandom(seed: seed &* 0x9E37_79B9_7F4A_7C15 ^ 0x5155)
        guard random.chance(35) else { return }
        setsRules = true
        let keys = random.between(1...4)
        for number in tasks.indices where random.chance(60) {
            tasks[number].submission.key = Array("k\(random.below(keys))".utf8)
        }
        // early, so that they hold for most of the tasks
        for _ in 0..<random.between(2...8) {
            planRule(at: random.nanoseconds(0...calmAt * 3 / 4), &random)
        }
        steps.sort { $0.at < $1.at }
    }

    private mutating func planRule(at time: UInt64, _ random: inout SeededRandom) {
        let queue = random.chance(75) ? TaskName.defaultQueue : "other"
        var change = QueueChange()
        switch random.below(100) {
        case ..<20: change.setPaused(true)
        case ..<35: change.setConcurrency(UInt32(random.between(1...3)))
        case ..<60: change.setKeyConcurrency(UInt32(random.between(1...2)))
        case ..<70: change.setRate(rate(&random))
        case ..<85: change.setKeyRate(rate(&random))
        case ..<90: change.setMaxQueued(UInt32(random.between(1...10)))
        case ..<95: change.setAgeing(UInt32(random.between(1...10)))
        default:
            change.setKeyConcurrency(UInt32(random.between(1...2)))
            change.setKeyRate(rate(&random))
            change.setConcurrency(UInt32(random.between(2...5)))
        }
        plan(.setRules(change, queue: queue), at: time, &random)
        // most last for a while, a pause in all cases
        guard change.rules.isPaused || random.chance(50) else { return }
        let end = time + random.nanoseconds(50 * .millisecond...1500 * .millisecond)
        let lifting = QueueChange(change.fields, QueueRules())
        plan(.setRules(lifting, queue: queue), at: end, &random)
    }

    private func rate(_ random: inout SeededRandom) -> StartRate {
        StartRate(
            UInt32(random.between(1...20)),
            perMilliseconds: UInt32(random.between(50...1000)),
            burst: UInt32(random.between(1...3))
        )
    }

    // MARK: Purges

    /// Drawn by itself as well: some tasks more that kill their workers, and somebody who has them forgotten.
    mutating func planPurges() {
        var random = SeededRandom(seed: seed &* 0x9E37_79B9_7F4A_7C15 ^ 0x5047)
        guard random.chance(40) else { return }
        for number in tasks.indices where random.chance(8) { tasks[number].kind = .poison(100) }
        let adds = steps.filter { step in
            if case .add = step.deed { true } else { false }
        }
        for add in adds {
            guard case .add(let added, _) = add.deed else { continue }
            let poison = added.filter { number in
                if case .poison(100) = tasks[number].kind { true } else { false }
            }
            // at times one that doesn't die
            guard !poison.isEmpty || random.chance(10) else { continue }
            let batch = poison.isEmpty || random.chance(30) ? added : poison
            for _ in 0..<random.between(1...3) {
                let at = add.at + random.nanoseconds(200 * .millisecond...8 * .second)
                plan(.change(.forget, tasks: batch), at: at, &random)
                guard random.chance(20) else { continue }
                let again = at + random.nanoseconds(0...UInt64.second)
                plan(.add(tasks: batch, waits: random.chance(50)), at: again, &random)
            }
        }
        steps.sort { $0.at < $1.at }
    }
}
