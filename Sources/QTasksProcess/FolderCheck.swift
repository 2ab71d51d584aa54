// Part of QTasks. License: see LICENSE.

import Glibc

/// Folders that only their owner may enter.
enum FolderCheck {
    private static let privateMode: mode_t = 0o700

    /// Who owns what is at `path`; `nil` where there is nothing.
    static func owner(of path: String) -> uid_t? {
        var status = stat()
        return stat(path, &status) == 0 ? status.st_uid : nil
    }

    /// Makes the folder, for its owner alone, and those above it with the usual mode.
    static func makeAll(_ path: String) throws(ProcessError) {
        guard mkdir(path, privateMode) != 0, errno != EEXIST else { return }
        guard errno == ENOENT else { throw .last("mkdir", path) }
        try makeParents(of: path)
        guard mkdir(path, privateMode) == 0 || errno == EEXIST else { throw .last("mkdir", path) }
    }

    private static func makeParents(of path: String) throws(ProcessError) {
        var next = path.dropFirst().firstIndex(of: "/")
        while let slash = next {
            let parent = String(path[..<slash])
            // EEXIST and, on read-only file systems, EROFS come for those that are there.
            if mkdir(parent, 0o777) != 0, access(parent, F_OK) != 0 {
                throw .last("mkdir", parent)
            }
            next = path[slash...].dropFirst().firstIndex(of: "/")
        }
    }

    /// Makes the folder, or makes one of this user's private.
    ///
    /// - Throws: ``ProcessError/unusableHome(path:reason:remedy:)`` where it is someone else's, or
    ///   no folder.
    static func makePrivate(_ path: String) throws(ProcessError) {
        guard mkdir(path, privateMode) == 0 || errno == EEXIST else { throw .last("mkdir", path) }
        try requireOwnFolder(path, owner: geteuid())
        // A umask can have taken bits away, an older hand can have added some.
        guard chmod(path, privateMode) == 0 else { throw .last("chmod", path) }
    }

    /// - Throws: ``ProcessError/unusableHome(path:reason:remedy:)`` where `path` is someone else's
    ///   or no folder.
    static func requireOwn(_ path: String) throws(ProcessError) {
        try requireOwnFolder(path, owner: geteuid())
    }

    /// - Throws: ``ProcessError/unusableHome(path:reason:remedy:)`` where `path` isn't `owner`'s,
    ///   isn't a folder, or lets others in.
    static func requirePrivate(_ path: String, owner: uid_t) throws(ProcessError) {
        let mode = try requireOwnFolder(path, owner: owner)
        guard mode & 0o077 == 0 else {
            throw .unusableHome(
                path: path,
                reason: "is open to other users",
                remedy: "run chmod 700 on it"
            )
        }
    }

    /// `lstat`: under /tmp a link could be anybody's and lead anywhere.
    @discardableResult
    private static func requireOwnFolder(
        _ path: String,
        owner: uid_t
    ) throws(ProcessError) -> mode_t {
        var status = stat()
        guard lstat(path, &status) == 0 else { throw .last("lstat", path) }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            throw .unusableHome(path: path, reason: "is not a folder", remedy: "move it away")
        }
        guard status.st_uid == owner else {
            throw .unusableHome(
                path: path,
                reason: "belongs to user \(status.st_uid), not to user \(owner)",
                remedy: "run as that user, or use another --home or TMPDIR"
            )
        }
        return status.st_mode
    }
}
