// Part of QTasks. License: see LICENSE.
//
// `import QTasks` is all that an application needs.

@_exported public import QTasksModel
@_exported public import QTasksWorker
