// Part of QTasks. License: see LICENSE.

import Glibc

/// What a process of the system tells the one that it starts: which role to take, who the parent
/// is, and the settings it needs.
///
/// It travels in the environment, because arguments are the user's.
package struct RoleHandover: Sendable, Equatable {
    /// Such as `broker`.
    ///
    /// What the word means is the caller's.
    package var role: String

    /// The pid that ``ParentGuard`` expects.
    package var parent: Int32

    /// See ``RunID``.
    package var runID: String

    /// Any strings without NUL, 100 KiB of them at most in sum: Linux takes 128 KiB a variable, and
    /// `=`, `\` and line feeds count twice.
    package var settings: [String: String]

    package init(role: String, parent: Int32, runID: String, settings: [String: String] = [:]) {
        self.role = role
        self.parent = parent
        self.runID = runID
        self.settings = settings
    }

    private enum Variable: String, CaseIterable {
        case role = "QTASKS_ROLE"
        case parent = "QTASKS_PARENT"
        case run = "QTASKS_RUN"
        case settings = "QTASKS_SETTINGS"
    }

    /// The variables that carry a handover.
    package static var variableNames: Set<String> { Set(Variable.allCases.map(\.rawValue)) }

    /// Whether this process was given a role that it hasn't taken yet.
    ///
    /// Who starts a whole system refuses then: a program that did it before it looked for its role
    /// would start itself without end.
    package static var isPending: Bool { getenv(Variable.role.rawValue) != nil }

    /// Takes the handover out of this process's environment, so that nothing it starts inherits it.
    ///
    /// Once, in `main`, before there are other threads: see `unsetenv(3)`.
    ///
    /// - Returns: `nil` where this process was given no role.
    /// - Throws: ``ProcessError/badHandover(_:)``; the variables are gone then, too.
    package static func take() throws(ProcessError) -> RoleHandover? {
        var variables: [String: String] = [:]
        for variable in Variable.allCases {
            guard let value = getenv(variable.rawValue) else { continue }
            variables[variable.rawValue] = String(cString: value)
            unsetenv(variable.rawValue)
        }
        return try RoleHandover(environment: variables)
    }

    /// What to set for the process that is to take it.
    package var environment: [String: String] {
        [
            Variable.role.rawValue: role,
            Variable.parent.rawValue: String(parent),
            Variable.run.rawValue: runID,
            Variable.settings.rawValue: SettingLines.text(settings),
        ]
    }

    /// The opposite of ``environment``; `nil` where that names no role.
    init?(environment: [String: String]) throws(ProcessError) {
        guard let role = environment[Variable.role.rawValue] else { return nil }
        guard let parent = environment[Variable.parent.rawValue].flatMap({ Int32($0) }) else {
            throw .badHandover("\(Variable.parent.rawValue) is not a pid")
        }
        guard let runID = environment[Variable.run.rawValue] else {
            throw .badHandover("\(Variable.run.rawValue) is missing")
        }
        guard let settings = SettingLines.parse(environment[Variable.settings.rawValue] ?? "")
        else {
            throw .badHandover("\(Variable.settings.rawValue) has a line without '='")
        }
        self.init(role: role, parent: parent, runID: runID, settings: settings)
    }
}
