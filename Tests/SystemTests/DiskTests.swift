// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import QTasks
import Testing

extension `A running system` {
    /// Promise P9.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `A full disk` {
        private nonisolated static let isRoot = geteuid() == 0

        @Test(.enabled(if: isRoot, "only root can mount a file system of a few MiB"))
        func `refuses adds with the reason, loses nothing, and is over when there is room again`()
            async throws
        {
            try await Bed.use { bed in
                mkdir(bed.home, 0o700)
                let size = "size=8m"
                guard mount("tmpfs", bed.home, "tmpfs", 0, size) == 0 else {
                    try Test.cancel("no file system can be mounted here: errno \(errno)")
                }
                let system = try bed.system()
                let holding = try bed.add("hold", "\"held\"")
                try bed.waitForEvents("hold")
                let before = try system.members()

                let filler = bed.home + "/filler"
                Self.fill(filler)
                let argument = "\"" + String(repeating: "x", count: 100_000) + "\""
                var accepted: [String] = []
                var refusal: Finished?
                for _ in 0..<40 where refusal == nil {
                    let all = ["add", "echo", argument, "--home", bed.home, "--timeout", "0.5"]
                    let added = try bed.run(Tool.testTasks.path, all)
                    if added.code == 0 {
                        accepted.append(added.output.trimmingWhitespace)
                    } else {
                        refusal = added
                    }
                }
                let refused = try #require(refusal)
                #expect(refused.code == 75)
                #expect(refused.log.contains("space"), "\(refused.log)")
                #expect(try bed.command("ping").code == 0)

                unlink(filler)
                let after = try bed.add("echo", "\"after\"", "--timeout", "10")
                bed.openGate()
                for id in accepted + [after, holding] {
                    #expect(try bed.finalRecord(id)["status"].text == "success")
                }
                #expect(try bed.record(holding)["attempt"].integer == 1)
                #expect(try system.members() == before)
                #expect(try system.stop().code == 0)
            }
        }

        /// Writes until there is no byte left.
        private static func fill(_ path: String) {
            let descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
            defer { close(descriptor) }
            let chunk = [UInt8](repeating: 1, count: 4096)
            while write(descriptor, chunk, chunk.count) > 0 {}
        }
    }
}
