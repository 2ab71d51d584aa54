// Part of QTasks. License: see LICENSE.

import ArgumentParser
import Glibc
import QTasksModel

/// What every command takes: where the system lives.
struct HomeOptions: ParsableArguments {
    @Option(help: "The system's home directory; else $QTASKS_HOME, else .qtasks here.")
    var home: String?

    /// The program's tasks, at the home that was asked for.
    var app: QueueTasks {
        let app = CommandContext.app
        if let home { app.use(home: home) }
        return app
    }
}

/// How a system is set up.
///
/// Each flag has an environment variable, such as QTASKS_SLOTS.
struct ConfigOptions: ParsableArguments {
    @Option(
        help: "Worker processes. (default: one a core; 0 without tasks or --worker-command)"
    )
    var workers: String?

    @Option(
        name: .customLong("worker-command"),
        help: """
            A program to run as each worker, in whatever language, by /bin/sh -c 'exec COMMAND'; it finds \
            the system by QTASKS_HOME. (default: this executable)
            """
    )
    var workerCommand: String?

    @Option(help: "Tasks that one worker runs at once. (default: 10)")
    var slots: String?

    @Option(help: "Seconds that running tasks may take when stopping. (default: 10)")
    var grace: String?

    @Option(
        name: .customLong("kill-after"),
        help: """
            Seconds that a handler may go on past its time limit or its task's cancel before its worker gets \
            SIGTERM, and then before it gets SIGKILL. (default: 1)
            """
    )
    var killAfter: String?

    @Option(
        help: """
            What an acknowledgement has survived: synced, written, or interval:MS (written, and synced \
            so many milliseconds later). (default: synced)
            """
    )
    var durability: String?

    @Option(
        name: .customLong("max-deliveries"),
        help: "Deaths of workers that make a task dead. (default: 3)"
    )
    var maxDeliveries: String?

    @Option(
        name: .customLong("max-payload"),
        help: "Largest arguments and results in bytes. (default: 16777216)"
    )
    var maxPayload: String?

    @Option(
        name: .customLong("max-queued"),
        help: "Tasks that may wait at once. (default: no bound but disk)"
    )
    var maxQueued: String?

    @Option(
        help: """
            How long finished tasks are kept, AGE[/AGE][,COUNT] such as 24h or 2d/30d,100000 (the second \
            age is for error and dead); NAME=... for one task. May be given several times. (default: \
            24h/7d)
            """
    )
    var retention: [String] = []

    @Option(
        help: "Bytes that the store may take on disk, such as 10GiB. (default: no bound but disk)"
    )
    var quota: String?

    @Option(
        help: "How far back the log keeps what happened: AGE,BYTES, or 0. (default: 24h,1GiB)"
    )
    var history: String?

    @Option(
        name: .customLong("recycle-tasks"),
        help: "Replace a worker after so many tasks. (default: never)"
    )
    var recycleTasks: String?

    @Option(
        name: .customLong("recycle-rss"),
        help: "Replace a worker that has so many bytes in memory after a task. (default: never)"
    )
    var recycleRSS: String?

    @Option(
        name: .customLong("limit-as"),
        help: "Bytes of address space that a worker may have, such as 2GiB. (default: no bound)"
    )
    var limitAddressSpace: String?

    @Option(
        name: .customLong("limit-cpu"),
        help: "Seconds of CPU that a worker may use in its life. (default: as it is here)"
    )
    var limitCPU: String?

    @Option(
        name: .customLong("limit-nofile"),
        help: "Descriptors that a worker may have open. (default: as it is here)"
    )
    var limitOpenFiles: String?

    @Option(help: "How far workers stand back behind other programs, 0 to 19. (default: 0)")
    var nice: String?

    @Option(help: "A further endpoint for clients, such as tcp://127.0.0.1:5570; loopback only.")
    var listen: String?

    @Option(
        name: .customLong("log-level"),
        help: "trace, debug, info, notice, warning, error, critical. (default: info)"
    )
    var logLevel: String?

    /// The program's settings, then the environment's, then the flags'.
    ///
    /// - Throws: `QTasksError.badConfiguration` naming the flag or variable.
    func config(of app: QueueTasks) throws(QTasksError) -> QueueConfig {
        var config = try app.config.merging()
        let flags: [(QueueConfig.Setting, String?)] = [
            (.workers, workers), (.workerCommand, workerCommand), (.slots, slots), (.grace, grace),
            (.killAfter, killAfter),
            (.durability, durability),
            (.maxDeliveries, maxDeliveries), (.maxPayload, maxPayload), (.maxQueued, maxQueued),
            (.retention, retention.isEmpty ? nil : retention.joined(separator: ";")),
            (.quota, quota), (.history, history), (.listen, listen), (.logLevel, logLevel),
            (.recycleTasks, recycleTasks), (.recycleRSS, recycleRSS),
            (.limitAddressSpace, limitAddressSpace), (.limitCPU, limitCPU),
            (.limitOpenFiles, limitOpenFiles), (.nice, nice),
        ]
        for (setting, text) in flags {
            if let text { try config.set(setting, to: text, saying: "--\(setting.rawValue)") }
        }
        try config.check()
        return config
    }
}

/// Seconds as people write them: `2`, `0.5`.
struct Seconds: ExpressibleByArgument {
    let duration: Duration

    init?(argument: String) {
        guard let seconds = Double(argument), seconds >= 0, seconds < 1e9 else { return nil }
        duration = .milliseconds(Int64(seconds * 1000))
    }
}
