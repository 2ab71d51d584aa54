// Part of QTasks. License: see LICENSE.

import Dispatch
import Glibc
import Synchronization

/// Work that Ctrl-C (SIGINT) or SIGTERM cancels, so that it can tidy up.
enum Interruption {
    /// Where the signal handler writes its signal's number; -1 while nobody listens.
    ///
    /// A handler may do next to nothing (signal-safety(7)), but it may load an atomic and write(2).
    /// The signals are caught and not ignored: child processes would inherit that.
    private static let wakeUp = Atomic<Int32>(-1)

    /// - Returns: What the work returned, or the signal that came meanwhile. The work has ended in
    ///   either case, unless the signal came twice: then this process has.
    /// - Throws: What the work threw, if no signal came.
    static func guarding<Value: Sendable>(
        _ work: @escaping @Sendable () async throws -> Value
    ) async throws -> Outcome<Value> {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw FileError.latest }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let (readEnd, writeEnd) = (ends[0], ends[1])

        let task = Task { try await work() }
        let seen = Seen()
        let source = DispatchSource.makeReadSource(fileDescriptor: readEnd)
        source.setEventHandler {
            var number: UInt8 = 0
            guard read(readEnd, &number, 1) == 1 else { return }
            if seen.replace(with: Int32(number)) { _exit(128 + Int32(number)) }
            task.cancel()
        }
        source.setCancelHandler { close(readEnd) }
        source.activate()
        wakeUp.store(writeEnd, ordering: .releasing)
        for number in [SIGINT, SIGTERM] { signal(number, handler) }

        let result = await task.result
        for number in [SIGINT, SIGTERM] { signal(number, SIG_DFL) }
        wakeUp.store(-1, ordering: .releasing)
        close(writeEnd)
        source.cancel()
        if let number = seen.signal { return .interrupted(by: number) }
        return .done(try result.get())
    }

    enum Outcome<Value: Sendable>: Sendable {
        case done(Value)
        case interrupted(by: Int32)
    }

    private static let handler: @convention(c) (Int32) -> Void = { number in
        var byte = UInt8(truncatingIfNeeded: number)
        let code = errno
        _ = write(Interruption.wakeUp.load(ordering: .acquiring), &byte, 1)
        errno = code
    }

    /// The last signal that came.
    private final class Seen: Sendable {
        private let number = Atomic<Int32>(0)

        var signal: Int32? {
            let number = number.load(ordering: .acquiring)
            return number == 0 ? nil : number
        }

        /// Whether there was one before.
        func replace(with number: Int32) -> Bool {
            self.number.exchange(number, ordering: .acquiringAndReleasing) != 0
        }
    }
}
