// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess

/// The executables that the build made next to this test.
enum Tool: String {
    case qtasks
    case wordcount
    case testTasks = "TestTasks"

    /// Where it lies.
    ///
    /// Tests are run from the folder of the products.
    var path: String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        let own = String(decoding: buffer[..<max(0, count)].map(UInt8.init), as: UTF8.self)
        return String(own[..<(own.lastIndex(of: "/") ?? own.endIndex)]) + "/" + rawValue
    }
}

/// One started program, with what it writes.
///
/// It ends with this process, however that ends.
@MainActor
final class Program {
    let child: ChildProcess
    let output: LineSource
    let log: LineSource

    /// How it ended, once it has; ``Bed`` fills it in.
    private(set) var report: ExitReport?

    var pid: Int32 { child.pid }

    /// - Parameters:
    ///   - path: The executable.
    ///   - arguments: What follows its name.
    ///   - environment: On top of this process's.
    /// - Throws: What `posix_spawn(3)` or `pipe(2)` say; nothing runs then.
    init(_ path: String, _ arguments: [String], environment: [String: String]) throws {
        let (output, outputEnd) = try Self.pipe()
        let (log, logEnd) = try Self.pipe()
        let nothing = open("/dev/null", O_RDONLY | O_CLOEXEC)
        defer { for end in [outputEnd, logEnd, nothing] { close(end) } }
        child = try ChildProcess.spawnTied(
            path,
            arguments,
            environment: environment,
            stdin: nothing,
            stdout: outputEnd,
            stderr: logEnd
        )
        self.output = LineSource(owning: output)
        self.log = LineSource(owning: log)
    }

    /// Takes what it wrote, and notes its end.
    func turn() {
        output.drain()
        log.drain()
        if report == nil { report = child.reap() }
    }

    nonisolated static func pipe() throws -> (read: Int32, write: Int32) {
        var ends: [Int32] = [-1, -1]
        guard Glibc.pipe(&ends) == 0 else { throw Failure("pipe(2): errno \(errno)") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (ends[0], ends[1])
    }
}

/// What a test could not do, in one sentence.
struct Failure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}
