// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// A task of this program that can be added with typed arguments: an ``AsyncTask`` or a
/// ``SyncTask``.
public protocol RegisteredTask<Input, Output>: Sendable {
    associatedtype Input: Sendable
    associatedtype Output: Sendable

    var definition: TaskDefinition<Input, Output> { get }
}

extension RegisteredTask {
    /// What it is added under.
    public var name: String { definition.name }

    /// Adds a task, and returns once it is as durable as it asked to be.
    ///
    /// A higher priority goes first; a delay holds the task back at least as long. `timeout` is
    /// how long the add is tried while the system is full, stopping or away.
    ///
    /// Where another task of this name holds the `unique` key, no task is added, and what is returned is
    /// the way to that one's result.
    ///
    /// - Throws: ``QTasksError``, with a code that says what held it up; `CancellationError`. The
    ///   task may have been added then: adding it again with the same ID is safe.
    @discardableResult
    public func addTask(
        _ input: Input,
        priority: Int16? = nil,
        queue: String? = nil,
        delay: Duration? = nil,
        unique: UniqueKey? = nil,
        options: AddOptions = AddOptions(),
        timeout: Duration? = QueueTasks.addTimeout
    ) async throws -> AsyncResult<Output> {
        let options = options.merging(
            queue: queue,
            priority: priority,
            delay: delay,
            unique: unique
        )
        let submission = try definition.submission(of: input, options)
        let id = try await definition.app.addTasks([submission], timeout: timeout)[0]
        return AsyncResult(of: submission, id, definition)
    }

    /// Adds tasks with one message, and returns once all of them are durable.
    ///
    /// The options are for each of them; an ID among them is passed over.
    ///
    /// - Throws: As ``addTask(_:priority:queue:delay:unique:options:timeout:)`` for the first that is
    ///   refused. Others may have been added.
    @discardableResult
    public func addTasks(
        _ inputs: some Sequence<Input>,
        options: AddOptions = AddOptions(),
        timeout: Duration? = QueueTasks.addTimeout
    ) async throws -> [AsyncResult<Output>] {
        let submissions = try submissions(of: inputs, options)
        let ids = try await definition.app.addTasks(submissions, timeout: timeout)
        return zip(submissions, ids).map { AsyncResult(of: $0, $1, definition) }
    }

    /// Adds a task and waits for its result, with one message: the quickest way there and back.
    ///
    /// The timeout is for all of it; with `nil` it takes as long as it takes.
    ///
    /// - Throws: As ``addTask(_:priority:queue:delay:unique:options:timeout:)`` and
    ///   ``AsyncResult/result(timeout:)``.
    public func run(
        _ input: Input,
        options: AddOptions = AddOptions(),
        timeout: Duration? = nil
    ) async throws -> Output {
        let submission = try definition.submission(of: input, options)
        let ends = try await definition.app.connectedBroker().run([submission], timeout: timeout)
        return try definition.output(from: try ends[0].get())
    }

    /// Adds tasks and waits for all of their results, with one message.
    ///
    /// - Returns: In the order of `inputs`.
    /// - Throws: As ``run(_:options:timeout:)`` for the first without a result.
    public func run(
        all inputs: some Sequence<Input>,
        options: AddOptions = AddOptions(),
        timeout: Duration? = nil
    ) async throws -> [Output] {
        let submissions = try submissions(of: inputs, options)
        let ends = try await definition.app.connectedBroker().run(submissions, timeout: timeout)
        return try ends.map { try definition.output(from: try $0.get()) }
    }

    /// A task that is ready to be added: `try await thumbnail(input).addTask()`.
    public func callAsFunction(_ input: Input) -> PreparedTask<Self> {
        PreparedTask(task: self, input: input)
    }

    private func submissions(
        of inputs: some Sequence<Input>,
        _ options: AddOptions
    ) throws -> [TaskSubmission] {
        var options = options
        options.id = nil
        return try inputs.map { try definition.submission(of: $0, options) }
    }
}

extension RegisteredTask where Input == Void {
    /// Adds a task that takes no arguments.
    ///
    /// - Throws: As ``addTask(_:priority:queue:delay:unique:options:timeout:)``.
    @discardableResult
    public func addTask(
        options: AddOptions = AddOptions(),
        timeout: Duration? = QueueTasks.addTimeout
    ) async throws -> AsyncResult<Output> {
        try await addTask((), options: options, timeout: timeout)
    }

    /// Adds a task that takes no arguments, and waits for its result.
    ///
    /// - Throws: As ``run(_:options:timeout:)``.
    public func run(
        options: AddOptions = AddOptions(),
        timeout: Duration? = nil
    ) async throws -> Output {
        try await run((), options: options, timeout: timeout)
    }
}

/// A task with its arguments, and with its ID: added twice, it is the same task.
public struct PreparedTask<Registered: RegisteredTask>: Sendable {
    /// The task's name for ever.
    public let id = TaskID()

    private let task: Registered
    private let input: Registered.Input

    init(task: Registered, input: Registered.Input) {
        self.task = task
        self.input = input
    }

    /// Adds it, and returns once it is as durable as it asked to be.
    ///
    /// An ID among the options is passed over.
    ///
    /// - Throws: As ``RegisteredTask/addTask(_:priority:queue:delay:unique:options:timeout:)``.
    @discardableResult
    public func addTask(
        options: AddOptions = AddOptions(),
        timeout: Duration? = QueueTasks.addTimeout
    ) async throws -> AsyncResult<Registered.Output> {
        var options = options
        options.id = id
        return try await task.addTask(input, options: options, timeout: timeout)
    }
}
