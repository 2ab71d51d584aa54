// Part of QTasks. License: see LICENSE.
//
// What Tests/chaos runs: plain tasks, tasks that harm their worker in every way it thought of, and a
// client that loads the system with both.

import QTasks

let app = QueueTasks("ChaosTasks")
PlainTasks.register(with: app)
OddTasks.register(with: app)
await app.main(adding: [LoadCommand.self])
