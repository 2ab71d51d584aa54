// Part of QTasks. License: see LICENSE.
//
// Adding by name: for tasks whose code is in another program, or in another language.

public import QTasksModel

extension QueueTasks {
    /// Adds a task by its name, and returns once it is as durable as it asked to be.
    ///
    /// Arguments are encoded as JSON; bytes (`[UInt8]`) are passed as they are. A higher priority
    /// goes first; a delay holds the task back at least as long. `timeout` is how long the add is
    /// tried while the system is full, stopping or away.
    ///
    /// - Returns: The task's ID; where its `unique` key is held, that of the task which holds it: no other
    ///   is added then.
    /// - Throws: ``QTasksError``, with a code that says what held it up; `CancellationError`. The
    ///   task may have been added then.
    @discardableResult
    public func addTask(
        _ name: String,
        _ arguments: some Codable & Sendable,
        priority: Int16? = nil,
        queue: String? = nil,
        delay: Duration? = nil,
        unique: UniqueKey? = nil,
        options: AddOptions = AddOptions(),
        timeout: Duration? = addTimeout
    ) async throws -> TaskID {
        let submission = try submission(
            of: name,
            arguments,
            options.merging(queue: queue, priority: priority, delay: delay, unique: unique)
        )
        return try await addTasks([submission], timeout: timeout)[0]
    }

    /// Adds a task with arguments that are bytes already.
    ///
    /// The content type `nil` stands for `application/json`.
    ///
    /// - Throws: As ``addTask(_:_:priority:queue:delay:unique:options:timeout:)``.
    @discardableResult
    public func addTask(
        _ name: String,
        bytes: [UInt8],
        contentType: String?,
        options: AddOptions = AddOptions(),
        timeout: Duration? = addTimeout
    ) async throws -> TaskID {
        let submission = options.submission(
            of: name,
            bytes,
            contentType: contentType,
            defaults: defaults(of: name)
        )
        return try await addTasks([submission], timeout: timeout)[0]
    }

    /// Adds tasks with one message, and returns their IDs once all of them are durable; where a task's
    /// unique key is held, the ID of the task that holds it.
    ///
    /// - Throws: The first refusal, as ``addTask(_:_:priority:queue:delay:unique:options:timeout:)``.
    ///   Other tasks may have been taken; adding all again with the same IDs is safe.
    @discardableResult
    public func addTasks(
        _ submissions: [TaskSubmission],
        timeout: Duration? = addTimeout
    ) async throws -> [TaskID] {
        try await connectedBroker().add(submissions, timeout: timeout)
    }

    /// How a task ends, by its ID.
    ///
    /// - Throws: ``QTasksError/Code/timeout`` where it goes on, ``QTasksError/Code/notFound``, and
    ///   what else may happen on the way; `CancellationError`.
    public func end(of id: TaskID, timeout: Duration? = nil) async throws -> TaskEnd {
        try await connectedBroker().ends(of: [id], timeout: timeout)[0].get()
    }

    private func submission<Arguments: Codable & Sendable>(
        of name: String,
        _ arguments: Arguments,
        _ options: AddOptions
    ) throws -> TaskSubmission {
        let codec = PayloadCodec<Arguments>.codable
        return options.submission(
            of: name,
            try codec.encode(arguments),
            contentType: codec.contentType,
            defaults: defaults(of: name)
        )
    }
}
