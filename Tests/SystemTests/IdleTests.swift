// Part of QTasks. License: see LICENSE.

import Testing

extension `A running system` {
    /// Promise P8.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `An idle system` {
        @Test
        func `does not wake up, and ends when it is told to (behaviour 24)`() async throws {
            try await Bed.use { bed in
                let system = try bed.system()
                #expect(try bed.command("add", "echo", "\"x\"", "--wait").code == 0)
                let pids = try system.members().map(\.pid)
                // what is written once after the last change comes within its first second
                bed.pass(.seconds(3))
                let before = pids.map(ProcFile.voluntarySwitches)
                bed.pass(.seconds(10))
                let switches = zip(pids.map(ProcFile.voluntarySwitches), before).map { $0 - $1 }
                #expect(switches.reduce(0, +) <= 3, "\(switches) of \(pids)")
                #expect(try system.stop(within: 2).code == 0)
            }
        }
    }
}
