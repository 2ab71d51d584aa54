// Part of QTasks. License: see LICENSE.

import QTasks
import QTasksGlobalConfig
import QTasksWire
import Synchronization

/// Settings in a dictionary.
final class MemoryGlobalConfig: GlobalConfig {
    private struct Watcher {
        var pattern: String
        var reader: AsyncThrowingStream<ConfigChange, any Error>.Continuation
    }

    private struct State {
        var values: [String: [UInt8]] = [:]
        var watchers: [Int: Watcher] = [:]
        var last = 0
    }

    private let state = Mutex(State())

    func get(_ key: String) async throws -> [UInt8]? { state.withLock { $0.values[key] } }

    func set(_ key: String, to value: [UInt8]?) async throws {
        if let refusal = ConfigKey.refusal(of: value ?? [], for: key), value != nil {
            throw refusal.error
        }
        state.withLock { state in
            state.values[key] = value
            for watcher in state.watchers.values where ConfigKey.matches(watcher.pattern, key) {
                watcher.reader.yield(ConfigChange(key: key, value: value))
            }
        }
    }

    func values(matching pattern: String) async throws -> [String: [UInt8]] {
        state.withLock { $0.values.filter { ConfigKey.matches(pattern, $0.key) } }
    }

    func watch(matching pattern: String) -> AsyncThrowingStream<ConfigChange, any Error> {
        AsyncThrowingStream { reader in
            let number = state.withLock { state in
                for (key, value) in state.values.sorted(by: { $0.key < $1.key })
                where ConfigKey.matches(pattern, key) {
                    reader.yield(ConfigChange(key: key, value: value))
                }
                state.last += 1
                state.watchers[state.last] = Watcher(pattern: pattern, reader: reader)
                return state.last
            }
            reader.onTermination = { [weak self] _ in
                self?.state.withLock { $0.watchers[number] = nil }
            }
        }
    }
}
