// Part of QTasks. License: see LICENSE.

/// Which boot of which machine this is: `/proc/sys/kernel/random/boot_id`, see `random(4)`.
///
/// A pid and start time that were told under another boot are those of a dead process.
package struct BootID: Hashable, Sendable {
    package let high: UInt64
    package let low: UInt64

    /// Read once.
    ///
    /// Ends the process where /proc isn't mounted.
    package static let current: BootID = {
        guard let text = SmallFile.text(at: "/proc/sys/kernel/random/boot_id"),
            let id = BootID(text)
        else {
            preconditionFailure("boot_id can't be read: QTasks needs /proc mounted")
        }
        return id
    }()

    /// Takes the form the kernel gives: 32 hexadecimal digits, hyphens, a line feed.
    init?(_ text: String) {
        let digits = text.filter { $0.isHexDigit }
        guard digits.count == 32,
            let high = UInt64(digits.prefix(16), radix: 16),
            let low = UInt64(digits.suffix(16), radix: 16)
        else { return nil }
        self.high = high
        self.low = low
    }
}

extension BootID: CustomStringConvertible {
    package var description: String { Hexadecimal.text(high) + Hexadecimal.text(low) }
}
