// Part of QTasks. License: see LICENSE.

package import AppendLog
import Glibc
package import Logging
import QTasksModel
import Synchronization
package import ZeroMQ

/// The process around a ``WorkerState``: its sockets, its timer, and the handlers' tasks and
/// threads.
///
/// Belongs to the thread that runs it.
package struct WorkerLoop<Executor: TaskExecutor>: ~Copyable {
    /// Where the others are.
    package struct Endpoints: Sendable {
        /// The Broker's ROUTER for workers.
        package var broker: String
        /// Storage's PULL for results.
        package var storage: String

        package init(broker: String, storage: String) {
            self.broker = broker
            self.storage = storage
        }
    }

    private enum Token {
        static var inbox: UInt64 { 0 }
        static var signal: UInt64 { 1 }
    }

    /// Async handlers run on as many threads, as they would on Swift's own pool.
    private static var processors: Int { max(2, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }

    /// Messages read in one turn at most, so that results don't wait behind a flood.
    private static var messagesMax: Int { 64 }

    private let broker: Socket
    private let storage: Socket
    private let store: LogRecords?
    private var poll: PollLoop
    private var frames = Frames(capacity: 1)
    private let signals: Int32?

    private var state: WorkerState
    private var effects = WorkerEffects()
    private let inbox: WorkerInbox
    private var events: [WorkerInbox.Event] = []
    private var isStorageAway = false

    private let executor: Executor
    private let site: WorkerSite
    private let threads = HandlerThreads(limit: Self.processors)
    private let blockingThreads = HandlerThreads()
    private var running: [Lease: Task<Void, Never>] = [:]
    private var log: WorkerLog

    /// Connects to the others, whether they are there yet or not.
    ///
    /// - Parameters:
    ///   - identity: Who it says it is.
    ///   - registry: What it can run.
    ///   - executor: What executes it.
    ///   - slots: Tasks to run at once.
    ///   - endpoints: Where the others are, or will be.
    ///   - store: The system's store, where large arguments are read; `nil`: it is sent all of them.
    ///   - inbox: How other threads reach the loop.
    ///   - signals: A descriptor that becomes readable when the worker is to leave, if any. The
    ///     caller keeps it open until the loop has ended.
    ///   - context: Whose threads move the bytes.
    ///   - logger: Where lines go, the handlers' own included.
    /// - Throws: Where the process has no descriptor left, or an endpoint is none.
    package init(
        identity: WorkerState.Identity,
        registry: TaskRegistry,
        executor: Executor,
        slots: Int,
        endpoints: Endpoints,
        store: LogRecords? = nil,
        inbox: WorkerInbox,
        signals: Int32?,
        context: Context,
        logger: Logger
    ) throws(ZeroMQError) {
        var brokerOptions = SocketOptions.dealer
        // What is handed back on the way out must not be taken for killed by the process's end.
        brokerOptions.linger = .milliseconds(500)
        let broker = try Socket(.dealer, in: context, options: brokerOptions)
        let storage = try Socket(.push, in: context, options: .push)
        let poll = try PollLoop()
        try poll.watch(descriptor: inbox.bell.descriptor, token: Token.inbox)
        if let signals { try poll.watch(descriptor: signals, token: Token.signal) }
        try broker.connect(to: endpoints.broker)
        try storage.connect(to: endpoints.storage)
        self.broker = broker
        self.storage = storage
        self.store = store
        self.poll = poll
        self.inbox = inbox
        self.signals = signals
        self.executor = executor
        state = WorkerState(
            identity: identity,
            handlers: registry.handlers,
            slots: slots,
            seed: .random(in: .min ... .max)
        )
        site = WorkerSite(worker: identity.worker, handlers: registry.handlers, logger: logger)
        log = WorkerLog(logger)
        state.isTracing = log.isTracing
    }

    deinit {
        threads.stop()
        blockingThreads.stop()
    }

    /// Works until the worker was told to leave and has nothing left to do.
    ///
    /// - Throws: What libzmq or Linux refuses in a way that no later turn can mend.
    package mutating func run() throws(ZeroMQError) {
        while !state.isFinished {
            let storageItem = isStorageAway ? storage.pollItem.orWritable : storage.pollItem
            try turn(try poll.wait([broker.pollItem, storageItem]))
        }
    }

    private mutating func turn(_ ready: Ready) throws(ZeroMQError) {
        let now = Now.current
        if ready.isReadable(0) { try receive(now: now) }
        for token in ready.tokens {
            if token == Token.inbox { takeEvents(now: now) } else { takeSignal() }
        }
        if ready.isWritable(1) {
            isStorageAway = false
            state.storageIsBack()
        }
        if ready.timerFired { state.timer(now: now) }
        state.endTurn(now: now, into: &effects)
        try act()
        try poll.setTimer(at: state.nextDeadline)
    }

    private mutating func receive(now: Now) throws(ZeroMQError) {
        for _ in 0..<Self.messagesMax {
            guard try broker.receive(into: &frames) else { return }
            if frames.overflowed {
                state.countMalformed("more than one frame")
            } else {
                frames.withBytes(at: 0) { state.receive($0, now: now, store: store) }
            }
        }
        frames.clear()
    }

    private mutating func takeEvents(now: Now) {
        inbox.takeAll(into: &events)
        for event in events {
            switch event {
            case .finished(let end):
                running[end.lease] = nil
                log.returned(end, of: state.task(under: end.lease))
                state.finished(end, now: now)
            case .unreadable(let lease):
                running[lease] = nil
                state.unreadable(lease)
            case .setSlots(let slots):
                state.setSlots(slots)
                log.slots(state.slotCount)
            case .setLogLevel(let level):
                site.logger.withLock { $0.logLevel = level }
                log.setLevel(level)
                state.isTracing = log.isTracing
            case .leave: leave()
            }
        }
        events.removeAll(keepingCapacity: true)
    }

    private mutating func takeSignal() {
        guard let signals else { return }
        // Which signal it was doesn't matter, all of them say "leave".
        withUnsafeTemporaryAllocation(byteCount: 128, alignment: 8) { info in
            _ = read(signals, info.baseAddress, info.count)
        }
        leave()
    }

    private mutating func leave() {
        state.leave()
        log.leaving(inHand: state.inHand)
    }

    private mutating func act() throws(ZeroMQError) {
        log.arrows(of: effects)
        for message in effects.toBroker {
            // Away: what it should know stands in the HELLO that the next one gets.
            _ = try broker.send(message)
        }
        for message in effects.toStorage {
            if try storage.send(message) != .sent { isStorageAway = true }
        }
        for delivery in effects.starts { start(delivery) }
        for delivery in effects.cancels { cancel(delivery) }
        log.notes(of: effects)
    }

    private mutating func start(_ delivery: TaskDelivery) {
        let operation: @Sendable () async -> Void = { [executor, site, inbox] in
            let startedAt = Timestamp.now
            guard delivery.checkArguments() else { return inbox.put(.unreadable(delivery.lease)) }
            let handler = site.handlers[delivery.handler]
            // whoever looks at the arguments on their way gets an array
            let isInPlace =
                handler.takesPlaced && handler.middlewares.isEmpty
                && executor is DefaultTaskExecutor
            let outcome = await executor.execute(
                handler,
                arguments: isInPlace ? delivery.arguments : delivery.takeCopy(),
                context: TaskContext(delivery, at: site)
            )
            // a handler that failed before it took them has left them mapped
            _ = delivery.takePlaced()
            let end = AttemptEnd(
                lease: delivery.lease,
                outcome: outcome,
                startedAt: startedAt,
                finishedAt: .now
            )
            inbox.put(.finished(end))
        }
        running[delivery.lease] =
            switch site.handlers[delivery.handler].kind {
            case .async: Task.detached(executorPreference: threads, operation: operation)
            case .blocking: Task.detached(executorPreference: blockingThreads, operation: operation)
            }
    }

    private func cancel(_ delivery: TaskDelivery) {
        delivery.markCancelled()
        guard let task = running[delivery.lease] else { return }
        // Cancelling runs the handler's own cancellation code, and that may block.
        Task.detached(executorPreference: blockingThreads) { task.cancel() }
    }
}
