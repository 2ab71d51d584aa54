// Part of QTasks. License: see LICENSE.

import Glibc

/// What a long command is doing, on one line of a terminal's standard error; nothing elsewhere.
package final class ProgressLine {
    private let isShown = isatty(STDERR_FILENO) == 1
    private var isEmpty = true

    package init() {}

    package func show(_ text: String) {
        guard isShown else { return }
        write("\r\u{1B}[K\(text) ...")
        isEmpty = false
    }

    package func clear() {
        if !isEmpty { write("\r\u{1B}[K") }
        isEmpty = true
    }

    deinit {
        clear()
    }

    private func write(_ text: String) {
        var text = text
        text.withUTF8 { _ = Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
