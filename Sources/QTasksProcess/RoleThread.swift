// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc

/// Threads that belong to QTasks, for what must not run on Swift's pool: a role's loop, which
/// blocks in `poll(2)`, spawns children, and lives as long as the process.
package enum RoleThread {
    /// The main thread's usual size; glibc would give what `ulimit -s` says, which may be anything.
    private static let stackBytes = 8 << 20

    /// Runs `body` on a new thread, which ends with it.
    ///
    /// - Parameters:
    ///   - name: What `ps -L` and debuggers show; cut to 15 bytes.
    ///   - body: Runs with the signal mask of the caller.
    /// - Throws: `EAGAIN` at the limit of threads; `body` doesn't run then. See
    ///   `pthread_create(3)`.
    package static func run(
        _ name: String,
        _ body: @escaping @Sendable () -> Void
    ) throws(ProcessError) {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setstacksize(&attributes, stackBytes)
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        let start = Unmanaged.passRetained(Start(name: name, body: body))
        var thread = pthread_t()
        let code = pthread_create(&thread, &attributes, { runStart($0) }, start.toOpaque())
        guard code == 0 else {
            start.release()
            throw .system(call: "pthread_create", subject: name, code: code)
        }
    }

    /// Runs `body` on a new thread and serves the main actor meanwhile.
    ///
    /// Main thread only.
    ///
    /// Unlike an `await`, it leaves Swift's pool asleep, which would wake up once a second from then on.
    ///
    /// - Returns: What `body` returned; `nil` where the main actor can't be served this way: nothing has
    ///   run then, and ``runToEnd(name:_:)`` does it at the price of those wake-ups.
    /// - Throws: As ``run(_:_:)``.
    @MainActor
    package static func runServingMain(
        name: String,
        _ body: @escaping @Sendable () -> Int32
    ) throws(ProcessError) -> Int32? {
        let main = clinux_main_queue_descriptor()
        guard main >= 0 else { return nil }
        var ends: [Int32] = [-1, -1]
        guard clinux_pipe(&ends) == 0 else { throw .last("pipe2", name) }
        let (readEnd, writeEnd) = (ends[0], ends[1])
        defer {
            close(readEnd)
            close(writeEnd)
        }
        try run(name) {
            var code = body()
            write(writeEnd, &code, MemoryLayout<Int32>.size)
        }
        while true {
            var items = [
                pollfd(fd: readEnd, events: Int16(POLLIN), revents: 0),
                pollfd(fd: main, events: Int16(POLLIN), revents: 0),
            ]
            poll(&items, 2, -1)
            if items[1].revents != 0 { clinux_drain_main_queue() }
            var code: Int32 = 0
            let count = read(readEnd, &code, MemoryLayout<Int32>.size)
            if count == MemoryLayout<Int32>.size { return code }
            // a task has closed its process's descriptors: there is nothing left to wait for
            if count < 0, errno == EBADF { _exit(70) }
        }
    }

    /// Runs `body` on a new thread and suspends the caller, whose own thread stays free, to its
    /// end.
    ///
    /// - Returns: What `body` returned or threw. The caller's cancellation doesn't end it.
    /// - Throws: As ``run(_:_:)``.
    package static func runToEnd<Value: Sendable, Failure: Error>(
        name: String,
        _ body: @escaping @Sendable () throws(Failure) -> Value
    ) async throws(ProcessError) -> Result<Value, Failure> {
        let outcome: Result<Result<Value, Failure>, ProcessError>
        outcome = await withCheckedContinuation { continuation in
            do throws(ProcessError) {
                try run(name) {
                    let result: Result<Value, Failure>
                    do throws(Failure) {
                        result = .success(try body())
                    } catch {
                        result = .failure(error)
                    }
                    continuation.resume(returning: .success(result))
                }
            } catch {
                continuation.resume(returning: .failure(error))
            }
        }
        return try outcome.get()
    }
}

/// What a new thread finds at its start.
private final class Start: Sendable {
    let name: String
    let body: @Sendable () -> Void

    init(name: String, body: @escaping @Sendable () -> Void) {
        self.name = name
        self.body = body
    }
}

private func runStart(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { preconditionFailure("RoleThread passes what to start") }
    let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
    _ = clinux_set_name(start.name)
    start.body()
    return nil
}
