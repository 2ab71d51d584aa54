// Part of QTasks. License: see LICENSE.

import Glibc

/// How a system is set up: by code, by environment (`QTASKS_*`), by flag, in rising order of weight.
public struct QueueConfig: Sendable, Equatable {
    /// Worker processes; `nil`: one for each core, and none for an executable without tasks.
    public var workers: Int?

    /// A program that the Starter runs as each worker, by `/bin/sh -c 'exec ...'`, such as
    /// `python3 worker.py`; `nil`: workers are this executable.
    public var workerCommand: String?

    /// Tasks that one worker process runs at once.
    public var slots = 10

    /// How long running tasks may go on after a request to stop.
    public var grace: Duration = .seconds(10)

    /// How long a handler may go on past its time limit, or its task's cancel, before its worker is asked
    /// to end (SIGTERM), and how long that may take before it is killed.
    public var killAfter: Duration = .seconds(1)

    /// What an acknowledgement has survived where an add doesn't say.
    public var durability: Durability = .synced

    /// Counted deaths of workers that make a task `dead`, where an add doesn't say.
    public var maxDeliveries: UInt32 = 3

    /// The largest arguments and results, in bytes.
    public var maxPayload = 16 << 20

    /// Tasks that may wait at once; `nil`: as many as the disk holds.
    public var maxQueued: Int?

    /// How long finished tasks are kept.
    public var retention = RetentionRules()

    /// Bytes that the store may take on disk; `nil`: no bound but the disk.
    ///
    /// At least ``leastQuota(maxPayload:)``.
    public var quota: Int?

    /// How far back the log keeps what happened.
    public var history: HistoryWindow = .standard

    /// What each worker process may use, and when it is replaced.
    public var workerRules = WorkerRules()

    /// Least weight of what is logged: `trace`, `debug`, `info`, `notice`, `warning`, `error`, `critical`.
    public var logLevel = "info"

    /// A further endpoint for clients, such as `tcp://127.0.0.1:5570`.
    public var listen: String?

    public init() {}

    /// The settings with what the environment says laid over them.
    ///
    /// Reads `QTASKS_WORKERS`, `QTASKS_WORKER_COMMAND`, `QTASKS_SLOTS`, `QTASKS_GRACE` and `QTASKS_KILL_AFTER`
    /// (seconds), `QTASKS_DURABILITY`, `QTASKS_MAX_DELIVERIES`, `QTASKS_MAX_PAYLOAD` (bytes),
    /// `QTASKS_MAX_QUEUED`, `QTASKS_RETENTION`, `QTASKS_QUOTA`, `QTASKS_HISTORY`, `QTASKS_RECYCLE_TASKS`, `QTASKS_RECYCLE_RSS`, `QTASKS_LIMIT_AS`,
    /// `QTASKS_LIMIT_CPU`, `QTASKS_LIMIT_NOFILE`, `QTASKS_NICE`, `QTASKS_LOG_LEVEL` and `QTASKS_LISTEN`.
    ///
    /// - Parameter lookUp: Gives a variable's value; this process's environment unless told otherwise.
    /// - Returns: The merged settings.
    /// - Throws: ``QTasksError/Code/badConfiguration`` naming the variable and what it may be.
    public func merging(
        environment lookUp: (String) -> String? = Self.environmentVariable
    ) throws(QTasksError) -> QueueConfig {
        var config = self
        for setting in Setting.allCases {
            if let text = lookUp(setting.variable) {
                try config.set(setting, to: text, saying: setting.variable)
            }
        }
        return config
    }

    /// A variable of this process's environment.
    public static func environmentVariable(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }
    }

    /// What can be set by name.
    public enum Setting: String, CaseIterable, Sendable {
        case workers
        case workerCommand = "worker-command"
        case slots
        case grace
        case killAfter = "kill-after"
        case durability
        case maxDeliveries = "max-deliveries"
        case maxPayload = "max-payload"
        case maxQueued = "max-queued"
        case retention
        case quota
        case history
        case recycleTasks = "recycle-tasks"
        case recycleRSS = "recycle-rss"
        case limitAddressSpace = "limit-as"
        case limitCPU = "limit-cpu"
        case limitOpenFiles = "limit-nofile"
        case nice
        case logLevel = "log-level"
        case listen

        /// Its environment variable, such as `QTASKS_MAX_PAYLOAD`.
        public var variable: String {
            "QTASKS_" + rawValue.uppercased().replacing("-", with: "_")
        }
    }

    /// Levels that ``logLevel`` may have.
    public static let logLevels = [
        "trace", "debug", "info", "notice", "warning", "error", "critical",
    ]

    /// The longest ``workerCommand``, in bytes: it travels in the environment with all the others.
    public static let commandBytesMax = 16 << 10

    /// The least that ``quota`` may be for any payload: four segments of the log, 256 MiB.
    public static let quotaMin = 256 << 20

    /// The least that ``quota`` may be where payloads may be that long: room for four records of that
    /// size with what goes with them, and never less than ``quotaMin``.
    public static func leastQuota(maxPayload: Int) -> Int {
        max(quotaMin, 4 * (maxPayload + 2 << 20))
    }

    /// Whether the settings go together, each of them being fine.
    ///
    /// - Throws: ``QTasksError/Code/badConfiguration`` naming those that don't.
    public func check() throws(QTasksError) {
        guard let quota else { return }
        let least = Self.leastQuota(maxPayload: maxPayload)
        guard quota < least else { return }
        throw QTasksError(
            .badConfiguration,
            "quota is '\(BytesText.text(UInt64(clamping: quota)))'; with a max-payload of \(maxPayload) it takes at "
                + "least \(BytesText.text(UInt64(clamping: least))): four of the log's segments"
        )
    }

    /// Sets one value from text.
    ///
    /// - Parameters:
    ///   - setting: Which one.
    ///   - text: Its value, as ``text(of:)`` writes it.
    ///   - origin: What to call it in an error, such as `--slots` or `QTASKS_SLOTS`.
    /// - Throws: ``QTasksError/Code/badConfiguration``; nothing is then changed.
    public mutating func set(
        _ setting: Setting,
        to text: String,
        saying origin: String
    ) throws(QTasksError) {
        func number(_ range: ClosedRange<Int>) throws(QTasksError) -> Int {
            guard let number = Int(text), range.contains(number) else {
                throw Self.bad(
                    origin,
                    text,
                    "a number from \(range.lowerBound) to \(range.upperBound)"
                )
            }
            return number
        }
        switch setting {
        case .workers: workers = try number(0...1024)
        case .workerCommand:
            guard !text.isEmpty, text.utf8.count <= Self.commandBytesMax, !text.utf8.contains(0)
            else {
                throw Self.bad(
                    origin,
                    text,
                    "a shell command of at most \(Self.commandBytesMax) bytes"
                )
            }
            workerCommand = text
        case .slots: slots = try number(1...10_000)
        case .grace: grace = try Self.seconds(text, origin)
        case .killAfter: killAfter = try Self.seconds(text, origin)
        case .durability:
            guard let level = Durability(text) else {
                throw Self.bad(origin, text, Durability.allowedTexts)
            }
            durability = level
        case .maxDeliveries: maxDeliveries = UInt32(try number(1...1_000_000))
        case .maxPayload: maxPayload = try number(1024...(1 << 30))
        case .maxQueued: maxQueued = try number(1...Int(Int32.max))
        case .retention:
            guard let rules = RetentionRules(text) else {
                throw Self.bad(origin, text, RetentionRules.allowedTexts)
            }
            retention = rules
        case .quota:
            guard let bytes = BytesText.bytes(text), bytes >= Self.quotaMin else {
                throw Self.bad(origin, text, "bytes such as '10GiB' or '500MB', at least 256MiB")
            }
            quota = Int(bytes)
        case .history:
            guard let window = HistoryWindow(text) else {
                throw Self.bad(origin, text, "AGE,BYTES such as '24h,1GiB', or '0' for none")
            }
            history = window
        case .recycleTasks, .recycleRSS, .limitAddressSpace, .limitCPU, .limitOpenFiles, .nice:
            do throws(WorkerRules.Refusal) {
                try workerRules.set(setting, to: text)
            } catch {
                throw Self.bad(origin, text, error.allowed)
            }
        case .logLevel:
            guard Self.logLevels.contains(text) else {
                throw Self.bad(origin, text, "one of \(Self.logLevels.joined(separator: ", "))")
            }
            logLevel = text
        case .listen:
            guard Self.isLoopback(text) else {
                throw Self.bad(
                    origin,
                    text,
                    "an address of this host such as tcp://127.0.0.1:5570: beyond loopback "
                        + "anybody could add tasks, which is refused until CURVE is there"
                )
            }
            listen = text
        }
    }

    /// The value as text, such as ``set(_:to:saying:)`` reads it; `nil` where nothing is set.
    public func text(of setting: Setting) -> String? {
        switch setting {
        case .workers: workers.map(String.init)
        case .workerCommand: workerCommand
        case .slots: String(slots)
        case .grace: Self.text(seconds: grace)
        case .killAfter: Self.text(seconds: killAfter)
        case .durability: durability.description
        case .maxDeliveries: String(maxDeliveries)
        case .maxPayload: String(maxPayload)
        case .maxQueued: maxQueued.map { String($0) }
        case .retention: retention.description
        case .quota: quota.map { BytesText.text(UInt64(clamping: $0)) }
        case .history: history.description
        case .recycleTasks, .recycleRSS, .limitAddressSpace, .limitCPU, .limitOpenFiles, .nice:
            workerRules.text(of: setting)
        case .logLevel: logLevel
        case .listen: listen
        }
    }

    private static func text(seconds: Duration) -> String {
        let parts = seconds.components
        return String(Double(parts.seconds) + Double(parts.attoseconds) / 1e18)
    }

    private static func seconds(_ text: String, _ origin: String) throws(QTasksError) -> Duration {
        let isMilliseconds = text.hasSuffix("ms")
        let digits = text.dropLast(isMilliseconds ? 2 : text.hasSuffix("s") ? 1 : 0)
        let divisor: Double = isMilliseconds ? 1000 : 1
        guard let number = Double(digits), (0...86_400).contains(number / divisor) else {
            throw bad(origin, text, "seconds from 0 to 86400, such as '10', '0.5s' or '500ms'")
        }
        return .milliseconds(Int64(number * 1000 / divisor))
    }

    /// `tcp://` at 127.x.y.z with a port or `*`.
    private static func isLoopback(_ endpoint: String) -> Bool {
        guard endpoint.hasPrefix("tcp://"), let colon = endpoint.lastIndex(of: ":") else {
            return false
        }
        let host = endpoint[..<colon].dropFirst("tcp://".count)
        let port = endpoint[endpoint.index(after: colon)...]
        guard port == "*" || UInt16(port) != nil else { return false }
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }

    private static func bad(_ origin: String, _ text: String, _ allowed: String) -> QTasksError {
        QTasksError(.badConfiguration, "\(origin) is '\(text)'; it takes \(allowed)")
    }
}
