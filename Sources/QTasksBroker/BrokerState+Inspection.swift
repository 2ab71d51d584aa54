// Part of QTasks. License: see LICENSE.
//
// What `stats inspect` shows.

import QTasksModel
import QTasksWire

extension BrokerState {
    /// What can be asked for.
    static let topics = ["app", "tasks", "workers", "queues"]

    mutating func inspect(_ topic: String, number: UInt64, session: Session) {
        switch topic {
        case "app": answer(appJSON, number, session)
        case "workers": answer(workersJSON, number, session)
        case "tasks", "queues":
            let count = takeNumber()
            clients.counts[count] = (session, number, topic)
            propose(.count(number: count))
        default:
            let known = Self.topics.joined(separator: ", ")
            let refusal = Refusal(.badOption, "there is no topic '\(topic)': \(known)")
            clients.send(ErrorMessage.encoded(refusal, number: number), to: session)
        }
    }

    mutating func countsRead(_ number: UInt64, _ bytes: UnsafeRawBufferPointer) {
        guard let asked = clients.counts.removeValue(forKey: number) else { return }
        var reader = WireReader(bytes)
        var counts: [TaskCounts] = []
        while !reader.isAtEnd {
            guard let count = try? TaskCounts(from: &reader) else { break }
            counts.append(count)
        }
        let json = asked.topic == "tasks" ? tasksJSON(counts) : queuesJSON(counts)
        answer(json, asked.number, asked.session)
    }

    private mutating func answer(_ json: [UInt8], _ number: UInt64, _ session: Session) {
        var writer = WireWriter(.inspected, number: number, reserving: 16 + json.count)
        writer.raw(json)
        clients.send(writer.bytes, to: session)
    }

    // MARK: app

    private var appJSON: [UInt8] {
        var json = JSONText()
        json.object { json in
            json.member("home", settings.home)
            json.member("incarnation", Int(storage.incarnation))
            json.member("protocol", Int(MessageHeader.version))
            json.member("stopping", stopping.isUnderWay)
            json.key("processes")
            json.array { json in
                process("starter", settings.parentPid, parent: nil, to: &json)
                process("broker", settings.pid, parent: settings.parentPid, to: &json)
                process("storage", storage.pid, parent: settings.pid, to: &json)
                process("globalconfig", storage.globalConfigPid, parent: storage.pid, to: &json)
                for number in roster.all where roster[number].session != nil {
                    let worker = roster[number]
                    process("worker", worker.process.pid, parent: worker.parentPid, to: &json)
                }
            }
        }
        return json.bytes
    }

    private func process(_ role: String, _ pid: Int32, parent: Int32?, to json: inout JSONText) {
        guard pid > 0 else { return }
        json.object { json in
            json.member("role", role)
            json.member("pid", Int(pid))
            if let parent { json.member("parent", Int(parent)) }
        }
    }

    // MARK: workers

    private var workersJSON: [UInt8] {
        var json = JSONText()
        json.object { json in
            json.member("deaths", Int(clamping: deaths))
            json.key("workers")
            json.array { json in
                for number in roster.all { worker(roster[number], to: &json) }
            }
        }
        return json.bytes
    }

    private func worker(_ worker: WorkerEntry, to json: inout JSONText) {
        json.object { json in
            json.member("id", worker.id.description)
            // a remote one's numbers are other processes' here
            if !worker.isRemote {
                json.member("pid", Int(worker.process.pid))
                json.member("parent", Int(worker.parentPid))
            }
            json.member("remote", worker.isRemote)
            json.member("connected", worker.session != nil)
            json.member("leaving", worker.isLeaving)
            json.member("slots", worker.slots)
            json.member("running", worker.leases.count)
            json.member("credit", max(0, worker.credit))
            json.key("names")
            json.array { json in
                for name in worker.names.sorted() { json.string(name) }
            }
        }
    }

    // MARK: tasks and queues

    private func tasksJSON(_ counts: [TaskCounts]) -> [UInt8] {
        var workers: [String: Int] = [:]
        for number in roster.all where roster[number].session != nil {
            for name in roster[number].names { workers[name, default: 0] += 1 }
        }
        var sums: [String: [UInt64]] = [:]
        for count in counts { add(count.byStatus, to: &sums[count.name]) }
        for name in workers.keys where sums[name] == nil { sums[name] = [] }
        var json = JSONText()
        json.object { json in
            json.key("tasks")
            json.array { json in
                for (name, sum) in sums.sorted(by: { $0.key < $1.key }) {
                    json.object { json in
                        json.member("name", name)
                        json.member("workers", workers[name] ?? 0)
                        add(sum, to: &json)
                    }
                }
            }
        }
        return json.bytes
    }

    private func queuesJSON(_ counts: [TaskCounts]) -> [UInt8] {
        var sums: [String: [UInt64]] = [:]
        for count in counts { add(count.byStatus, to: &sums[count.queue]) }
        var unroutable: [String: Int] = [:]
        for (number, lane) in lanes.open where lanes.workers(of: number) == 0 {
            unroutable[lane.key.queue, default: 0] += lane.waiting
            if sums[lane.key.queue] == nil { sums[lane.key.queue] = [] }
        }
        for queue in lanes.allQueues where sums[queue.name] == nil { sums[queue.name] = [] }
        var json = JSONText()
        json.object { json in
            json.key("queues")
            json.array { json in
                for (queue, sum) in sums.sorted(by: { $0.key < $1.key }) {
                    json.object { json in
                        json.member("queue", queue)
                        json.member("unroutable", unroutable[queue] ?? 0)
                        lanes.rules(of: queue).write(to: &json)
                        add(sum, to: &json)
                    }
                }
            }
        }
        return json.bytes
    }

    private func add(_ counts: [UInt64], to sum: inout [UInt64]?) {
        var total = sum ?? Array(repeating: 0, count: counts.count)
        for (index, count) in counts.enumerated() { total[index] += count }
        sum = total
    }

    private func add(_ counts: [UInt64], to json: inout JSONText) {
        for status in TaskStatus.allCases {
            let index = Int(status.code) - 1
            let count = index < counts.count ? counts[index] : 0
            json.member(status.rawValue, Int(clamping: count))
        }
    }
}
