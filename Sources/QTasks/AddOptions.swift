// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// What can be said about a task besides its name and arguments.
///
/// What is `nil` is as the task was registered, or as the system is set.
public struct AddOptions: Sendable {
    /// The queue it waits in.
    public var queue: String?

    /// Higher goes first; 0 unless registered otherwise.
    public var priority: Int16?

    /// When it may first be leased.
    public var start: TaskSubmission.Start = .now

    /// The task's name for ever; made anew where none is given.
    ///
    /// A repeated add with the same ID is the same task.
    public var id: TaskID?

    /// How often it is tried at most where attempts end in errors.
    public var maxAttempts: UInt32?

    /// How many counted deaths of workers make it `dead`.
    public var maxDeliveries: UInt32?

    /// How long one attempt may run.
    public var timeLimit: Duration?

    /// Not leased for the first time by then: it ends as `cancel`, with the reason `expired`.
    public var expires: Timestamp?

    /// What limits per key of its queue go by, such as a customer; 1 to 255 bytes.
    public var key: [UInt8]?

    /// Isn't added while another task of this name holds the same key; the result is then that one's.
    public var unique: UniqueKey?

    /// The task whose handler adds this one.
    public var parent: TaskID?

    /// Trace context and the like.
    public var headers: [TaskSubmission.Header] = []

    /// What an acknowledgement has survived, and a result that is told.
    public var durability: Durability?

    /// How long the finished task is kept, at least 10 minutes.
    ///
    /// Less is ``QTasksError/Code/badOption``: within that time a repeated add is the same task.
    public var retention: Duration?

    public init() {}

    /// The same with what is given laid over it.
    func merging(
        queue: String?,
        priority: Int16?,
        delay: Duration?,
        unique: UniqueKey?
    ) -> AddOptions {
        var options = self
        if let unique { options.unique = unique }
        if let queue { options.queue = queue }
        if let priority { options.priority = priority }
        if let delay { options.start = .after(milliseconds: delay.wholeMilliseconds) }
        return options
    }

    func submission(
        of name: String,
        _ arguments: [UInt8],
        contentType: String?,
        defaults: TaskDefaults?
    ) -> TaskSubmission {
        var submission = TaskSubmission(id: id ?? TaskID(), name: name, arguments: arguments)
        submission.queue = queue ?? defaults?.queue ?? TaskName.defaultQueue
        submission.priority = priority ?? defaults?.priority ?? 0
        submission.contentType = contentType
        submission.start = start
        submission.maxAttempts = maxAttempts
        submission.maxDeliveries = maxDeliveries
        submission.timeLimitMilliseconds = timeLimit.map(\.wholeMilliseconds)
        submission.expires = expires
        submission.key = key
        submission.unique = unique
        submission.parent = parent
        submission.headers = headers
        submission.durability = durability
        submission.retentionSeconds = (retention ?? defaults?.retention).map(\.wholeSeconds)
        return submission
    }
}

/// What an add of a registered task gets where it says nothing.
struct TaskDefaults: Sendable {
    let queue: String?
    let priority: Int16?
    let retention: Duration?
}

extension Duration {
    /// Rounded up, so that a short time never becomes none; negative ones are none.
    var wholeMilliseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard self > .zero else { return 0 }
        let rest = UInt64((attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
        let (whole, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1000)
        return overflow ? .max : whole + rest
    }

    /// Rounded up, too.
    var wholeSeconds: UInt64 {
        let (seconds, rest) = wholeMilliseconds.quotientAndRemainder(dividingBy: 1000)
        return rest == 0 ? seconds : seconds + 1
    }
}
