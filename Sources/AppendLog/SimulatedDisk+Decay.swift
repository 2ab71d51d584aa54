// Part of QTasks. License: see LICENSE.

import Synchronization

/// What becomes of a disk by itself, and what a simulator asks of it.
extension SimulatedDisk {
    /// No call fails any more, and there is room again.
    package func mend() {
        state.withLock { state in
            state.faults = [:]
            state.capacity = .max
        }
    }

    /// Whether a power failure would find bytes that were not synced.
    package var hasUnsyncedBytes: Bool {
        state.withLock { state in
            state.names.values.contains { state.files[$0]?.dirty.isEmpty == false }
        }
    }

    /// Bits of a byte turn over while the file lies there; what reads it later gets them so.
    ///
    /// - Returns: `false` where there is no such byte.
    @discardableResult
    package func rot(_ path: String, at offset: Int, mask: UInt8) -> Bool {
        state.withLock { state in
            guard let number = state.names[path], var file = state.files.removeValue(forKey: number)
            else { return false }
            defer { state.files[number] = file }
            guard offset < file.cached.count else { return false }
            file.cached[offset] ^= mask
            if offset < file.durable.count { file.durable[offset] ^= mask }
            return true
        }
    }
}
