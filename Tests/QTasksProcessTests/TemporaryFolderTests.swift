// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import QTasksProcess

@Suite struct `A temporary folder` {
    private func isThere(_ path: String) -> Bool {
        var about = stat()
        return lstat(path, &about) == 0
    }

    @Test func `goes with its owner, and with all that is in it`() throws {
        let kept = try TemporaryFolder()
        try #require(mkdir(kept.path + "/inner", 0o700) == 0)
        var path = ""
        do {
            let folder = try TemporaryFolder("named")
            path = folder.path
            #expect(path.hasPrefix("\(TemporaryFolder.parent)/named-"))
            try #require(mkdir(path + "/a", 0o700) == 0)
            try #require(mkdir(path + "/a/b", 0o700) == 0)
            try #require(mkfifo(path + "/a/pipe", 0o600) == 0)
            try #require(symlink(kept.path, path + "/a/link") == 0)
            // a name that is no text
            try #require(mkfifo(Array(path.utf8CString.dropLast()) + [0x2F, -1, 0], 0o600) == 0)
        }
        #expect(!isThere(path))
        #expect(isThere(kept.path + "/inner"), "what a link leads to stays")
    }

    @Test func `that can't be made tells where`() {
        #expect(
            throws: ProcessError.system(
                call: "mkdtemp",
                subject: TemporaryFolder.parent,
                code: ENOENT
            )
        ) {
            _ = try TemporaryFolder("no/such")
        }
    }
}
