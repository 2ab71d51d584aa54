// Part of QTasks. License: see LICENSE.
//
// The whole application is this file: two tasks, and a command line that has them. Everything else
// here is what the tasks do, and the command `count` that adds them.

import QTasks

@main
struct Wordcount {
    static let shared = Wordcount()

    let app = QueueTasks("wordcount")

    /// Counts one file, on a thread of its own: reading blocks.
    let count: SyncTask<CountInput, FileCount>

    /// Makes one list of several files' most frequent words.
    let merge: AsyncTask<MergeInput, MergedTop>

    private init() {
        count = app.syncTask("wordcount") {
            (input: CountInput, _: TaskContext) throws -> FileCount in
            try FileCount.reading(input.path)
        }
        merge = app.task("merge") { (input: MergeInput, _: TaskContext) async throws -> MergedTop in
            MergedTop(top: TopWords.merging(input.tops, limit: input.limit))
        }
    }

    @MainActor
    static func main() async {
        await shared.app.main(adding: [Count.self])
    }
}
