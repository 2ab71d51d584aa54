// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import QTasksProcess

@Suite struct `A home directory` {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    private func mode(of path: String) -> mode_t? {
        var status = stat()
        return lstat(path, &status) == 0 ? status.st_mode & 0o7777 : nil
    }

    /// A path that leaves no room for a socket's name in `sun_path`.
    private var longPath: String { folder.path + "/" + String(repeating: "x", count: 90) }

    @Test func `is made for its owner alone, with what is above it`() throws {
        var home = try HomeDirectory(folder.path + "/a/b/home")
        #expect(mode(of: home.path) == nil, "naming it makes nothing")
        try home.prepare()
        try home.prepare()
        #expect(mode(of: home.path) == 0o700)
        #expect(mode(of: home.path + "/sockets") == 0o700)
        #expect(home.endpoint(.clients) == "ipc://\(folder.path)/a/b/home/sockets/clients")
        #expect(home.lockPath == folder.path + "/a/b/home/lock")
        try home.checkSockets()
    }

    @Test func `has one path, however it is written`() throws {
        var home = try HomeDirectory(folder.path + "/./no/../home//")
        #expect(home.path == folder.path + "/home")
        try home.prepare()
        try #require(symlink(home.path, folder.path + "/link") == 0)
        #expect(try HomeDirectory(folder.path + "/link").path == home.path)
        #expect(try HomeDirectory("relative/x").path.hasSuffix("/relative/x"))
        #expect(try HomeDirectory("/").path == "/")
        #expect(try HomeDirectory("/no-such-folder/../..").path == "/")
    }

    @Test func `closes a folder for sockets that was open`() throws {
        var home = try HomeDirectory(folder.path)
        try #require(mkdir(folder.path + "/sockets", 0o777) == 0)
        try #require(chmod(folder.path + "/sockets", 0o777) == 0)
        #expect(throws: ProcessError.self) { try home.checkSockets() }
        try home.prepare()
        #expect(mode(of: folder.path + "/sockets") == 0o700)
    }

    @Test func `that is a file is refused with a remedy`() throws {
        let path = folder.path + "/file"
        close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0o600))
        var home = try HomeDirectory(path)
        let error = ProcessError.unusableHome(
            path: path,
            reason: "is not a folder",
            remedy: "move it away"
        )
        #expect(throws: error) { try home.prepare() }
    }

    @Test(.enabled(if: geteuid() == 0, "only root can give a folder away"))
    func `of another user is refused`() throws {
        try #require(chown(folder.path, 12345, 12345) == 0)
        var home = try HomeDirectory(folder.path)
        #expect(throws: ProcessError.self) { try home.prepare() }
    }

    @Test func `with a long path has its sockets elsewhere, and a link to them`() throws {
        var home = try HomeDirectory(longPath)
        try home.prepare()
        defer { home.cleanUp() }
        #expect(home.hasSocketsElsewhere)
        #expect(home.socketPath(.configUpdates).utf8.count <= HomeDirectory.socketPathBytesMax)
        #expect(mode(of: home.socketsPath) == 0o700)
        #expect(try HomeDirectory(longPath).socketsPath == home.socketsPath)
        let hash = Hexadecimal.text(FNV1a.hash(longPath.utf8))
        #expect(home.socketsPath.hasSuffix("/qtasks-\(geteuid())-\(hash)"))
    }

    @Test func `keeps the folder that its link leads to, whatever TMPDIR says`() throws {
        try #require(mkdir(longPath, 0o700) == 0)
        let elsewhere = folder.path + "/elsewhere"
        try #require(mkdir(elsewhere, 0o700) == 0)
        try #require(symlink(elsewhere, longPath + "/sockets") == 0)
        var home = try HomeDirectory(longPath)
        try home.prepare()
        #expect(home.socketsPath == elsewhere)
        home.cleanUp()
        #expect(mode(of: elsewhere) == nil)
        #expect(mode(of: longPath + "/sockets") == nil)
    }

    @Test func `replaces a link that leads nowhere`() throws {
        try #require(mkdir(longPath, 0o700) == 0)
        try #require(symlink(folder.path + "/gone", longPath + "/sockets") == 0)
        var home = try HomeDirectory(longPath)
        try home.prepare()
        defer { home.cleanUp() }
        #expect(home.socketsPath != folder.path + "/gone")
        #expect(CanonicalPath.target(ofLink: longPath + "/sockets") == home.socketsPath)
    }

    @Test(.enabled(if: geteuid() == 0, "only root can give a folder away"))
    func `with a long path refuses a folder for sockets that someone else made`() throws {
        var home = try HomeDirectory(longPath)
        try #require(mkdir(home.socketsPath, 0o777) == 0)
        defer { rmdir(home.socketsPath) }
        try #require(chown(home.socketsPath, 12345, 12345) == 0)
        #expect(throws: ProcessError.self) { try home.prepare() }
    }

    @Test func `removes sockets and nothing else`() throws {
        var home = try HomeDirectory(folder.path)
        try home.prepare()
        for path in [home.socketPath(.clients), home.socketPath(.results), home.socketsPath + "/x"]
        {
            close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0o600))
        }
        home.removeSockets()
        #expect(mode(of: home.socketPath(.clients)) == nil)
        #expect(mode(of: home.socketPath(.results)) == nil)
        #expect(mode(of: home.socketsPath + "/x") != nil)
    }

    @Test func `hash is FNV-1a`() {
        #expect(FNV1a.hash("".utf8) == 0xcbf2_9ce4_8422_2325)
        #expect(FNV1a.hash("foobar".utf8) == 0x8594_4171_f739_67e8)
    }
}
