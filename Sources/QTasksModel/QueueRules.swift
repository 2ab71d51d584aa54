// Part of QTasks. License: see LICENSE.

/// How many tasks may start in a time.
///
/// Starts are spaced evenly: after `burst` at once, one every `period / count`. So in any stretch of time t
/// at most `burst + t * count / period` start (GCRA, the generic cell rate algorithm of ITU-T I.371).
public struct StartRate: Sendable, Hashable {
    /// How many start in a period; 1 or more.
    public var count: UInt32
    /// In milliseconds; 1 or more.
    public var periodMilliseconds: UInt32
    /// How many may start at once after a pause; 1 or more.
    public var burst: UInt32

    /// - Parameters:
    ///   - count: How many start in a period.
    ///   - periodMilliseconds: The period.
    ///   - burst: How many may start at once.
    public init(
        _ count: UInt32,
        perMilliseconds periodMilliseconds: UInt32 = 1000,
        burst: UInt32 = 1
    ) {
        self.count = max(1, count)
        self.periodMilliseconds = max(1, periodMilliseconds)
        self.burst = max(1, burst)
    }

    /// The time from one start to the next, in nanoseconds.
    package var interval: UInt64 {
        (UInt64(periodMilliseconds) * 1_000_000 + UInt64(count) - 1) / UInt64(count)
    }

    /// The time that so many starts are spaced over, in nanoseconds; what no clock can hold is cut.
    package func span(of starts: UInt32) -> UInt64 {
        let (span, overflow) = interval.multipliedReportingOverflow(by: UInt64(starts))
        return overflow ? .max / 4 : min(span, .max / 4)
    }
}

/// What holds the tasks of a queue back, whoever could run them.
///
/// Written in the store, so that it holds across restarts. A task that is held back holds up no other.
public struct QueueRules: Sendable, Hashable {
    /// Nothing of it starts.
    public var isPaused = false
    /// How many of its tasks run at once, at most.
    public var concurrency: UInt32?
    /// How many of its tasks start in a time, at most.
    public var rate: StartRate?
    /// How many of its tasks with one key run at once, at most.
    public var keyConcurrency: UInt32?
    /// How many of its tasks with one key start in a time, at most.
    public var keyRate: StartRate?
    /// How many tasks may wait in it; further adds are refused as `overloaded`.
    public var maxQueued: UInt32?
    /// How many later adds a level of priority is worth.
    ///
    /// A task of priority p is leased as if it had been added p times as many tasks earlier. Without, a
    /// higher priority goes first however long others wait.
    public var ageing: UInt32?

    public init() {}

    /// Nothing is held back.
    public var isDefault: Bool { self == QueueRules() }
}

extension StartRate: CustomStringConvertible {
    /// As the command line takes it, such as `100/1s` or `60/1m/5`.
    public var description: String {
        let period = Self.text(milliseconds: periodMilliseconds)
        return burst > 1 ? "\(count)/\(period)/\(burst)" : "\(count)/\(period)"
    }

    /// - Parameter text: A number of starts, the period (`ms`, `s`, `m`, `h`; without a number: one) and, if
    ///   more than one may start at once, how many.
    public init?(parsing text: String) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard (2...3).contains(parts.count), let count = UInt32(parts[0]), count > 0,
            let period = Self.milliseconds(parts[1]), period > 0
        else { return nil }
        var burst: UInt32 = 1
        if parts.count == 3 {
            guard let most = UInt32(parts[2]), most > 0 else { return nil }
            burst = most
        }
        self.init(count, perMilliseconds: period, burst: burst)
    }

    private static let units: [(text: Substring, milliseconds: UInt32)] = [
        ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1),
    ]

    private static func milliseconds(_ text: Substring) -> UInt32? {
        let digits = text.prefix { $0.isNumber }
        let unit = text.dropFirst(digits.count)
        guard let length = units.first(where: { $0.text == unit })?.milliseconds,
            let number = digits.isEmpty ? 1 : UInt32(digits)
        else { return nil }
        let (product, overflow) = number.multipliedReportingOverflow(by: length)
        return overflow ? nil : product
    }

    private static func text(milliseconds: UInt32) -> String {
        for unit in units where milliseconds.isMultiple(of: unit.milliseconds) {
            return "\(milliseconds / unit.milliseconds)\(unit.text)"
        }
        return "\(milliseconds)ms"
    }
}

extension QueueRules: CustomStringConvertible {
    /// For people: `none`, or what holds.
    public var description: String {
        var parts: [String] = []
        if isPaused { parts.append("paused") }
        if let concurrency { parts.append("concurrency \(concurrency)") }
        if let rate { parts.append("rate \(rate)") }
        if let keyConcurrency { parts.append("key-concurrency \(keyConcurrency)") }
        if let keyRate { parts.append("key-rate \(keyRate)") }
        if let maxQueued { parts.append("max-queued \(maxQueued)") }
        if let ageing { parts.append("ageing \(ageing)") }
        return parts.isEmpty ? "none" : parts.joined(separator: ", ")
    }
}

extension QueueRules {
    /// Appends what holds; a limit that isn't there is left out.
    package func write(to json: inout JSONText) {
        json.member("paused", isPaused)
        if let concurrency { json.member("concurrency", Int(concurrency)) }
        if let rate { json.member("rate", rate.description) }
        if let keyConcurrency { json.member("keyConcurrency", Int(keyConcurrency)) }
        if let keyRate { json.member("keyRate", keyRate.description) }
        if let maxQueued { json.member("maxQueued", Int(maxQueued)) }
        if let ageing { json.member("ageing", Int(ageing)) }
    }
}

/// Changes to a queue's rules; what it doesn't name stays.
public struct QueueChange: Sendable, Hashable {
    /// A rule, one bit each.
    package struct Fields: OptionSet, Hashable, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) {
            self.rawValue = rawValue
        }

        package static let paused = Fields(rawValue: 1)
        package static let concurrency = Fields(rawValue: 2)
        package static let rate = Fields(rawValue: 4)
        package static let keyConcurrency = Fields(rawValue: 8)
        package static let keyRate = Fields(rawValue: 16)
        package static let maxQueued = Fields(rawValue: 32)
        package static let ageing = Fields(rawValue: 64)
    }

    package private(set) var fields: Fields = []
    package private(set) var rules = QueueRules()

    package init(_ fields: Fields, _ rules: QueueRules) {
        self.fields = fields
        self.rules = rules
    }

    /// Changes nothing.
    public init() {}

    /// Nothing of the queue starts, or again.
    public mutating func setPaused(_ isPaused: Bool) {
        fields.insert(.paused)
        rules.isPaused = isPaused
    }

    /// `nil` lifts a limit.
    public mutating func setConcurrency(_ most: UInt32?) {
        fields.insert(.concurrency)
        rules.concurrency = most
    }

    /// `nil` lifts a limit.
    public mutating func setRate(_ rate: StartRate?) {
        fields.insert(.rate)
        rules.rate = rate
    }

    /// `nil` lifts a limit.
    public mutating func setKeyConcurrency(_ most: UInt32?) {
        fields.insert(.keyConcurrency)
        rules.keyConcurrency = most
    }

    /// `nil` lifts a limit.
    public mutating func setKeyRate(_ rate: StartRate?) {
        fields.insert(.keyRate)
        rules.keyRate = rate
    }

    /// `nil` lifts a limit.
    public mutating func setMaxQueued(_ most: UInt32?) {
        fields.insert(.maxQueued)
        rules.maxQueued = most
    }

    /// `nil`: a higher priority goes first.
    public mutating func setAgeing(_ tasks: UInt32?) {
        fields.insert(.ageing)
        rules.ageing = tasks
    }

    /// The rules with these changes.
    package func applied(to old: QueueRules) -> QueueRules {
        var new = old
        if fields.contains(.paused) { new.isPaused = rules.isPaused }
        if fields.contains(.concurrency) { new.concurrency = rules.concurrency }
        if fields.contains(.rate) { new.rate = rules.rate }
        if fields.contains(.keyConcurrency) { new.keyConcurrency = rules.keyConcurrency }
        if fields.contains(.keyRate) { new.keyRate = rules.keyRate }
        if fields.contains(.maxQueued) { new.maxQueued = rules.maxQueued }
        if fields.contains(.ageing) { new.ageing = rules.ageing }
        return new
    }
}
