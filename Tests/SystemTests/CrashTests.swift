// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import Testing

extension `A running system` {
    /// Promises P1, P2 and P5.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `kill -9` {
        @Test(arguments: ["broker", "storage", "globalconfig"])
        func `of a part loses no task, repeats none, and who waits is answered (behaviour 12)`(
            role: String
        ) async throws {
            try await Bed.use { bed in
                let system = try bed.system()
                let app = bed.client()
                let holding = try await app.addTasks(
                    (0..<4).map { TaskSubmission(name: "hold", arguments: Array("\"\($0)\"".utf8)) }
                )
                try bed.waitForEvents("hold", count: 4)
                let waiter = Task.detached {
                    try await app.end(of: holding[0], timeout: .seconds(20))
                }
                let load = (0..<400).map {
                    TaskSubmission(name: "echo", arguments: Array("\"\($0)\"".utf8))
                }
                let adding = Task.detached {
                    for start in stride(from: 0, to: load.count, by: 20) {
                        try await app.addTasks(Array(load[start..<start + 20]))
                    }
                }
                try bed.waitForEvents("echo", count: 20)
                try system.killAndAwaitReplacement(of: role)
                try await adding.value

                let ends = try await app.ends(of: load.map(\.id))
                #expect(ends == (0..<400).map { "\"\($0)\"" })
                #expect(bed.executions("hold").count == 4, "they run on")
                bed.openGate(for: 4)
                #expect(try await waiter.value.outcome == success("\"0\""))
                _ = try await app.ends(of: holding)
                let executions = bed.executions()
                #expect(executions.count == 404)
                #expect(Set(executions.map(\.task)).count == 404)
            }
        }

        @Test
        func `of everything at once loses none of 1,000 adds made by the Python module`()
            async throws
        {
            try await Bed.use { bed in
                for words in 0..<50 {
                    let text = String(repeating: "word ", count: words)
                    try ProcFile.write(text, to: bed.folder + "/text-\(words)")
                }
                let system = try bed.system(.qtasks, workers: 0)
                let added = try bed.python(
                    """
                    for i in range(100):
                        print(client.add_task("wordcount", {"path": f"{folder}/text-{i % 50}"}).id)
                    tasks = [("wordcount", {"path": f"{folder}/text-{i % 50}"}) for i in range(900)]
                    for task in client.add_tasks(tasks):
                        print(task.id)
                    """
                )
                let ids = added.output.split(separator: "\n").map(String.init)
                #expect(ids.count == 1000)
                let members = try system.members()
                for member in members { kill(member.pid, SIGKILL) }
                #expect(try system.end().code == -SIGKILL)

                _ = try bed.system(.wordcount)
                let app = bed.client()
                let ends = try await app.ends(of: ids.compactMap { TaskID($0) })
                let words = try ends.map { try JSON($0)["words"].integer }
                #expect(words == (0..<1000).map { $0 % 50 })
            }
        }
    }
}

private func success(_ json: String) -> TaskOutcome {
    .success(result: Array(json.utf8), contentType: nil)
}

extension QueueTasks {
    /// The results of tasks as text, once all have ended; what ended otherwise is its description.
    func ends(of ids: [TaskID]) async throws -> [String] {
        try await withThrowingTaskGroup(of: (Int, String).self) { group in
            for (index, id) in ids.enumerated() {
                group.addTask {
                    let end = try await self.end(of: id, timeout: .seconds(20))
                    guard case .success(let result, _) = end.outcome else {
                        return (index, "\(end)")
                    }
                    return (index, String(decoding: result, as: UTF8.self))
                }
            }
            var results = [String](repeating: "", count: ids.count)
            for try await (index, text) in group { results[index] = text }
            return results
        }
    }
}
