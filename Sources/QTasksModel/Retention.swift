// Part of QTasks. License: see LICENSE.

/// How long finished tasks are kept: by how each ended, and how many of one name at most.
///
/// Until then a task can be read, and an add with its ID is the same task.
public struct Retention: Sendable, Hashable {
    /// The shortest time that any task is kept.
    ///
    /// P3: repeated adds are one task within that time, and clients count on it when they send again.
    public static let secondsMin: UInt64 = 600

    /// After `success` and `cancel`, in seconds.
    public let seconds: UInt64

    /// After `error` and `dead`, in seconds: somebody will want to look at them.
    public let failureSeconds: UInt64

    /// How many that ended well, and how many that did not, are kept of one name at most; `nil`: any number.
    ///
    /// The oldest go first, but none before ``secondsMin``.
    public let count: Int?

    /// A day; a week after `error` and `dead`.
    public static let standard = Retention(checked: 86_400, failures: defaultFailureSeconds, nil)

    private static let defaultFailureSeconds: UInt64 = 7 * 86_400

    /// `nil` where a time is shorter than ``secondsMin`` or longer than a hundred years, or the count is
    /// negative.
    ///
    /// - Parameters:
    ///   - seconds: After `success` and `cancel`.
    ///   - failureSeconds: After `error` and `dead`; `nil`: a week, or `seconds` where that is longer.
    ///   - count: See ``count``.
    public init?(seconds: UInt64, failureSeconds: UInt64? = nil, count: Int? = nil) {
        let range = Self.secondsMin...SecondsText.secondsMax
        let failures = failureSeconds ?? max(seconds, Self.defaultFailureSeconds)
        guard range.contains(seconds), range.contains(failures), count.map({ $0 >= 0 }) ?? true
        else { return nil }
        self.init(checked: seconds, failures: failures, count)
    }

    private init(checked seconds: UInt64, failures: UInt64, _ count: Int?) {
        self.seconds = seconds
        failureSeconds = failures
        self.count = count
    }

    /// Reads `AGE[/AGE][,COUNT]`, such as `24h`, `2d,100000` or `1h/30d`.
    public init?(_ text: some StringProtocol) {
        let parts = text.split(separator: ",", omittingEmptySubsequences: false)
        let ages = (parts.first ?? "").split(separator: "/", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), (1...2).contains(ages.count),
            let seconds = SecondsText.seconds(ages[0])
        else { return nil }
        var failureSeconds: UInt64?
        if ages.count == 2 {
            guard let age = SecondsText.seconds(ages[1]) else { return nil }
            failureSeconds = age
        }
        var count: Int?
        if parts.count == 2 {
            guard let number = Int(parts[1]), !parts[1].hasPrefix("+") else { return nil }
            count = number
        }
        self.init(seconds: seconds, failureSeconds: failureSeconds, count: count)
    }
}

extension Retention: CustomStringConvertible {
    /// As ``init(_:)`` reads it.
    public var description: String {
        let ages = "\(SecondsText.text(seconds))/\(SecondsText.text(failureSeconds))"
        return count.map { "\(ages),\($0)" } ?? ages
    }
}

/// How long finished tasks are kept, by their names.
public struct RetentionRules: Sendable, Hashable {
    /// For names without a rule of their own.
    public var standard: Retention

    /// For tasks of these names.
    public var byName: [String: Retention]

    public init(standard: Retention = .standard, byName: [String: Retention] = [:]) {
        self.standard = standard
        self.byName = byName
    }

    /// What holds for tasks of that name which ended like that.
    ///
    /// An add's own retention goes before the age, and such a task isn't counted.
    ///
    /// - Returns: The age in nanoseconds, and how many are kept at most.
    public func limit(name: String, status: TaskStatus) -> (age: UInt64, count: Int?) {
        let rule = byName[name] ?? standard
        let seconds = status.isFailure ? rule.failureSeconds : rule.seconds
        return (seconds * 1_000_000_000, rule.count)
    }

    /// How long a task is kept whose add asked for that many seconds, in nanoseconds.
    ///
    /// The library refuses an add that asks for less than ``Retention/secondsMin``; from others it
    /// counts as that.
    public static func age(ownSeconds seconds: UInt64) -> UInt64 {
        min(max(seconds, Retention.secondsMin), SecondsText.secondsMax) * 1_000_000_000
    }
}

extension RetentionRules {
    /// What ``init(_:)`` reads, for people.
    public static let allowedTexts =
        "AGE[/AGE][,COUNT] such as '24h', '2d,100000' or '1h/30d' (the second age is for 'error' and "
        + "'dead'), or NAME=AGE[/AGE][,COUNT] for one task, several with ';' between them; an age "
        + "is a number with s, m, h or d and at least 10m: within that time a repeated add is the same "
        + "task"

    /// Reads rules with `;` between them: `24h;thumbnail=1h,1000`.
    ///
    /// In a name, `;` and `\` have a `\` before them. A name's last rule holds.
    public init?(_ text: String) {
        self.init()
        for part in Self.parts(of: text) {
            let name = part.lastIndex(of: "=")
            let rule = name.map { part[part.index(after: $0)...] } ?? part[...]
            guard let rule = Retention(rule) else { return nil }
            guard let name else {
                standard = rule
                continue
            }
            guard TaskName.isValid(String(part[..<name])) else { return nil }
            byName[String(part[..<name])] = rule
        }
    }

    private static func parts(of text: String) -> [String] {
        var parts = [""]
        var isEscaped = false
        for character in text {
            if isEscaped || character != ";" && character != "\\" {
                parts[parts.count - 1].append(character)
                isEscaped = false
            } else if character == ";" {
                parts.append("")
            } else {
                isEscaped = true
            }
        }
        return parts
    }
}

extension RetentionRules: CustomStringConvertible {
    /// As ``init(_:)`` reads it.
    public var description: String {
        let names = byName.sorted { $0.key < $1.key }
            .map { name, rule in
                let name = name.replacing("\\", with: "\\\\").replacing(";", with: "\\;")
                return "\(name)=\(rule)"
            }
        return ([standard.description] + names).joined(separator: ";")
    }
}

extension TaskStatus {
    /// Final, and somebody will want to look at it: `error` and `dead`.
    public var isFailure: Bool {
        switch self {
        case .error, .dead: true
        case .new, .process, .scheduled, .success, .cancel: false
        }
    }
}
