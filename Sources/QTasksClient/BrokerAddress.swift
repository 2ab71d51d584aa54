// Part of QTasks. License: see LICENSE.

package import QTasksModel
import QTasksProcess

/// Where a Broker is, and what to say where it isn't.
package struct BrokerAddress: Sendable {
    /// Such as `ipc:///srv/q/sockets/clients`.
    package let endpoint: String

    /// What errors call it, such as `the system at /srv/q`.
    package let description: String

    /// Why no Broker can be there; `nil` where one is, or may come.
    package let absence: @Sendable () -> QTasksError?

    /// A Broker that may be there, at an endpoint.
    package static func endpoint(_ endpoint: String) -> BrokerAddress {
        BrokerAddress(
            endpoint: endpoint,
            description: "the system at \(endpoint)",
            absence: { nil }
        )
    }

    /// The Broker of a system on this host.
    ///
    /// With `waitForSystem` a system that isn't running yet is waited for; else calls fail with
    /// ``QTasksError/Code/noSystem``.
    ///
    /// - Throws: ``QTasksError/Code/badHome``.
    package static func home(
        _ path: String,
        waitForSystem: Bool = false
    ) throws(QTasksError) -> BrokerAddress {
        do throws(ProcessError) {
            let home = try HomeDirectory(path)
            return BrokerAddress(
                endpoint: home.endpoint(.clients),
                description: "the system at \(home.path)",
                absence: { waitForSystem ? nil : absence(of: home) }
            )
        } catch {
            throw QTasksError(.badHome, "'\(path)' can't be a home directory", cause: error)
        }
    }

    private static func absence(of home: HomeDirectory) -> QTasksError? {
        do throws(ProcessError) {
            if try LockFile.holder(of: home.lockPath) != nil { return nil }
        } catch .homeInUse {
            return nil  // it has just begun
        } catch {
            return QTasksError(.badHome, "cannot look into \(home.path)", cause: error)
        }
        return QTasksError(
            .noSystem,
            "no system runs at \(home.path); start one with 'run --home \(home.path)', "
                + "or name another with --home or QTASKS_HOME"
        )
    }
}
