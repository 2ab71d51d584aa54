// Part of QTasks. License: see LICENSE.

import QTasksGlobalConfig
import QTasksModel
import QTasksWire

/// Somebody who follows the settings, as every role does (`ConfigSubscription`), and sets some.
final class SimulatedWatcher: SimulatedProcess {
    /// How long he waits to hear that a change is on disk.
    private static let patience: UInt64 = 2 * .second

    private(set) var watch = ConfigWatchState()
    private var requests: ConnectingSocket?
    private var updates: ConnectingSocket?
    private var wishes: [ConfigEntry] = []
    /// Changes that were sent, by the message's number, and until when they are waited for.
    private var asked: [UInt64: (entry: ConfigEntry, until: UInt64)] = [:]
    /// Far from the numbers of ``ConfigWatchState``, which counts its questions from 1 on.
    private var numberNext: UInt64 = 1 << 32

    init(_ world: World, number: Int, life: Int) {
        super.init(world, ProcessName(role: .watcher, number: number, life: life))
        updates = world.network.connect(to: .configUpdates, by: self)
        requests = world.network.connect(to: .config, by: self)
        watch.start(now: world.now.monotonic)
        // nobody is connected yet: the beginning of the connection brings the question again
        _ = watch.takeQuestions()
        wake()
    }

    /// `config set`.
    func set(_ entry: ConfigEntry) {
        wishes.append(entry)
        wake()
    }

    override var nextDeadline: UInt64? {
        (asked.values.map(\.until) + [watch.nextDeadline].compactMap { $0 }).min()
    }

    override var hasUnread: Bool {
        [updates, requests].contains { $0.map { world.network.hasArrived(on: $0) } ?? false }
    }

    override func cleanUp() {
        // sockets hold on to their owner
        (requests, updates) = (nil, nil)
        world.watcherEnded(self)
    }

    override func turn(timerFired: Bool) {
        guard let requests, let updates else { return }
        let now = world.now.monotonic
        for bytes in world.network.receive(on: updates, atMost: world.turnLimit()) {
            bytes.withUnsafeBytes { watch.published($0, now: now) }
        }
        for bytes in world.network.receive(on: requests, atMost: world.turnLimit()) {
            heard(bytes, now)
        }
        watch.timer(now: now)
        asked = asked.filter { $0.value.until > now }
        for question in watch.takeQuestions() { _ = world.network.send(question, on: requests) }
        for wish in wishes { ask(wish, requests, now) }
        wishes = []
        _ = watch.takeChanges()
        if watch.malformed > 0 { world.checker.fail("\(name) got settings it can't read") }
        world.checker.settingsSeen(watch, by: self)
    }

    private func ask(_ wish: ConfigEntry, _ requests: ConnectingSocket, _ now: UInt64) {
        let message = ConfigSetMessage.encoded(wish, number: numberNext)
        if world.network.send(message, on: requests) {
            asked[numberNext] = (wish, now + Self.patience)
        }
        numberNext += 1
    }

    private func heard(_ bytes: [UInt8], _ now: UInt64) {
        bytes.withUnsafeBytes { raw in
            var reader = WireReader(raw)
            guard let header = try? MessageHeader.read(from: &reader),
                let wish = asked.removeValue(forKey: header.number)
            else { return watch.replied(raw, now: now) }
            guard header.command == .configDone,
                let sequence = try? reader.integer("sequence", as: UInt64.self)
            else { return }
            world.checker.settingHeard(wish.entry, sequence)
        }
    }
}
