// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess

/// Which file workers are started from.
///
/// The one that the Starter was started from, also where it has been replaced since; from a rolling
/// restart on the one that then had its path, by a descriptor, so that all workers stay of one build.
final class WorkerProgram {
    /// Where the executable was when the Starter began.
    private let path: String?
    private var descriptor: Int32 = -1
    private var former: Int32 = -1

    init() {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink(ChildProcess.ownExecutable, &buffer, buffer.count)
        path =
            count > 0
            ? String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self) : nil
    }

    deinit {
        for descriptor in [descriptor, former] where descriptor >= 0 { close(descriptor) }
    }

    /// For `posix_spawn(3)`: the child has no descriptor of ours, but may look at them.
    var executable: String {
        descriptor >= 0 ? "/proc/\(getpid())/fd/\(descriptor)" : ChildProcess.ownExecutable
    }

    /// Takes the file that has the path now.
    ///
    /// - Throws: ``ProcessError`` where there is none.
    func renew() throws(ProcessError) {
        let found = path.map { open($0, O_RDONLY | O_CLOEXEC) } ?? -1
        guard found >= 0 else {
            throw .system(call: "open", subject: path ?? ChildProcess.ownExecutable, code: errno)
        }
        if former >= 0 { close(former) }
        former = descriptor
        descriptor = found
    }

    /// The new one doesn't do: the former one is used again.
    func goBack() {
        guard descriptor >= 0 else { return }
        close(descriptor)
        descriptor = former
        former = -1
    }
}
