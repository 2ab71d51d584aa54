// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import Synchronization

/// Threads for handlers: made on demand, used again, asleep while there is nothing to run.
///
/// A `Task` that prefers this executor runs here until it suspends, and comes back here afterwards
/// (SE-0417). Not Swift's own pool, for two reasons: it has one thread a core, and a handler that
/// blocks keeps all others from it; and the library under it wakes up once a second for as long as
/// the process lives, which an idle worker must not (P8).
package final class HandlerThreads: _Concurrency.TaskExecutor {
    private struct State {
        var jobs = Fifo<UnownedJob>()
        var jobCount = 0
        var idle = 0
        var threads = 0
        var isStopping = false
    }

    // Only touched under `lock`, which also orders the waits on `wake`.
    nonisolated(unsafe) private let state: UnsafeMutablePointer<State>
    // POSIX lets any thread use these two; they stay put until the last reference is gone.
    nonisolated(unsafe) private let lock: UnsafeMutablePointer<pthread_mutex_t>
    nonisolated(unsafe) private let wake: UnsafeMutablePointer<pthread_cond_t>  // likewise

    private let threadsMax: Int

    /// - Parameter limit: The most threads; `nil`: as many as there are jobs at once, for those that block.
    package init(limit: Int? = nil) {
        threadsMax = limit ?? .max
        state = .allocate(capacity: 1)
        state.initialize(to: State())
        lock = .allocate(capacity: 1)
        lock.initialize(to: pthread_mutex_t())
        pthread_mutex_init(lock, nil)
        wake = .allocate(capacity: 1)
        wake.initialize(to: pthread_cond_t())
        pthread_cond_init(wake, nil)
    }

    deinit {
        pthread_cond_destroy(wake)
        wake.deallocate()
        pthread_mutex_destroy(lock)
        lock.deallocate()
        state.deinitialize(count: 1)
        state.deallocate()
    }

    package func enqueue(_ job: consuming ExecutorJob) {
        pthread_mutex_lock(lock)
        state.pointee.jobs.append(UnownedJob(job))
        state.pointee.jobCount += 1
        let isShort =
            state.pointee.jobCount > state.pointee.idle && state.pointee.threads < threadsMax
        if isShort { state.pointee.threads += 1 } else { pthread_cond_signal(wake) }
        pthread_mutex_unlock(lock)
        if isShort { addThread() }
    }

    /// Lets the idle threads end, and the busy ones when their job is done.
    package func stop() {
        pthread_mutex_lock(lock)
        state.pointee.isStopping = true
        pthread_cond_broadcast(wake)
        pthread_mutex_unlock(lock)
    }

    private func addThread() {
        var thread = pthread_t()
        let failure = pthread_create(
            &thread,
            nil,
            { executor in
                guard let executor else { return nil }
                _ = clinux_set_name("qtasks-task")
                Unmanaged<HandlerThreads>.fromOpaque(executor).takeRetainedValue().run()
                return nil
            },
            Unmanaged.passRetained(self).toOpaque()
        )
        guard failure != 0 else {
            pthread_detach(thread)
            return
        }
        Unmanaged.passUnretained(self).release()
        pthread_mutex_lock(lock)
        state.pointee.threads -= 1
        // With others at work the job only waits for one of them.
        precondition(state.pointee.threads > 0, "no thread can be made for a handler")
        pthread_mutex_unlock(lock)
    }

    private func run() {
        while let job = next() {
            job.runSynchronously(on: asUnownedTaskExecutor())
        }
    }

    /// Waits for a job; `nil`: the thread is no longer needed.
    private func next() -> UnownedJob? {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        while true {
            if let job = state.pointee.jobs.popFirst() {
                state.pointee.jobCount -= 1
                return job
            }
            if state.pointee.isStopping {
                state.pointee.threads -= 1
                return nil
            }
            state.pointee.idle += 1
            pthread_cond_wait(wake, lock)
            state.pointee.idle -= 1
        }
    }
}
