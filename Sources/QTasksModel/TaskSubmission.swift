// Part of QTasks. License: see LICENSE.

/// Everything a client says about a task when it adds it; never changed afterwards.
public struct TaskSubmission: Sendable, Equatable {
    /// When a task may first be leased.
    public enum Start: Sendable, Equatable {
        /// At once.
        case now
        /// After that much elapsed time, counted from the moment Storage takes the add.
        case after(milliseconds: UInt64)
        /// At that moment of the wall clock.
        case at(Timestamp)
    }

    /// The task's name for ever; a repeated add with the same ID is the same task.
    public var id: TaskID

    /// Which handler runs it (see ``TaskName``).
    public var name: String

    /// Which queue it waits in (see ``TaskName``).
    public var queue: String = TaskName.defaultQueue

    /// Higher goes first; within one priority first come, first served.
    public var priority: Int16 = 0

    /// What the handler gets: opaque bytes.
    public var arguments: [UInt8]

    /// What the arguments are made of; `nil` stands for `application/json`.
    public var contentType: String?

    /// How often it is tried at most where attempts end in errors; `nil`: as its handler says.
    public var maxAttempts: UInt32?

    /// How many counted deaths of workers make it `dead`; `nil`: as the system is set (3).
    public var maxDeliveries: UInt32?

    /// How long one attempt may run, in milliseconds; `nil`: as its handler says.
    public var timeLimitMilliseconds: UInt64?

    /// When it may first be leased.
    public var start: Start = .now

    /// Not leased for the first time by then: it ends as `cancel`, with the reason `expired`.
    public var expires: Timestamp?

    /// Of all unfinished tasks with the same key there is one.
    ///
    /// Carried and recorded.
    public var key: [UInt8]?

    /// Isn't added while another task of this name holds the same key.
    public var unique: UniqueKey?

    /// The task whose handler added this one.
    public var parent: TaskID?

    /// Trace context and the like, passed on as it is.
    public var headers: [Header] = []

    /// How durable the add is when it is acknowledged, and the result when it is told; `nil`: as the
    /// system is set.
    public var durability: Durability?

    /// How long the finished task is kept, in seconds, at least ``Retention/secondsMin``; `nil`: as the
    /// system is set.
    public var retentionSeconds: UInt64?

    /// One pair of the ``TaskSubmission/headers``.
    public struct Header: Sendable, Equatable {
        /// 1 to 255 bytes.
        public var name: String
        public var value: String

        public init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }

    /// A task as plain as can be; set the rest on the value.
    public init(id: TaskID = TaskID(), name: String, arguments: [UInt8]) {
        self.id = id
        self.name = name
        self.arguments = arguments
    }
}
