// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksModel
import QTasksProcess
import QTasksWire
import ZeroMQ

/// The pidfds of local workers: the kernel's word on who lives.
struct WatchedWorkers {
    private struct Watched {
        var handle: PidDescriptor
        var pid: Int32
        var token: UInt64
        /// It leads a process group, which goes with it.
        var leadsGroup: Bool
    }

    private var workers: [WorkerID: Watched] = [:]
    private var ids: [UInt64: WorkerID] = [:]
    private var nextToken = StorageLink.token + 1

    /// Whoever spoke in this turn, by pid; kept to the turn's end for who is taken on.
    private var strangers: [Int32: (identity: ProcessIdentity, handle: PidDescriptor)] = [:]

    mutating func keep(_ handle: PidDescriptor, of identity: ProcessIdentity) {
        strangers[identity.pid] = (identity, handle)
    }

    mutating func forgetStrangers() {
        if !strangers.isEmpty { strangers.removeAll() }
    }

    /// Watches a worker's process.
    ///
    /// - Returns: `false` where it has ended, or its pid is another process's by now.
    mutating func watch(
        _ worker: WorkerID,
        _ process: WorkerProcess,
        _ poll: borrowing PollLoop
    ) -> Bool {
        forget(worker, poll)
        guard let handle = handle(of: process) else { return false }
        let token = nextToken
        nextToken += 1
        do {
            try poll.watch(descriptor: handle.descriptor, token: token)
        } catch {
            return false
        }
        workers[worker] = Watched(
            handle: handle,
            pid: process.pid,
            token: token,
            leadsGroup: ProcessGroup.isLeader(process.pid)
        )
        ids[token] = worker
        return true
    }

    private func handle(of process: WorkerProcess) -> PidDescriptor? {
        let identity = ProcessIdentity(pid: process.pid, startTime: process.startTime)
        if let stranger = strangers[process.pid], stranger.identity == identity {
            return stranger.handle
        }
        // another boot's pids say nothing about this one's
        guard process.bootID == TaskID(high: BootID.current.high, low: BootID.current.low) else {
            return nil
        }
        return try? PidDescriptor.open(identity)
    }

    /// The worker whose pidfd was ready; its process has ended.
    mutating func ended(_ token: UInt64, _ poll: borrowing PollLoop) -> WorkerID? {
        guard let id = ids[token], let worker = workers[id] else { return nil }
        try? poll.unwatch(descriptor: worker.handle.descriptor)
        ids[token] = nil
        return id
    }

    mutating func forget(_ worker: WorkerID, _ poll: borrowing PollLoop) {
        guard let watched = workers.removeValue(forKey: worker) else { return }
        if ids.removeValue(forKey: watched.token) != nil {
            try? poll.unwatch(descriptor: watched.handle.descriptor)
        }
    }

    /// SIGTERM to the worker alone: what it ends, it ends in order.
    func terminate(_ worker: WorkerID) {
        workers[worker]?.handle.kill(SIGTERM)
    }

    /// SIGKILL to the worker and, where it leads a group, to everything its tasks started.
    func kill(_ worker: WorkerID) {
        guard let watched = workers[worker] else { return }
        watched.handle.kill()
        if watched.leadsGroup { ProcessGroup.kill(watched.pid) }
    }
}
