// Part of QTasks. License: see LICENSE.

public import QTasksModel
import QTasksWorker

/// What a registered task is to those who add it.
public struct TaskDefinition<Input: Sendable, Output: Sendable>: Sendable {
    let app: QueueTasks
    let name: String
    let input: PayloadCodec<Input>
    let output: PayloadCodec<Output>

    func submission(of input: Input, _ options: AddOptions) throws -> TaskSubmission {
        options.submission(
            of: name,
            try self.input.encode(input),
            contentType: self.input.contentType,
            defaults: app.defaults(of: name)
        )
    }

    // These two hold no reference to the app, which holds them.

    /// The handler's function as workers call it.
    func bytes(
        of handler: @escaping @Sendable (Input, TaskContext) async throws -> Output
    ) -> TaskHandler.AsyncFunction {
        { [name, input, output] arguments, context in
            let value = try Self.decode(arguments, context, input, name)
            return try output.encode(try await handler(value, context))
        }
    }

    /// The same for a handler that blocks its thread.
    func blockingBytes(
        of handler: @escaping @Sendable (Input, TaskContext) throws -> Output
    ) -> TaskHandler.BlockingFunction {
        { [name, input, output] arguments, context in
            let value = try Self.decode(arguments, context, input, name)
            return try output.encode(try handler(value, context))
        }
    }

    /// Decodes arguments, large ones where they lie in the store; those are let go before the handler
    /// begins.
    ///
    /// - Throws: `BadArgumentsError` naming the field.
    private static func decode(
        _ arguments: [UInt8],
        _ context: TaskContext,
        _ codec: PayloadCodec<Input>,
        _ name: String
    ) throws(BadArgumentsError) -> Input {
        do {
            if let placed = context.takePlaced() {
                return try placed.withBytes { try codec.decodeInPlace($0) }
            }
            return try codec.decode(arguments)
        } catch {
            throw BadArgumentsError(
                message: "the arguments of '\(name)' do not decode as \(Input.self): "
                    + QTasksError.decodingFailure(error)
            )
        }
    }

    /// A task's result, out of its end.
    ///
    /// - Throws: ``QTasksError/Code/taskFailed`` or ``QTasksError/Code/taskCancelled`` where there
    ///   is none; ``QTasksError/Code/badArguments`` where it does not decode.
    func output(from end: TaskEnd) throws(QTasksError) -> Output {
        switch end.outcome {
        case .success(let result, _) where end.status == .success:
            do {
                return try output.decode(result)
            } catch {
                throw QTasksError(
                    .badArguments,
                    "the result of task \(end.id) '\(name)' does not decode as \(Output.self): "
                        + QTasksError.decodingFailure(error),
                    cause: error
                )
            }
        case .cancel(let reason) where end.status == .cancel:
            throw QTasksError(.taskCancelled, "task \(end.id) '\(name)' was given up: \(reason)")
        case .error(let failure), .retry(let failure, _, _):
            throw FailedTask(id: end.id, status: end.status, failure: failure).error(name)
        case .success, .cancel, nil:
            throw FailedTask(id: end.id, status: end.status, failure: nil).error(name)
        }
    }
}

/// The cause of a ``QTasksError/Code/taskFailed``.
public struct FailedTask: Error, Hashable {
    public let id: TaskID

    /// ``TaskStatus/error``, or ``TaskStatus/dead`` where its workers died.
    public let status: TaskStatus

    /// The handler's last error; `nil` where it never came to one.
    public let failure: TaskFailure?

    fileprivate func error(_ name: String) -> QTasksError {
        let how =
            switch (status, failure) {
            case (.dead, _): "killed its workers too often (status 'dead')"
            case (_, let failure?): "failed: \(failure.type): \(failure.message)"
            case (_, nil): "ended as '\(status.rawValue)'"
            }
        return QTasksError(.taskFailed, "task \(id) '\(name)' \(how)", cause: self)
    }
}

extension FailedTask: CustomStringConvertible {
    public var description: String {
        failure.map { "\($0.type): \($0.message)" } ?? "status '\(status.rawValue)'"
    }
}
