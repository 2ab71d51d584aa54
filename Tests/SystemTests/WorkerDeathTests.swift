// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

extension `A running system` {
    /// Promise P4.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `A worker's death` {
        @Test
        func `moves its task to another worker, and the worker is replaced (behaviour 1)`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system()
                let id = try bed.add("hold", "\"x\"")
                try bed.waitForEvents("hold")
                let first = try #require(bed.executions("hold").first)
                kill(first.worker, SIGKILL)
                try bed.waitForEvents("hold", count: 2)
                let second = try #require(bed.executions("hold").last)
                #expect(second.task == id)
                #expect(second.attempt == 2)
                #expect(second.worker != first.worker)
                bed.openGate()
                let record = try bed.finalRecord(id)
                #expect(record["status"].text == "success")
                #expect(record["deaths"].integer == 1, "it ran alone")

                try system.waitForLog(["broker[", "event=\"worker joined\""], count: 3)
                let workers = try system.members().filter { $0.role == "worker" }.map(\.pid)
                #expect(workers.count == 2)
                #expect(!workers.contains(first.worker))
            }
        }

        @Test
        func `counts against none of ten that shared it, who run alone next`() async throws {
            try await Bed.use { bed in
                let system = try bed.system(workers: 1)
                let ids = try (0..<10).map { try bed.add("hold", "\"\($0)\"") }
                try bed.waitForEvents("hold", count: 10)
                let worker = try #require(bed.executions("hold").first?.worker)
                kill(worker, SIGKILL)
                for turn in 1...10 {
                    try bed.waitForEvents("hold", count: 10 + turn)
                    #expect(bed.executions("hold").count == 10 + turn, "one at a time")
                    bed.openGate()
                }
                for id in ids {
                    let record = try bed.finalRecord(id)
                    #expect(record["status"].text == "success")
                    #expect(record["deaths"].integer == 0)
                    #expect(record["attempt"].integer == 2)
                }
                #expect(try system.members().count == 5)
            }
        }

        @Test
        func `makes a task that causes it dead after three, and harms no neighbour`() async throws {
            try await Bed.use { bed in
                _ = try bed.system(workers: 2)
                let neighbours = try (0..<4).map { try bed.add("hold", "\"\($0)\"") }
                try bed.waitForEvents("hold", count: 4)
                let deadly = try bed.add("deadly")
                // a wait that opens the gate as it goes: neighbours block suspects' runs alone
                bed.openGate(for: 40)
                let record = try bed.finalRecord(deadly, within: 30)
                #expect(record["status"].text == "dead")
                #expect(record["deaths"].integer == 3)
                #expect((3...4).contains(bed.executions("deadly").count))
                for id in neighbours {
                    let record = try bed.finalRecord(id)
                    #expect(record["status"].text == "success")
                    #expect(record["deaths"].integer == 0)
                }
                #expect(try bed.command("add", "deadly", "--wait").code == 1)
            }
        }
    }
}
