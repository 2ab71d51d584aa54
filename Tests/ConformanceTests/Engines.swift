// Part of QTasks. License: see LICENSE.
//
// What the suites run over; a new engine is a new case.

import QTasks
import Testing

/// Implementations of ``Storage``.
enum StorageUnderTest: String, CaseIterable, CustomTestStringConvertible {
    case memory
    case appendLog

    var testDescription: String { rawValue }

    /// Runs `body` with one that holds nothing yet and is gone afterwards.
    func use(_ body: (any Storage) async throws -> Void) async throws {
        switch self {
        case .memory: try await body(MemoryStorage())
        case .appendLog:
            try await withFolder { folder in
                let storage = try await AppendLogStorage(at: folder + "/store")
                try await body(storage)
                try await storage.close()
            }
        }
    }
}

/// Implementations of ``GlobalConfig``.
enum GlobalConfigUnderTest: String, CaseIterable, CustomTestStringConvertible {
    case memory
    case zeroMQ

    var testDescription: String { rawValue }

    /// Runs `body` with one in which nothing is set.
    func use(_ body: (any GlobalConfig) async throws -> Void) async throws {
        switch self {
        case .memory: try await body(MemoryGlobalConfig())
        case .zeroMQ:
            try await TestSystem.use { system in
                let config = try ZeroMQGlobalConfig(home: system.home)
                defer { config.close() }
                try await body(config)
            }
        }
    }
}

/// Implementations of ``Broker``, each with what runs the tasks of TestTasks.
enum BrokerUnderTest: String, CaseIterable, CustomTestStringConvertible {
    /// In memory, over a Storage in memory.
    case memory
    /// In memory, over the append log.
    case appendLog
    /// The one of a running system.
    case zeroMQ

    var testDescription: String { rawValue }

    /// Runs `body` with one that knows no task yet.
    func use(_ body: (any Broker) async throws -> Void) async throws {
        switch self {
        case .memory: try await Self.use(MemoryStorage(), body)
        case .appendLog: try await StorageUnderTest.appendLog.use { try await Self.use($0, body) }
        case .zeroMQ:
            try await TestSystem.use { system in
                let broker = try ZeroMQBroker(home: system.home)
                defer { broker.close() }
                try await body(broker)
            }
        }
    }

    private static func use(
        _ storage: any Storage,
        _ body: (any Broker) async throws -> Void
    ) async throws {
        let broker = MemoryBroker(try .ofTestTasks(), storage: storage)
        let result: Result<Void, any Error>
        do {
            result = .success(try await body(broker))
        } catch {
            result = .failure(error)
        }
        await broker.close()
        try result.get()
    }
}
