// Part of QTasks. License: see LICENSE.

import Glibc

/// An exclusive `flock(2)` on a file that says who holds it.
///
/// Held until this value goes, or the process ends in whatever way. The file itself stays: if it
/// were removed, two processes could each hold a lock on a file of that name. The descriptor is
/// close-on-exec, since a child that had it would hold the lock beyond its parent's end.
package struct LockFile: ~Copyable {
    /// How long a holder of the same run is waited for, and again once it was killed.
    package static let defaultPatienceMilliseconds: Int32 = 2000

    private let descriptor: Int32

    private init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    deinit {
        Self.release(descriptor)
    }

    /// Takes the lock at `path`; makes the file where there is none.
    ///
    /// May block: not on Swift's pool.
    ///
    /// A holder of the same run is a predecessor that hasn't quite ended: it is waited for, then
    /// killed, then waited for again. A holder of another run is left alone.
    ///
    /// Where the home's own lock is held by this run already, whoever of another run still holds a lock
    /// below it is on its way out, killed with its Starter, and no more than a slow `fdatasync(2)`
    /// away from its end: `isHomeOurs` has it waited for, too.
    ///
    /// - Parameters:
    ///   - path: In a directory that exists.
    ///   - runID: The same in all processes of one system from its start to its stop; one line.
    ///   - patienceMilliseconds: The length of each of the two waits.
    ///   - isHomeOurs: This run holds the home's own lock.
    /// - Returns: The lock, held by this process alone.
    /// - Throws: ``ProcessError/homeInUse(path:pid:)`` where another run holds it, or where a
    ///   holder of this run can't be killed; the error of `open(2)`, such as `EACCES`, or of
    ///   writing to it.
    package static func acquire(
        at path: String,
        runID: String,
        patienceMilliseconds: Int32 = defaultPatienceMilliseconds,
        isHomeOurs: Bool = false
    ) throws(ProcessError) -> LockFile {
        precondition(!runID.contains("\n"), "a run ID is one line")
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw .last("open", path) }
        if flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            try succeed(descriptor, path, runID, patienceMilliseconds, isHomeOurs)
        }
        let lock = LockFile(descriptor: descriptor)
        try lock.tell(LockHolder(runID: runID, process: .current), path)
        return lock
    }

    /// Who holds the lock at `path` now, asked without getting in a holder's way.
    ///
    /// A process that takes the lock at this very moment may find it taken by this question; it
    /// then waits for it (``acquire(at:runID:patienceMilliseconds:)``), which is over at once.
    ///
    /// - Returns: `nil` where nobody does, or where there is no such file.
    /// - Throws: The error of `open(2)` other than `ENOENT`, such as `EACCES`;
    ///   ``ProcessError/homeInUse(path:pid:)`` where a holder hasn't said who it is.
    package static func holder(of path: String) throws(ProcessError) -> LockHolder? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            guard errno == ENOENT else { throw .last("open", path) }
            return nil
        }
        defer { release(descriptor) }
        guard flock(descriptor, LOCK_SH | LOCK_NB) != 0 else { return nil }
        guard let holder = holder(of: descriptor) else { throw .homeInUse(path: path, pid: nil) }
        return holder
    }

    /// Gets the lock from a holder of the same run, or throws, with the descriptor closed.
    private static func succeed(
        _ descriptor: Int32,
        _ path: String,
        _ runID: String,
        _ patience: Int32,
        _ isHomeOurs: Bool
    ) throws(ProcessError) {
        if !isHomeOurs, let holder = holder(of: descriptor), holder.runID != runID,
            holder.process.isAlive
        {
            close(descriptor)
            throw .homeInUse(path: path, pid: holder.process.pid)
        }
        // Where the text names nobody alive, the holder has just taken it and is yet to write, or
        // is asking ``holder(of:)``: the wait covers that too.
        let wait = try LockWait.begin(owning: descriptor)
        if wait.isGranted(withinMilliseconds: patience) { return }
        let holder = holder(of: descriptor)
        if let holder, holder.runID == runID, kill(holder.process) {
            if wait.isGranted(withinMilliseconds: patience) { return }
        }
        guard wait.giveUp() else { return }
        throw .homeInUse(path: path, pid: holder?.process.pid)
    }

    /// Unlocks before it closes: a child of another thread that is between `clone(2)` and
    /// `execve(2)` has a copy of the descriptor, which would keep the lock for that long.
    static func release(_ descriptor: Int32) {
        flock(descriptor, LOCK_UN)
        close(descriptor)
    }

    private static func kill(_ process: ProcessIdentity) -> Bool {
        guard process.pid != getpid() else { return false }
        let handle = try? PidDescriptor.open(process)
        return handle?.kill(SIGKILL) ?? false
    }

    private static func holder(of descriptor: Int32) -> LockHolder? {
        SmallFile.text(of: descriptor).flatMap { LockHolder(text: $0) }
    }

    /// Overwrites first and cuts after, so that a reader never finds the file empty.
    private borrowing func tell(_ holder: LockHolder, _ path: String) throws(ProcessError) {
        var text = holder.text
        let written = text.withUTF8 { pwrite(descriptor, $0.baseAddress, $0.count, 0) }
        guard written == text.utf8.count, ftruncate(descriptor, off_t(written)) == 0 else {
            throw .last("write", path)
        }
    }
}
