// Part of QTasks. License: see LICENSE.
//
// Who is started by whom, and who hears of whose end.

import AppendLog
import QTasksModel
import QTasksProcess
import QTasksWire

extension World {
    func takePid() -> Int32 {
        defer { nextPid += 1 }
        return nextPid
    }

    func takeLife(_ role: ProcessName.Role) -> Int {
        lives[role, default: 0] += 1
        return lives[role, default: 0]
    }

    /// How long after a process's end its pidfd becomes readable.
    func pidfdDelay() -> UInt64 {
        random.nanoseconds(0...(random.chance(50) ? 100 * .microsecond : 5 * .millisecond))
    }

    /// systemd, or a person: the system is there again some time after its end.
    func startStarter() {
        guard !isDown, starter?.isAlive != true else { return }
        starter = SimulatedStarter(self, life: takeLife(.starter))
    }

    func starterEnded(_ ended: SimulatedStarter) {
        after(random.nanoseconds(100 * .millisecond...1 * .second)) { [self] in startStarter() }
    }

    /// The processes that this Starter started, and that live.
    func started(by starter: SimulatedStarter) -> [SimulatedProcess] {
        var children: [SimulatedProcess] = []
        if let broker, broker.starter === starter { children.append(broker) }
        for worker in livingWorkers where worker.starter === starter { children.append(worker) }
        return children
    }

    func startBroker(by starter: SimulatedStarter) -> SimulatedProcess {
        let broker = SimulatedBroker(self, life: takeLife(.broker), by: starter)
        self.broker = broker
        return broker
    }

    func brokerEnded(_ ended: SimulatedBroker) {
        after(pidfdDelay()) { ended.starter?.childEnded(ended) }
    }

    func storageStarted(_ storage: SimulatedStorage) {
        storages.removeAll { !$0.isAlive }
        storages.append(storage)
    }

    /// The Broker's pidfd of its child becomes ready.
    func storageEnded(_ storage: SimulatedStorage) {
        after(pidfdDelay()) {
            if let parent = storage.parent, parent.child === storage { parent.storageEnded() }
        }
    }

    /// Whether somebody else holds the store's lock.
    func isStoreTaken(but storage: SimulatedStorage) -> Bool {
        storages.contains { $0 !== storage && $0.isAlive && $0.log != nil }
    }

    /// The store could not be opened.
    func storeFailed(_ storage: SimulatedStorage, _ error: AppendLogError) {
        noteArmed()
        if hasRot { return reportDamage() }
        guard isDiskFault(error) else {
            return checker.fail("the store can't be opened: \(error)")
        }
        storage.end("the store can't be opened: \(error)", .exited(code: 74))
    }

    func startWorker(_ number: Int, by starter: SimulatedStarter) -> SimulatedProcess {
        let life = (workers[number]?.name.life ?? 0) + 1
        let worker = SimulatedWorker(
            self,
            number: number,
            life: life,
            scenario.workers[number],
            by: starter
        )
        workers[number] = worker
        return worker
    }

    /// From here on all workers can be watched: heartbeats would never let the world come to rest, and a task
    /// that ends its process does so for ever where no death is counted.
    func endRemoteWorkers() {
        for case let worker? in workers where worker.isAlive && worker.isRemote {
            count(.killWorker)
            worker.end("kill -9")
        }
    }

    func workerEnded(_ worker: SimulatedWorker) {
        after(pidfdDelay()) { [self] in broker?.workerEnded(worker) }
        after(pidfdDelay()) { worker.starter?.childEnded(worker) }
    }

    /// The process that this is, if it lives.
    func livingWorker(_ process: WorkerProcess) -> SimulatedWorker? {
        workers.compactMap { $0 }.first { $0.isAlive && $0.process == process }
    }

    /// The worker of that name, if it lives.
    func livingWorker(_ id: WorkerID) -> SimulatedWorker? {
        workers.compactMap { $0 }.first { $0.isAlive && $0.id == id }
    }

    func startClient(_ number: Int) {
        guard clients[number]?.isAlive != true else { return }
        let life = (clients[number]?.name.life ?? 0) + 1
        clients[number] = SimulatedClient(self, number: number, life: life)
    }

    /// A client comes back and adds once more what nobody has told him is there.
    func restartClient(_ number: Int) {
        after(random.nanoseconds(300 * .millisecond...700 * .millisecond)) { [self] in
            guard !isDown else { return restartClient(number) }
            guard clients[number]?.isAlive != true else { return }
            startClient(number)
            guard let client = clients[number] else { return }
            for step in scenario.steps where step.client == number && step.at <= time {
                guard case .add(let tasks, _) = step.deed else { continue }
                let missing = tasks.filter {
                    !checker.isAcknowledged(scenario.tasks[$0].submission.id)
                }
                if !missing.isEmpty { add(missing, waits: random.chance(50), by: client) }
            }
        }
    }
}
