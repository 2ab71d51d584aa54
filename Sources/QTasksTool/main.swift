// Part of QTasks. License: see LICENSE.
//
// `qtasks`: the command line without tasks compiled in, for producers and workers in other languages,
// and `bench`.

import QTasks

let app = QueueTasks("qtasks")
BenchTask.register(with: app)
await app.main(adding: [BenchCommand.self])
