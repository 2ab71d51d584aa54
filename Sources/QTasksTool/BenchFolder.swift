// Part of QTasks. License: see LICENSE.

import Dispatch
import Glibc
import QTasksProcess
import Synchronization

/// The folder that a benchmark's own are made in, so that one that is interrupted leaves nothing behind.
enum BenchFolder {
    private static let folder = Mutex<TemporaryFolder?>(nil)

    /// Makes it the place of temporary files, and has it removed at the end of the process, however that
    /// comes but by SIGKILL.
    ///
    /// For the main thread, before there is another one.
    static func set() throws(ProcessError) {
        let made = try TemporaryFolder("qtasks-bench")
        folder.withLock { $0 = made }
        setenv("TMPDIR", made.path, 1)
        atexit { BenchFolder.remove() }
        for number in [SIGINT, SIGTERM] {
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler {
                BenchFolder.endSystem()
                BenchFolder.remove()
                _exit(128 + number)
            }
            source.resume()
            _ = Unmanaged.passRetained(source as AnyObject)  // to the end of the process
        }
    }

    /// Ends what this process has started; the rest of each system ends with its Starter.
    private static func endSystem() {
        for child in children() { kill(child, SIGKILL) }
    }

    /// See proc(5), `/proc/[pid]/task/[tid]/children`.
    private static func children() -> [Int32] {
        guard let threads = opendir("/proc/self/task") else { return [] }
        defer { closedir(threads) }
        var children: [Int32] = []
        while let entry = readdir(threads) {
            let thread = withUnsafeBytes(of: &entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard let file = fopen("/proc/self/task/\(thread)/children", "re") else { continue }
            defer { fclose(file) }
            var line = [UInt8](repeating: 0, count: 4096)
            let count = fread(&line, 1, line.count, file)
            children += String(decoding: line.prefix(count), as: UTF8.self).split(separator: " ")
                .compactMap { Int32($0) }
        }
        return children
    }

    /// Processes that end meanwhile may still put a file there.
    private static func remove() {
        guard let path = folder.withLock({ $0?.path }) else { return }
        for _ in 0..<30 {
            TemporaryFolder.remove(path)
            guard access(path, F_OK) == 0 else { return }
            usleep(100_000)
        }
    }
}
