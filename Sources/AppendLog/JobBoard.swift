// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import Synchronization

/// Carries out what ``LogJobs`` decides, by threads or one call at a time.
///
/// Unchecked, because: `jobs` is only touched under `mutex`; everything else is constant or atomic.
final class JobBoard: @unchecked Sendable {
    enum Role: Int, CaseIterable {
        case write, sync, prepare, keep, read
    }

    let files: any LogFiles
    let directory: String
    let metaFile: LogFileHandle
    /// So that an append, which takes no lock, learns of both at once.
    let hasFailed = Atomic<Bool>(false)
    let isShortOfSpace = Atomic<Bool>(false)
    let isAtLimit = Atomic<Bool>(false)
    /// See ``Log/isHurried``.
    let isHurried = Atomic<Bool>(false)
    /// Steps of housekeeping that were done.
    let keptCount = Atomic<Int>(0)

    let onProgress: (@Sendable () -> Void)?
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    /// One for each role, and the last for whoever waits for the work to be done.
    private let conditions = UnsafeMutablePointer<pthread_cond_t>
        .allocate(capacity: conditionCount)
    private static let conditionCount = Role.allCases.count + 1
    private var allDone: UnsafeMutablePointer<pthread_cond_t> {
        conditions + Role.allCases.count
    }
    private var jobs: LogJobs
    private var isEnded = false

    init(
        jobs: LogJobs,
        files: any LogFiles,
        directory: String,
        metaFile: LogFileHandle,
        onProgress: (@Sendable () -> Void)?
    ) {
        self.jobs = jobs
        self.files = files
        self.directory = directory
        self.metaFile = metaFile
        self.onProgress = onProgress
        pthread_mutex_init(mutex, nil)
        for index in 0..<Self.conditionCount { pthread_cond_init(conditions + index, nil) }
    }

    deinit {
        for index in 0..<Self.conditionCount { pthread_cond_destroy(conditions + index) }
        pthread_mutex_destroy(mutex)
        conditions.deallocate()
        mutex.deallocate()
    }

    /// Looks at the jobs under the lock.
    func look<Result>(_ body: (LogJobs) -> Result) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body(jobs)
    }

    /// Changes the jobs under the lock, then wakes whom the change gave work.
    func withJobs<Result>(_ body: (inout LogJobs) -> Result) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        let result = body(&jobs)
        hasFailed.store(jobs.failure != nil, ordering: .releasing)
        isShortOfSpace.store(jobs.isShortOfSpace, ordering: .relaxed)
        isAtLimit.store(jobs.isAtLimit, ordering: .relaxed)
        for role in Role.allCases where hasWork(role) { signal(role) }
        pthread_cond_signal(allDone)
        return result
    }

    /// Sleeps until everything submitted is durable, or the log has failed.
    ///
    /// For threads only.
    func waitUntilDurable() {
        pthread_mutex_lock(mutex)
        while jobs.failure == nil, !jobs.isAllDurable { pthread_cond_wait(allDone, mutex) }
        pthread_mutex_unlock(mutex)
    }

    /// Sleeps until a step of housekeeping is done, unless there is none to do.
    ///
    /// For threads only.
    func waitForKeep() {
        pthread_mutex_lock(mutex)
        if jobs.failure == nil, jobs.isKeeping { pthread_cond_wait(allDone, mutex) }
        pthread_mutex_unlock(mutex)
    }

    /// Tells every thread to end once it has nothing in hand.
    func end() {
        pthread_mutex_lock(mutex)
        isEnded = true
        for role in Role.allCases { signal(role) }
        pthread_mutex_unlock(mutex)
    }

    /// The life of one thread: sleeps without a time limit until its role has something to do.
    func work(_ role: Role) {
        while true {
            pthread_mutex_lock(mutex)
            while !isEnded, !hasWork(role) { pthread_cond_wait(conditions + role.rawValue, mutex) }
            let isOver = isEnded
            pthread_mutex_unlock(mutex)
            if isOver { return }
            if role == .sync { syncAll() } else { _ = runOne(role) }
        }
    }

    /// Carries out one job of a role; `false` where there is none.
    func runOne(_ role: Role) -> Bool {
        switch role {
        case .write: runOneWrite()
        case .sync: runOneSync()
        case .prepare: runOnePreparation()
        case .keep: runOneKeep()
        case .read: runOneRead()
        }
    }

    func path(_ segment: UInt32) -> String {
        "\(directory)/\(LogFormat.segmentName(segment))"
    }

    private func hasWork(_ role: Role) -> Bool {
        switch role {
        case .write: jobs.canWrite
        case .sync: jobs.canSync
        case .prepare: jobs.canPrepare
        case .keep: jobs.nextKeepJob != nil
        case .read: jobs.canRead
        }
    }

    private func signal(_ role: Role) {
        pthread_cond_signal(conditions + role.rawValue)
    }

    /// Carries a job's outcome back.
    ///
    /// The owner is told outside the lock.
    private func finish(_ body: (inout LogJobs) -> Void) {
        withJobs(body)
        onProgress?()
    }
}

// MARK: - The jobs

extension JobBoard {
    /// Makes a change and, where nothing else is going on, carries out the write that it leads to on
    /// this very thread: two changes of threads less on a quiet system.
    ///
    /// A write waits behind a sync of the same file (17 ms were seen), so never while one is under way.
    func writeHereIfQuiet(_ change: (inout LogJobs) -> Void) {
        pthread_mutex_lock(mutex)
        change(&jobs)
        let job = jobs.isQuiet ? jobs.nextWrite() : nil
        pthread_mutex_unlock(mutex)
        // also without a job: whoever got work by the change is woken
        guard let job else { return withJobs { _ in } }
        carryOut(job) { self.withJobs($0) }
        if hasFailed.load(ordering: .acquiring) { onProgress?() }
    }

    private func runOneWrite() -> Bool {
        guard let job = withJobs({ $0.nextWrite() }) else { return false }
        carryOut(job, finish)
        return true
    }

    private func carryOut(
        _ job: LogJobs.WriteJob,
        _ finish: ((inout LogJobs) -> Void) -> Void
    ) {
        do throws(AppendLogError) {
            let handle =
                if let open = job.handle { open } else {
                    try files.open(path(job.segment), job.creates ? .createNew : .readWrite)
                }
            do throws(AppendLogError) {
                try files.write(handle, job.pieces.map(\.buffer.bytes), at: job.offset)
            } catch {
                if job.handle == nil { files.close(handle) }
                throw error
            }
            finish { $0.wrote(job, with: handle) }
        } catch {
            finish { $0.fail(error) }
        }
    }

    private func runOneSync() -> Bool {
        guard let job = withJobs({ $0.nextSync() }) else { return false }
        _ = carryOut(job) { _ in nil }
        return true
    }

    /// Syncs until there is nothing to sync.
    ///
    /// The next sync is taken in the same breath as the outcome of the last one is told: the disk has no
    /// pause, and what was written meanwhile doesn't wait for the owner's next group.
    private func syncAll() {
        var job = withJobs { $0.nextSync() }
        while let current = job {
            job = carryOut(current) { isEnded ? nil : $0.nextSync() }
        }
    }

    /// Carries out a sync, and gives back what `next` says once its outcome is told.
    private func carryOut(
        _ job: LogJobs.SyncJob,
        next: (inout LogJobs) -> LogJobs.SyncJob?
    ) -> LogJobs.SyncJob? {
        do throws(AppendLogError) {
            switch job {
            case .data(let handles, let syncsDirectory, _, _):
                for handle in handles { try files.syncData(handle) }
                if syncsDirectory { try files.syncDirectory(directory) }
            case .meta(let page):
                try files.writeMeta(page, to: metaFile)
            }
            var complete: [LogFileHandle] = []
            var following: LogJobs.SyncJob?
            finish {
                complete = $0.synced(job)
                following = next(&$0)
            }
            complete.forEach(files.close)
            return following
        } catch {
            finish { $0.fail(error) }
            return nil
        }
    }

    private func runOnePreparation() -> Bool {
        guard let job = withJobs({ $0.nextPreparation() }) else { return false }
        let wasShort = isShortOfSpace.load(ordering: .relaxed)
        var wasMade = false
        do throws(AppendLogError) {
            let space = try files.space(of: directory)
            guard look({ $0.quotaAdmits(job.to - job.from) }) else {
                throw .system(call: "quota", path: directory, errno: EDQUOT)
            }
            // A descriptor of its own: the kernel tells each one once of a failed write-back, so
            // the sync thread's still hears of what went wrong here.
            let handle = try files.open(path(job.segment), job.creates ? .createNew : .readWrite)
            wasMade = true
            defer { files.close(handle) }
            let zeros = [UInt8](repeating: 0, count: job.to - job.from)
            try zeros.withBytes { (zeros) throws(AppendLogError) in
                try files.writeInSteps(handle, zeros, at: job.from)
            }
            try files.syncData(handle)
            if job.creates { try files.syncDirectory(directory) }
            withJobs {
                $0.prepared(job)
                $0.measured(space)
            }
            if wasShort != isShortOfSpace.load(ordering: .relaxed) { onProgress?() }
        } catch {
            finish { error.isNoSpace ? $0.refused(job, wasMade: wasMade) : $0.fail(error) }
        }
        return true
    }
}

extension LogFiles {
    /// Writes a page to its place and syncs it.
    func writeMeta(_ page: MetaPage, to file: LogFileHandle) throws(AppendLogError) {
        let bytes = page.encoded()
        try bytes.withBytes { (bytes) throws(AppendLogError) in
            try write(file, [bytes], at: page.offset)
        }
        try syncData(file)
    }
}

// MARK: - Threads

/// The threads of a log, joined when it ends.
struct LogThreads {
    private var threads: [pthread_t] = []

    /// - Throws: `EAGAIN` of pthread_create(3); what was started has then ended again.
    init(_ board: JobBoard) throws(AppendLogError) {
        for role in JobBoard.Role.allCases {
            var thread = pthread_t()
            let argument = Unmanaged.passRetained(ThreadArgument(board: board, role: role))
            let code = pthread_create(
                &thread,
                nil,
                { argument in
                    guard let argument else { return nil }
                    let mine = Unmanaged<ThreadArgument>.fromOpaque(argument).takeRetainedValue()
                    clinux_set_name("log-\(mine.role)")
                    // whoever waits for a sync isn't to wait for housekeeping that happens to run
                    let isAwaited = mine.role == .write || mine.role == .sync
                    clinux_set_awaited(isAwaited ? 1 : 0, 1)
                    mine.board.work(mine.role)
                    return nil
                },
                argument.toOpaque()
            )
            guard code == 0 else {
                argument.release()
                board.end()
                join()
                throw .system(call: "pthread_create", path: board.directory, errno: code)
            }
            threads.append(thread)
        }
    }

    mutating func join() {
        for thread in threads { pthread_join(thread, nil) }
        threads = []
    }
}

private final class ThreadArgument {
    let board: JobBoard
    let role: JobBoard.Role

    init(board: JobBoard, role: JobBoard.Role) {
        self.board = board
        self.role = role
    }
}
