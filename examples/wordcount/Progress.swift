// Part of QTasks. License: see LICENSE.

import Glibc
import Synchronization

/// How far the counting is, on standard error: a bar on a terminal, else a line for each tenth.
///
/// Whoever has news calls; nothing runs by itself.
final class Progress: Sendable {
    private struct State {
        var goal = 0
        var done = 0
        var bytes = 0
        var isBarShown = false
        var drawnAt: ContinuousClock.Instant?
        var tenthsTold = 0
    }

    private static let redrawPause = Duration.milliseconds(50)
    private static let barWidth = 30

    private let isTerminal = isatty(STDERR_FILENO) == 1
    private let state = Mutex(State())

    /// So many files are there to be counted.
    func begin(goal: Int) {
        state.withLock { state in
            state = State(goal: goal)
            draw(&state)
        }
    }

    /// One more file is done.
    func advance(bytes: Int) {
        state.withLock { state in
            state.done = min(state.done + 1, state.goal)
            state.bytes += bytes
            draw(&state)
        }
    }

    /// Takes the bar away.
    func end() {
        state.withLock { hideBar(&$0) }
    }

    /// Prints a line of its own, above the bar if there is one.
    func say(_ line: String) {
        state.withLock { state in
            hideBar(&state)
            print("\(line)\n")
            state.drawnAt = nil
        }
    }

    private func draw(_ state: inout State) {
        guard isTerminal else { return tellTenths(&state) }
        let now = ContinuousClock.now
        if let drawnAt = state.drawnAt, now - drawnAt < Self.redrawPause, state.done < state.goal {
            return
        }
        state.drawnAt = now
        state.isBarShown = true
        let filled = state.goal == 0 ? 0 : Self.barWidth * state.done / state.goal
        let bar =
            String(repeating: "#", count: filled)
            + String(repeating: "-", count: Self.barWidth - filled)
        print("\r\u{1B}[K[\(bar)] \(state.done)/\(state.goal) files, \(Self.size(state.bytes))")
    }

    private func tellTenths(_ state: inout State) {
        let tenths = state.goal == 0 ? 0 : 10 * state.done / state.goal
        guard tenths > state.tenthsTold else { return }
        state.tenthsTold = tenths
        print("counted \(state.done) of \(state.goal) files, \(Self.size(state.bytes))\n")
    }

    private func hideBar(_ state: inout State) {
        guard state.isBarShown else { return }
        state.isBarShown = false
        print("\r\u{1B}[K")
    }

    private func print(_ text: String) {
        writeAll(Array(text.utf8), to: STDERR_FILENO)
    }

    /// A count of bytes as a person reads it, such as `3.4 MB`.
    static func size(_ bytes: Int) -> String {
        var value = bytes
        var rest = 0
        for unit in ["bytes", "kB", "MB", "GB"] {
            if value < 1000 {
                return value < 10 && rest > 0 ? "\(value).\(rest) \(unit)" : "\(value) \(unit)"
            }
            rest = value % 1000 / 100
            value /= 1000
        }
        return "\(value).\(rest) TB"
    }
}

/// Writes it all; what nobody reads any more is lost.
func writeAll(_ bytes: [UInt8], to descriptor: Int32) {
    var rest = bytes[...]
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        if count > 0 {
            rest = rest.dropFirst(count)
        } else if errno != EINTR {
            return
        }
    }
}
