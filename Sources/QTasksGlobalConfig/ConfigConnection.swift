// Part of QTasks. License: see LICENSE.

package import QTasksModel
import QTasksProcess
import ZeroMQ

/// The settings as programs and the command line use them: read, change, watch.
///
/// Has a thread of its own, which sleeps while nothing is asked and ends with the last reference or
/// ``close()``. Any task may call anything. GlobalConfig may be away or restarted meanwhile: what
/// is unanswered goes out again on the next connection, and fails only at its time limit.
/// Cancelling the caller doesn't cut that short.
package final class ConfigConnection: Sendable {
    /// Changes that one watcher may lie behind; past that it misses the oldest.
    package static let watcherBacklogMax = 4096

    private let mailbox: ConfigMailbox
    private let timeLimit: UInt64

    /// Connects in the background.
    ///
    /// One request may take as long as `timeLimit`.
    ///
    /// - Throws: ``QTasksError/Code/internalError`` where there is no descriptor or thread left.
    package init(
        endpoints: ConfigEndpoints,
        timeLimit: Duration = .seconds(5)
    ) throws(QTasksError) {
        let parts = timeLimit.components
        self.timeLimit =
            min(UInt64(clamping: parts.seconds), 1_000_000_000) * 1_000_000_000
            + UInt64(clamping: parts.attoseconds / 1_000_000_000)
        do {
            let mailbox = ConfigMailbox(doorbell: try Doorbell())
            self.mailbox = mailbox
            try RoleThread.run("qtasks-settings") {
                ConfigClientLoop.run(mailbox, endpoints: endpoints)
            }
        } catch {
            throw QTasksError(.internalError, "the settings can't be reached", cause: error)
        }
    }

    deinit {
        close()
    }

    /// The values of one key, or of all keys that a pattern with `*` means; keys that aren't set
    /// are left out.
    ///
    /// - Throws: ``QTasksError/Code/noSystem`` or ``QTasksError/Code/timeout`` at the time limit,
    ///   ``QTasksError/Code/badOption`` for a pattern that can't be a key's.
    package func get(_ pattern: String) async throws(QTasksError) -> [String: [UInt8]] {
        let answer = try await ask { .get(pattern, deadline: $0, then: $1) }
        guard case .values(let values) = answer else { throw Self.unexpected(answer) }
        return values
    }

    /// Changes one key: returns once the change is on disk, and about to be told to all.
    ///
    /// - Returns: The change's sequence, or that of an older one with the same effect.
    /// - Throws: ``QTasksError/Code/badOption``, naming the key and what it takes, and then nothing
    ///   is changed; ``QTasksError/Code/noSystem`` or ``QTasksError/Code/timeout`` at the time
    ///   limit, and the change may still come to pass; ``QTasksError/Code/storageUnavailable``,
    ///   ``QTasksError/Code/stopping``, ``QTasksError/Code/overloaded`` and
    ///   ``QTasksError/Code/payloadTooLarge``, and then nothing is changed.
    @discardableResult
    package func set(_ key: String, to value: [UInt8]) async throws(QTasksError) -> UInt64 {
        try await change(ConfigEntry(key: key, value: value))
    }

    /// Takes one key away; that there is none is no error.
    ///
    /// Returns and throws as ``set(_:to:)``.
    @discardableResult
    package func delete(_ key: String) async throws(QTasksError) -> UInt64 {
        try await change(ConfigEntry(key: key, value: nil))
    }

    /// First the values of all keys that the pattern means, then each change of one of them.
    ///
    /// Ends with ``close()``. A reader that falls ``watcherBacklogMax`` changes behind misses the
    /// oldest of them.
    package func watch(_ pattern: String) -> AsyncStream<ConfigEntry> {
        let policy = AsyncStream<ConfigEntry>.Continuation.BufferingPolicy
            .bufferingNewest(Self.watcherBacklogMax)
        return AsyncStream(bufferingPolicy: policy) { continuation in
            let id = mailbox.nextWatcher()
            continuation.onTermination = { [mailbox] _ in mailbox.post(.unwatch(id)) }
            mailbox.post(.watch(id, pattern, continuation))
        }
    }

    /// Ends the thread: open requests fail with ``QTasksError/Code/connectionLost``, streams end.
    package func close() {
        mailbox.close(QTasksError(.connectionLost, "the connection to the settings was closed"))
    }

    private func change(_ entry: ConfigEntry) async throws(QTasksError) -> UInt64 {
        let answer = try await ask { .set(entry, deadline: $0, then: $1) }
        guard case .done(let sequence) = answer else { throw Self.unexpected(answer) }
        return sequence
    }

    private func ask(
        _ order: (UInt64, @escaping ConfigMailbox.Completion) -> ConfigMailbox.Order
    ) async throws(QTasksError) -> ConfigRequests.Answer {
        let deadline = MonotonicClock.nowNanoseconds() + timeLimit
        let result = await withCheckedContinuation { continuation in
            mailbox.post(order(deadline) { continuation.resume(returning: $0) })
        }
        return try result.get()
    }

    private static func unexpected(_ answer: ConfigRequests.Answer) -> QTasksError {
        QTasksError(.malformed, "GlobalConfig answered another question: \(answer)")
    }
}
