// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import QTasksProcess
import QTasksWire
import Synchronization
import ZeroMQ

/// What workers write to standard error: passed on to our own, with its last 4 KiB kept as evidence.
///
/// Each worker has a pipe, read by one thread with an `epoll(7)` set of its own. A slow terminal blocks
/// that thread, then the pipes fill, then the workers that write so much wait, as they would without us;
/// the Starter's loop never does. The thread alone closes what it reads.
///
/// The Starter's loop opens and collects; any thread may.
final class StderrTails: Sendable {
    /// A pipe's size: the default of 64 KiB makes one that floods it wait more often than it need.
    private static let pipeBytes: Int32 = 256 << 10

    /// `F_SETPIPE_SZ` of `fcntl(2)`, which Swift's Glibc lacks.
    private static let setPipeSize: Int32 = 1031

    /// How much a read takes.
    private static let chunkBytes = 64 << 10

    /// Pipes whose readers a blocked terminal, or descendants that outlive their worker, may keep open.
    private static let sourcesMax = 1024

    /// What dead workers may leave to be passed on.
    private static let pendingMax = 8 << 20

    private static let bellToken: UInt64 = 0

    private struct Source {
        /// -1 once its end was read.
        var descriptor: Int32
        /// `nil` once its worker has been buried: what its descendants write is passed on, no more.
        var tail: Tail?
    }

    private struct State {
        var sources: [UInt64: Source] = [:]
        var nextToken: UInt64 = 1
        /// Sources that the thread doesn't watch yet.
        var fresh: [UInt64] = []
        /// What was read at burials, and is to be passed on.
        var pending: [[UInt8]] = []
        var pendingBytes = 0
        var isFlushing = false
    }

    private let state = Mutex(State())
    private let bell: Doorbell
    private let flushed: Doorbell
    private let target: Int32

    /// Starts the thread, which lives as long as the process.
    ///
    /// - Parameter target: Where everything goes.
    /// - Throws: Where there is no descriptor or no thread to be had.
    init(target: Int32 = STDERR_FILENO) throws {
        self.target = target
        bell = try Doorbell()
        flushed = try Doorbell()
        try RoleThread.run("qtasks-stderr") { [self] in run() }
    }

    /// A pipe for a worker's standard error.
    ///
    /// - Returns: Its token, and the end to hand to the child, which the caller closes; `nil` where there
    ///   is none to be had: the child then keeps the Starter's own.
    func open() -> (token: UInt64, writeEnd: Int32)? {
        var ends: [Int32] = [-1, -1]
        guard state.withLock({ $0.sources.count }) < Self.sourcesMax, clinux_pipe(&ends) == 0 else {
            return nil
        }
        let (readEnd, writeEnd) = (ends[0], ends[1])
        // a worker's writes wait where ours don't; and no more than the user may have of such pipes
        _ = fcntl(writeEnd, F_SETFL, fcntl(writeEnd, F_GETFL) & ~O_NONBLOCK)
        _ = fcntl(writeEnd, Self.setPipeSize, Self.pipeBytes)
        let token = state.withLock { state in
            let token = state.nextToken
            state.nextToken += 1
            state.sources[token] = Source(
                descriptor: readEnd,
                tail: Tail(limit: ExitMessage.errorTailMax)
            )
            state.fresh.append(token)
            return token
        }
        bell.ring()
        return (token, writeEnd)
    }

    /// The end of what a worker has written, once it has been buried.
    ///
    /// Reads what is there and never waits: a descendant may hold the other end for ever.
    func collect(_ token: UInt64) -> [UInt8] {
        let tail = state.withLock { state -> [UInt8] in
            guard var source = state.sources[token], var tail = source.tail else { return [] }
            withUnsafeTemporaryAllocation(byteCount: Self.chunkBytes, alignment: 1) { buffer in
                var left = Int(Self.pipeBytes)
                while left > 0, source.descriptor >= 0 {
                    let count = read(source.descriptor, buffer.baseAddress, buffer.count)
                    guard count > 0 else { return }
                    left -= count
                    let chunk = UnsafeRawBufferPointer(rebasing: buffer[..<count])
                    tail.add(chunk)
                    guard state.pendingBytes + count <= Self.pendingMax else { continue }
                    state.pending.append(Array(chunk))
                    state.pendingBytes += count
                }
            }
            source.tail = nil
            state.sources[token] = source.descriptor < 0 ? nil : source
            return tail.bytes
        }
        bell.ring()
        return tail
    }

    /// Waits until everything that was written before has been passed on, but no longer than that.
    func flush(withinMilliseconds limit: Int32) {
        state.withLock { $0.isFlushing = true }
        bell.ring()
        var item = pollfd(fd: flushed.descriptor, events: Int16(POLLIN), revents: 0)
        while poll(&item, 1, limit) < 0, errno == EINTR {}
        flushed.clear()
    }

    // MARK: The thread

    private func run() {
        do {
            var poll = try PollLoop()
            try poll.watch(descriptor: bell.descriptor, token: Self.bellToken)
            let buffer = UnsafeMutableRawBufferPointer.allocate(
                byteCount: Self.chunkBytes,
                alignment: 16
            )
            defer { buffer.deallocate() }
            while true {
                for token in try poll.wait([]).tokens {
                    if token == Self.bellToken {
                        bell.clear()
                    } else {
                        _ = pass(token, buffer, poll)
                    }
                }
                for (token, descriptor) in takeFresh() {
                    try poll.watch(descriptor: descriptor, token: token)
                }
                passPending()
                if takeFlush() {
                    for token in state.withLock({ Array($0.sources.keys) }) {
                        while pass(token, buffer, poll) {}
                    }
                    flushed.ring()
                }
            }
        } catch {
            // no descriptor was left: workers that write to their pipes will wait, so let them fail
            let sources = state.withLock { state in
                defer { state.sources = [:] }
                return state.sources.values.map(\.descriptor)
            }
            for descriptor in sources { close(descriptor) }
        }
    }

    /// Passes on one chunk.
    ///
    /// - Returns: `false` where nothing was there.
    private func pass(
        _ token: UInt64,
        _ buffer: UnsafeMutableRawBufferPointer,
        _ poll: borrowing PollLoop
    ) -> Bool {
        let count = state.withLock { state -> Int in
            guard var source = state.sources[token], source.descriptor >= 0 else { return 0 }
            let count = read(source.descriptor, buffer.baseAddress, buffer.count)
            if count > 0 {
                // the dictionary's own is taken out, so that the tail isn't copied
                state.sources[token] = nil
                source.tail?.add(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                state.sources[token] = source
                return count
            }
            guard count == 0 else { return 0 }
            // at its end: nobody has the other end any more
            try? poll.unwatch(descriptor: source.descriptor)
            close(source.descriptor)
            source.descriptor = -1
            state.sources[token] = source.tail == nil ? nil : source
            return 0
        }
        if count > 0 { write(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
        return count > 0
    }

    private func takeFresh() -> [(UInt64, Int32)] {
        state.withLock { state in
            defer { state.fresh = [] }
            return state.fresh.compactMap { token in
                guard let source = state.sources[token], source.descriptor >= 0 else { return nil }
                return (token, source.descriptor)
            }
        }
    }

    private func takeFlush() -> Bool {
        state.withLock { state in
            defer { state.isFlushing = false }
            return state.isFlushing
        }
    }

    private func passPending() {
        let pending = state.withLock { state in
            defer {
                state.pending = []
                state.pendingBytes = 0
            }
            return state.pending
        }
        for chunk in pending { chunk.withUnsafeBytes { write($0) } }
    }

    /// In pieces that end with a line where they can: up to `PIPE_BUF` bytes a line stays whole beside
    /// those of other processes, see `pipe(7)`.
    private func write(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while !rest.isEmpty {
            var piece = UnsafeRawBufferPointer(rebasing: rest.prefix(Int(PIPE_BUF)))
            if piece.count < rest.count,
                let end = piece.lastIndex(of: UInt8(ascii: "\n"))
            {
                piece = UnsafeRawBufferPointer(rebasing: piece[...end])
            }
            let count = Glibc.write(target, piece.baseAddress, piece.count)
            if count < 0, errno == EINTR { continue }
            if count < 0, errno == EAGAIN {
                var item = pollfd(fd: target, events: Int16(POLLOUT), revents: 0)
                poll(&item, 1, -1)
                continue
            }
            guard count > 0 else { return }  // nobody reads any more
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }
}
