// Part of QTasks. License: see LICENSE.

/// The sockets of one system, by who uses them.
///
/// Each is a file of this name.
package enum SystemEndpoint: String, CaseIterable, Sendable {
    /// Broker's ROUTER for clients.
    case clients
    /// Broker's ROUTER for workers.
    case workers
    /// Storage's PULL for results.
    case results
    /// Storage's ROUTER for the Broker.
    case storage
    /// GlobalConfig's ROUTER: get, set, snapshot.
    case config
    /// GlobalConfig's XPUB.
    case configUpdates = "config-updates"
}
