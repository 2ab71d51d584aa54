// Part of QTasks. License: see LICENSE.

/// Numbers as sixteen digits, which sort and are cut apart by eye.
enum Hexadecimal {
    static func text(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
