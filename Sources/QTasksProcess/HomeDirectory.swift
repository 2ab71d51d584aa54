// Part of QTasks. License: see LICENSE.

import Glibc

/// Where one system lives: its locks, its store, its settings and its sockets.
///
/// ```
/// HOME/lock            the Starter's      HOME/store/     the append log of tasks
/// HOME/broker.lock     the Broker's       HOME/config/    the log of settings
/// HOME/sockets         a folder with the six sockets; where its path is too long for a Unix
///                      socket, a link to a folder under TMPDIR, which the Starter makes
/// ```
package struct HomeDirectory: Sendable {
    /// The longest path of a Unix socket: `sun_path` has 108 bytes with its NUL.
    ///
    /// See `unix(7)`.
    static let socketPathBytesMax = 107

    /// Absolute, and without links as far as it exists.
    package let path: String

    /// The user it belongs to; this process's where there is no home yet.
    let owner: uid_t

    /// Where the sockets are, or will be.
    package private(set) var socketsPath: String

    package var lockPath: String { path + "/lock" }
    package var brokerLockPath: String { path + "/broker.lock" }
    package var storePath: String { path + "/store" }
    package var configPath: String { path + "/config" }

    /// Where `HOME/sockets` is a link, because the sockets are elsewhere.
    package var hasSocketsElsewhere: Bool { socketsPath != ownSocketsPath }

    private var ownSocketsPath: String { path + "/sockets" }

    /// Takes what `--home` said; touches nothing.
    ///
    /// - Throws: `ENOENT` where the working directory is gone and `path` is relative to it;
    ///   ``ProcessError/unusableHome(path:reason:remedy:)`` for an empty path.
    package init(_ path: String) throws(ProcessError) {
        guard !path.isEmpty, !path.utf8.contains(0) else {
            throw .unusableHome(path: "''", reason: "is no path", remedy: "name a folder")
        }
        self.path = try CanonicalPath.of(path)
        owner = FolderCheck.owner(of: self.path) ?? geteuid()
        socketsPath = ""
        let own = ownSocketsPath
        if own.utf8.count + 1 + Self.longestNameBytes <= Self.socketPathBytesMax {
            socketsPath = own
        } else {
            socketsPath = CanonicalPath.target(ofLink: own) ?? folderElsewhere()
        }
    }

    /// The address of a socket for ZeroMQ.
    package func endpoint(_ endpoint: SystemEndpoint) -> String {
        "ipc://" + socketPath(endpoint)
    }

    /// The file of a socket.
    package func socketPath(_ endpoint: SystemEndpoint) -> String {
        socketsPath + "/" + endpoint.rawValue
    }

    /// Makes the home and the folder of the sockets where they are missing, and checks them where
    /// they are there.
    ///
    /// The Starter, before it takes the lock: what a running system uses stays as it is.
    ///
    /// - Throws: ``ProcessError/unusableHome(path:reason:remedy:)`` where a part belongs to another
    ///   user or isn't a folder; the error of `mkdir(2)`, such as `EACCES` or `ENOSPC`.
    package mutating func prepare() throws(ProcessError) {
        try FolderCheck.makeAll(path)
        try FolderCheck.requireOwn(path)
        if hasSocketsElsewhere {
            try prepareSocketsElsewhere()
        } else {
            try FolderCheck.makePrivate(socketsPath)
        }
    }

    /// Makes sure that the sockets are where nobody else could have put them.
    ///
    /// Whoever connects.
    ///
    /// - Throws: ``ProcessError/unusableHome(path:reason:remedy:)`` where the folder belongs to
    ///   someone other than the home's owner, or is open to others; `ENOENT` where there is none.
    package func checkSockets() throws(ProcessError) {
        try FolderCheck.requirePrivate(socketsPath, owner: owner)
    }

    /// Unlinks one socket's file: libzmq leaves it behind.
    ///
    /// Whoever bound it, and holds the lock for it.
    package func removeSocket(_ endpoint: SystemEndpoint) {
        unlink(socketPath(endpoint))
    }

    /// Unlinks the files of all sockets.
    ///
    /// The Starter, before it starts anything and after all has ended.
    package func removeSockets() {
        for endpoint in SystemEndpoint.allCases { removeSocket(endpoint) }
    }

    /// Unlinks the sockets, and the folder elsewhere if there is one.
    ///
    /// The Starter, last.
    package func cleanUp() {
        removeSockets()
        guard hasSocketsElsewhere else { return }
        rmdir(socketsPath)
        unlink(ownSocketsPath)
    }

    private static let longestNameBytes =
        SystemEndpoint.allCases.map(\.rawValue.utf8.count).max() ?? 0

    /// Under TMPDIR, or under /tmp where that is too long itself.
    private func folderElsewhere() -> String {
        let name = "/qtasks-\(owner)-\(Hexadecimal.text(FNV1a.hash(path.utf8)))"
        let temporary = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        let bytes = temporary.utf8.count + name.utf8.count + 1 + Self.longestNameBytes
        let isUsable = temporary.hasPrefix("/") && bytes <= Self.socketPathBytesMax
        return (isUsable ? temporary : "/tmp") + name
    }

    /// A link that leads to a sound folder stays: a running system may use it.
    ///
    /// One that doesn't, after a reboot emptied /tmp, is made anew, and leads to this process's
    /// TMPDIR.
    private mutating func prepareSocketsElsewhere() throws(ProcessError) {
        if CanonicalPath.target(ofLink: ownSocketsPath) != nil, (try? checkSockets()) != nil {
            return
        }
        socketsPath = folderElsewhere()
        try FolderCheck.makePrivate(socketsPath)
        unlink(ownSocketsPath)
        guard symlink(socketsPath, ownSocketsPath) == 0 else {
            throw .last("symlink", ownSocketsPath)
        }
    }
}

/// 64-bit FNV-1a: the same in every process and release, which Swift's `Hasher` isn't.
enum FNV1a {
    static func hash(_ bytes: some Sequence<UInt8>) -> UInt64 {
        bytes.reduce(0xcbf2_9ce4_8422_2325) { hash, byte in
            (hash ^ UInt64(byte)) &* 0x100_0000_01b3
        }
    }
}
