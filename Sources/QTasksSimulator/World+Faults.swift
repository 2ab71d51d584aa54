// Part of QTasks. License: see LICENSE.
//
// What goes wrong with processes and connections, by the plan.

import AppendLog
import QTasksModel

extension World {
    func commit(_ fault: Scenario.Fault) {
        guard !isDown else { return }
        switch fault.kind {
        case .killWorker: kill(livingWorkers.randomOne(&random))
        case .killStorage: kill(livingStorages.randomOne(&random))
        case .killBroker: kill(broker)
        case .killStarter: kill(starter)
        case .killGlobalConfig: kill(globalConfig)
        case .killClient: kill(livingClients.randomOne(&random))
        case .killAll:
            count(.killAll)
            for process in living { process.end("kill -9 of all") }
        case .losePower: losePower()
        case .breakSession: breakSession(network.open.randomOne(&random))
        case .pauseWorker: pause(livingWorkers.randomOne(&random))
        case .pauseBroker: pause(broker)
        case .pauseStorage: pause(livingStorages.randomOne(&random))
        case .pauseClient: pause(livingClients.randomOne(&random))
        case .leave:
            guard let worker = livingWorkers.randomOne(&random) else { break }
            count(.workerLeaves)
            worker.leave()
        case .trap(let address, let trap): traps.append((address, trap))
        case .stop: stop()
        case .stepClock(let nanoseconds): stepClock(nanoseconds)
        case .failDisk(let call, let passed): failDisk(call, after: passed)
        case .fillDisk(let room, let time): fillDisk(room: room, for: time)
        case .rotMeta: rotMeta()
        case .rotSegment: rotSegment()
        }
        restartClients()
    }

    /// A message went out on this connection: whoever set a trap for it strikes.
    func sent(on connection: Connection) {
        guard !traps.isEmpty, !isCalm,
            let index = traps.firstIndex(where: { $0.address == connection.bound.address })
        else { return }
        let trap = traps.remove(at: index).trap
        after(random.nanoseconds(0...300 * .microsecond)) { [self] in
            guard !isDown else { return }
            strike(trap, connection)
            restartClients()
        }
    }

    private func strike(_ trap: Scenario.Fault.Trap, _ connection: Connection) {
        switch trap {
        case .killConnecting: kill(connection.socket.owner)
        case .killWhileBusy:
            let time = random.nanoseconds(.millisecond...20 * .millisecond)
            count(.stall)
            connection.bound.owner.pause(for: time)
            kill(connection.socket.owner)
        case .killBinding: kill(connection.bound.owner)
        case .breakSession: breakSession(connection)
        case .losePower: losePower()
        }
    }

    private func restartClients() {
        for (number, client) in clients.enumerated() where client?.isAlive != true {
            restartClient(number)
        }
    }

    private func kill(_ process: SimulatedProcess?) {
        guard let process, process.isAlive else { return }
        switch process.name.role {
        case .worker: count(.killWorker)
        case .storage: count(.killStorage)
        case .broker: count(.killBroker)
        case .starter: count(.killStarter)
        case .globalConfig: count(.killGlobalConfig)
        case .client, .watcher: count(.killClient)
        case .world: break
        }
        process.end("kill -9")
    }

    private func breakSession(_ connection: Connection?) {
        guard let connection, !connection.isBroken else { return }
        count(.brokenSession)
        network.breakSession(connection)
    }

    private func pause(_ process: SimulatedProcess?) {
        guard let process, process.isAlive else { return }
        count(.stall)
        process.pause(for: random.nanoseconds(5 * .millisecond...1500 * .millisecond))
    }

    private func losePower() {
        trace(ProcessName(role: .world), .note("the power goes"))
        isDown = true
        for process in living { process.end("no power") }
        count(.powerLoss)
        if disk.hasUnsyncedBytes { count(.unsyncedBytes) }
        disk.crash(seed: random.next())
        configDisk.crash(seed: random.next())
        armed = nil
        checker.powerLost()
        after(random.nanoseconds(50 * .millisecond...500 * .millisecond)) { [self] in
            bootedAt = time
            bootID = TaskID(high: 1, low: bootID.low + 1)
            isDown = false
            startStarter()
        }
    }

    var livingWorkers: [SimulatedWorker] { workers.compactMap { $0 }.filter(\.isAlive) }
    private var livingStorages: [SimulatedStorage] { storages.filter(\.isAlive) }
    private var livingClients: [SimulatedClient] { clients.compactMap { $0 }.filter(\.isAlive) }

    /// SIGTERM to the Starter, once it has a system to stop.
    private func stop() {
        guard let starter, starter.isAlive else { return }
        count(.stop)
        hasBeenStopped = true
        starter.stop()
    }

    /// Somebody, or NTP, sets the wall clock.
    private func stepClock(_ nanoseconds: Int64) {
        count(.clockStep)
        trace(ProcessName(role: .world), .note("the wall clock is set by \(nanoseconds) ns"))
        clockSet += nanoseconds
        clockMoves += nanoseconds.magnitude
        broker?.clockStepped()
    }
}

extension Array {
    fileprivate func randomOne(_ random: inout SeededRandom) -> Element? {
        isEmpty ? nil : random.pick(self)
    }
}
