// Part of QTasks. License: see LICENSE.

import QTasksGlobalConfig
import QTasksWire
import Testing

@Suite struct `A subscriber's picture of the settings` {
    @Test func `a late joiner gets the snapshot, then what follows`() {
        var link = Link()
        link.change("a", "1")
        link.change("b", "2")
        link.lose()
        link.join()
        link.deliver()
        #expect(link.picture == ["a": "1", "b": "2"])
        link.change("a", "3")
        link.deliver()
        #expect(link.picture == ["a": "3", "b": "2"])
        #expect(link.heard == ["a=1", "b=2", "a=3"])
        #expect(link.watch.nextDeadline == nil)
    }

    @Test func `changes are applied in their order, and a key taken away is gone`() {
        var link = Link.joined()
        link.change("a", "1")
        link.change("a", "2")
        link.change("a", nil)
        link.deliver()
        #expect(link.heard == ["a=1", "a=2", "a-"])
        #expect(link.picture.isEmpty)
        #expect(link.questionsSent == 0)
    }

    @Test func `a gap is found by the next change and filled from the snapshot`() {
        var link = Link.joined()
        link.change("a", "1")
        link.lose()
        link.change("b", "2")
        link.deliver()
        #expect(link.questionsSent == 1)
        #expect(link.picture == ["a": "1", "b": "2"])
        #expect(link.heard == ["a=1", "b=2"])
    }

    @Test func `a lost last change is found by the HEAD a second later`() {
        var link = Link.joined()
        link.change("a", "1")
        link.lose()
        link.deliver()
        #expect(link.picture.isEmpty)
        link.pass(seconds: 1)
        link.deliver()
        #expect(link.picture == ["a": "1"])
    }

    @Test func `what is repeated or late changes nothing`() {
        var link = Link.joined()
        link.change("a", "1")
        link.change("a", "2")
        link.publications += link.publications.reversed()
        link.deliver()
        #expect(link.heard == ["a=1", "a=2"])
        #expect(link.picture == ["a": "2"])
    }

    @Test func `what changes while the snapshot is on its way is applied after it`() {
        var link = Link()
        link.change("a", "1")
        link.lose()
        link.join()
        link.answerQuestions()
        // Published after the snapshot was taken, and received before it.
        link.change("a", "2")
        link.deliverPublications()
        #expect(link.picture.isEmpty)
        link.deliverReplies()
        #expect(link.picture == ["a": "2"])
        #expect(link.heard == ["a=1", "a=2"])
    }

    @Test func `what is lost while the snapshot is on its way is asked for again`() {
        var link = Link()
        link.join()
        link.answerQuestions()
        link.change("a", "1")
        link.lose()
        link.change("b", "2")
        link.deliverPublications()
        link.deliverReplies()
        #expect(link.picture.isEmpty)
        link.deliver()
        #expect(link.picture == ["a": "1", "b": "2"])
    }

    @Test func `an unanswered question is asked again, less and less often`() {
        var link = Link()
        link.join()
        var due: [UInt64] = []
        for _ in 0..<6 {
            link.loseQuestions()
            guard let deadline = link.watch.nextDeadline else { break }
            due.append((deadline - link.now) / second)
            link.now = deadline
            link.watch.timer(now: deadline)
        }
        #expect(due == [1, 2, 4, 8, 16, 16])
        link.deliver()
        #expect(link.watch.sequence == 0)
        #expect(link.watch.nextDeadline == nil)
    }

    @Test func `a new connection brings the question again`() {
        var link = Link()
        link.join()
        link.loseQuestions()
        link.connect()
        link.deliver()
        #expect(link.watch.sequence == 0)
    }

    @Test func `a store that began anew is believed`() {
        var link = Link.joined()
        link.change("a", "1")
        link.change("b", "2")
        link.deliver()
        link.heard = []
        link.core = CoreHarness()
        link.change("c", "3")
        link.lose()
        link.core.subscribe()
        link.deliver()
        #expect(link.picture == ["c": "3"])
        #expect(link.heard == ["a-", "b-", "c=3"])
    }

    @Test(arguments: [UInt64(11), 12, 13, 14])
    func `however messages are lost, once it is quiet the picture is right`(seed: UInt64) {
        var numbers = SeededNumbers(seed: seed)
        var link = Link.joined()
        for _ in 0..<300 {
            switch Int.random(in: 0..<8, using: &numbers) {
            case 0...2: link.change("k\(numbers.next() % 5)", "\(numbers.next() % 9)")
            case 3: link.change("k\(numbers.next() % 5)", nil)
            case 4: link.lose()
            case 5: link.loseQuestions()
            case 6: link.deliverPublications()
            default: link.deliver()
            }
        }
        // The end of the quiet second, and a question that was lost before it.
        link.pass(seconds: 40)
        link.deliver()
        #expect(
            link.picture
                == link.core.state.values.mapValues { String(decoding: $0, as: UTF8.self) },
            "seed \(seed)"
        )
    }
}

/// GlobalConfig's core and a subscriber's, and what is under way between them.
private struct Link {
    var core = CoreHarness()
    var watch = ConfigWatchState()
    var now: UInt64 = 0
    var publications: [[UInt8]] = []
    var questions: [[UInt8]] = []
    var replies: [[UInt8]] = []
    var questionsSent = 0
    var heard: [String] = []

    /// One that has the empty snapshot.
    static func joined() -> Link {
        var link = Link()
        link.join()
        link.deliver()
        link.questionsSent = 0
        return link
    }

    var picture: [String: String] {
        watch.values.mapValues { String(decoding: $0, as: UTF8.self) }
    }

    mutating func join() {
        watch.start(now: now)
        takeQuestions()
    }

    mutating func change(_ key: String, _ value: String?) {
        core.set(key, value)
        core.sync(now: now)
        take()
    }

    mutating func lose() {
        take()
        publications = []
    }

    mutating func loseQuestions() {
        takeQuestions()
        questions = []
        replies = []
    }

    mutating func connect() {
        core.send([])
        take()
    }

    mutating func pass(seconds: UInt64) {
        let end = now + seconds * second
        while let due = [core.state.nextDeadline, watch.nextDeadline].compactMap(\.self).min(),
            due <= end
        {
            now = due
            core.timer(now: now)
            watch.timer(now: now)
            deliver()
        }
        now = end
    }

    mutating func deliver() {
        repeat {
            take()
            deliverPublications()
            answerQuestions()
            deliverReplies()
        } while !publications.isEmpty || !questions.isEmpty || !replies.isEmpty
    }

    mutating func deliverPublications() {
        take()
        for message in publications {
            message.withUnsafeBytes { watch.published($0, now: now) }
        }
        publications = []
        takeQuestions()
    }

    mutating func answerQuestions() {
        for question in questions { core.send(question) }
        questions = []
        take()
    }

    mutating func deliverReplies() {
        for message in replies {
            message.withUnsafeBytes { watch.replied($0, now: now) }
        }
        replies = []
        takeQuestions()
    }

    private mutating func take() {
        publications += core.publications
        replies += core.replies.map(\.message).filter { message in
            let command = Message(message)?.command
            return command == .configValues || command == .configHead
        }
        core.publications = []
        core.replies = []
    }

    private mutating func takeQuestions() {
        let asked = watch.takeQuestions()
        questionsSent += asked.count
        questions += asked
        heard += watch.takeChanges().map { change in
            change.text.map { "\(change.key)=\($0)" } ?? "\(change.key)-"
        }
    }
}
