// Part of QTasks. License: see LICENSE.

/// How the top words of very many files are merged: a task has a largest size, so several tasks
/// each merge a group of lists, and others merge what comes out, until one list is left.
enum MergePlan {
    /// How many words one task gets: about a megabyte of arguments.
    static let wordsMax = 20_000
    /// How many words stay in a list that is merged again: a tenth, so that few rounds do.
    static let wordsKept = wordsMax / 10

    /// The lists in groups of up to `wordsMax` words, in their order; one list alone may be larger.
    static func groups(of lists: [[WordTally]], wordsMax: Int = wordsMax) -> [[[WordTally]]] {
        var groups: [[[WordTally]]] = []
        var room = 0
        for list in lists {
            if groups.isEmpty || room < list.count {
                groups.append([])
                room = wordsMax
            }
            groups[groups.count - 1].append(list)
            room -= list.count
        }
        return groups
    }
}
