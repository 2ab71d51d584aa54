// Part of QTasks. License: see LICENSE.

/// What the processes of one system have in common from its start to its stop: 32 hexadecimal
/// digits.
package enum RunID {
    /// One that no other run has.
    package static func make() -> String {
        var generator = SystemRandomNumberGenerator()
        return Hexadecimal.text(generator.next()) + Hexadecimal.text(generator.next())
    }
}
