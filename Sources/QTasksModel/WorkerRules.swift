// Part of QTasks. License: see LICENSE.

/// What each worker process that the Starter starts may use, and when it makes room for a new one.
public struct WorkerRules: Sendable, Equatable {
    /// Tasks after which a worker is replaced, once those that it runs have ended.
    public var recycleTasks: Int?

    /// Bytes of resident memory from which on a worker is replaced, once those tasks that it runs have
    /// ended; looked at whenever one of its tasks ends.
    public var recycleRSS: Int?

    /// Bytes of address space at most: `RLIMIT_AS` of `getrlimit(2)`.
    public var addressSpace: Int?

    /// Seconds on a CPU in all: SIGXCPU then, SIGKILL five seconds later (`RLIMIT_CPU`).
    public var cpuSeconds: Int?

    /// Open descriptors at most: `RLIMIT_NOFILE`.
    public var openFiles: Int?

    /// How far it stands back behind others: 0 to 19, see `nice(1)`.
    public var niceness: Int?

    public init() {}

    /// The least that ``addressSpace`` may be: less, and not even a worker without tasks starts.
    public static let addressSpaceMin = 256 << 20

    /// Sets one of its values from text; what isn't one of its settings is ignored.
    ///
    /// - Throws: What the value may be, for a person.
    mutating func set(_ setting: QueueConfig.Setting, to text: String) throws(Refusal) {
        switch setting {
        case .recycleTasks: recycleTasks = try number(text, 1...Int(Int32.max))
        case .recycleRSS: recycleRSS = try bytes(text, atLeast: 1 << 20)
        case .limitAddressSpace: addressSpace = try bytes(text, atLeast: Self.addressSpaceMin)
        case .limitCPU: cpuSeconds = try number(text, 1...Int(Int32.max))
        case .limitOpenFiles: openFiles = try number(text, 32...Int(Int32.max))
        case .nice: niceness = try number(text, 0...19)
        default: break
        }
    }

    /// The value as text, such as ``set(_:to:)`` reads it; `nil` where nothing is set.
    func text(of setting: QueueConfig.Setting) -> String? {
        switch setting {
        case .recycleTasks: recycleTasks.map(String.init)
        case .recycleRSS: recycleRSS.map { BytesText.text(UInt64(clamping: $0)) }
        case .limitAddressSpace: addressSpace.map { BytesText.text(UInt64(clamping: $0)) }
        case .limitCPU: cpuSeconds.map(String.init)
        case .limitOpenFiles: openFiles.map(String.init)
        case .nice: niceness.map(String.init)
        default: nil
        }
    }

    /// What the value of a setting may be.
    struct Refusal: Error {
        var allowed: String
    }

    private func number(_ text: String, _ range: ClosedRange<Int>) throws(Refusal) -> Int {
        guard let number = Int(text), range.contains(number) else {
            throw Refusal(allowed: "a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    private func bytes(_ text: String, atLeast least: Int) throws(Refusal) -> Int {
        guard let bytes = BytesText.bytes(text), bytes >= least else {
            let least = BytesText.text(UInt64(clamping: least))
            throw Refusal(allowed: "bytes such as '2GiB' or '500MB', at least \(least)")
        }
        return Int(bytes)
    }
}
