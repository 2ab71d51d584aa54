// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksModel

/// Where commands write: results to standard output, everything else to standard error.
enum CommandOutput {
    /// One line of result.
    static func print(_ line: String) {
        write(Array(line.utf8) + [UInt8(ascii: "\n")], to: STDOUT_FILENO)
    }

    /// One line of result that may be no UTF-8.
    static func print(_ line: [UInt8]) {
        write(line + [UInt8(ascii: "\n")], to: STDOUT_FILENO)
    }

    /// One line about what went wrong.
    static func complain(_ line: String) {
        write(Array("Error: \(line)\n".utf8), to: STDERR_FILENO)
    }

    /// One line beside the results, such as what was left out.
    static func note(_ line: String) {
        write(Array("\(line)\n".utf8), to: STDERR_FILENO)
    }

    private static func write(_ bytes: [UInt8], to descriptor: Int32) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return }  // nobody reads any more
            rest = rest.dropFirst(count)
        }
    }

    /// A record as lines for a person.
    static func print(_ record: TaskRecord) {
        print("id        \(record.id)")
        print("name      \(record.name)")
        print("queue     \(record.submission.queue)")
        print(
            "status    \(record.status.rawValue)\(record.isUnroutable ? " (no worker can run it)" : "")"
        )
        print("attempt   \(record.attempt), \(record.failures) failed, \(record.deaths) deaths")
        print("added     \(record.addedAt)")
        if let notBefore = record.notBefore { print("notBefore \(notBefore)") }
        if let startedAt = record.startedAt { print("started   \(startedAt)") }
        if let finishedAt = record.finishedAt { print("finished  \(finishedAt)") }
        print(Array("arguments ".utf8) + record.submission.arguments)
        switch record.outcome {
        case .success(let result, _): print(Array("result    ".utf8) + result)
        case .error(let failure), .retry(let failure, _, _):
            print("error     \(failure.type): \(failure.message)")
        case .cancel(let reason): print("reason    \(reason)")
        case nil: break
        }
    }
}
