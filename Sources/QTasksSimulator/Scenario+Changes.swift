// Part of QTasks. License: see LICENSE.
//
// Whoever changes his mind: tasks are cancelled in any state, and what has ended is queued again; and handlers
// that nobody can end but with their worker.

import QTasksModel
import QTasksWire

extension Scenario {
    /// Drawn by itself, so that everything else of a seed stays as it was.
    mutating func planChanges() {
        var random = SeededRandom(seed: seed &* 0x9E37_79B9_7F4A_7C15 ^ 0x4348)
        guard random.chance(50) else { return }
        for number in tasks.indices {
            guard case .hangs = tasks[number].kind, random.chance(50) else { continue }
            tasks[number].kind = .ignoresItsEnd
        }
        let adds = steps.filter { step in
            if case .add = step.deed { true } else { false }
        }
        for _ in 0..<random.between(1...8) {
            let add = random.pick(adds)
            guard case .add(let added, _) = add.deed else { continue }
            let batch = random.chance(50) ? added : [random.pick(added)]
            // some while they are on their way, some while they run, some long after
            let delays: [UInt64] = [20 * .millisecond, 300 * .millisecond, 3 * .second]
            let at = add.at + random.nanoseconds(0...random.pick(delays))
            let change: TaskChange = random.chance(65) ? .cancel : .requeue
            plan(.change(change, tasks: batch), at: at, &random)
            guard change == .cancel, random.chance(60) else { continue }
            // at times before their workers have heard that they don't have them any more
            plan(
                .change(.requeue, tasks: batch),
                at: at + random.nanoseconds(0...random.pick(delays)),
                &random
            )
        }
        steps.sort { $0.at < $1.at }
    }

    /// A client does this at that time.
    mutating func plan(
        _ deed: ClientStep.Deed,
        at time: UInt64,
        _ random: inout SeededRandom
    ) {
        steps.append(ClientStep(at: time, client: random.below(clients), deed: deed))
    }
}
