// Part of QTasks. License: see LICENSE.

import Glibc

/// Lines that arrive at a descriptor, kept for the whole test.
///
/// Nothing is read unless ``Bed`` turns: a writer that fills the pipe waits that long.
@MainActor
final class LineSource {
    /// Reads without blocking; closed with this value.
    let descriptor: Int32

    /// All whole lines so far.
    private(set) var lines: [String] = []

    /// Every writer has closed its end: all processes that had it have ended.
    private(set) var isAtEnd = false

    private var rest: [UInt8] = []

    init(owning descriptor: Int32) {
        self.descriptor = descriptor
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
    }

    deinit {
        close(descriptor)
    }

    /// Takes what is there.
    func drain() {
        var chunk = [UInt8](repeating: 0, count: 65536)
        while !isAtEnd {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0 && errno == EINTR { continue }
            if count < 0 { return }
            if count == 0 { isAtEnd = true }
            rest += chunk[..<count]
            cutLines()
        }
    }

    /// The whole text, an unfinished last line included.
    var text: String {
        (lines + [String(decoding: rest, as: UTF8.self)]).joined(separator: "\n")
    }

    /// The lines from number `start` on that hold all of `parts`.
    func lines(with parts: [String], from start: Int = 0) -> [String] {
        lines[start...].filter { line in parts.allSatisfy { line.contains($0) } }
    }

    private func cutLines() {
        var start = 0
        while let end = rest[start...].firstIndex(of: UInt8(ascii: "\n")) {
            lines.append(String(decoding: rest[start..<end], as: UTF8.self))
            start = end + 1
        }
        rest.removeFirst(start)
    }
}
