// Part of QTasks. License: see LICENSE.
//
// `qtasks`: the command line without tasks compiled in, for producers and workers in other languages,
// and `bench`.

import Glibc
import QTasks

if CommandLine.arguments.dropFirst().first == "bench" {
    do {
        try BenchFolder.set()
    } catch {
        let line = "qtasks bench: no folder can be made for it: \(error)\n"
        write(STDERR_FILENO, line, line.utf8.count)
        exit(73)
    }
}

let app = QueueTasks("qtasks")
BenchTask.register(with: app)
await app.main(adding: [BenchCommand.self])
