// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import QTasksProcess

@Suite struct `A role's handover` {
    private static let odd = RoleHandover(
        role: "storage",
        parent: 4711,
        runID: RunID.make(),
        settings: [
            "plain": "value",
            "": "empty name",
            "empty": "",
            "a=b\\c\nd": "=x\n\ny\\n\\=",
            "größe": "zwölf \u{1F600} e\u{301} \r\n\t",
        ]
    )

    @Test func `is the same after the way through an environment`() throws {
        let read = try RoleHandover(environment: Self.odd.environment)
        #expect(read == Self.odd)
        #expect(Set(Self.odd.environment.keys) == RoleHandover.variableNames)
    }

    @Test func `is taken once and leaves no variable behind`() async {
        await #expect(processExitsWith: .success) {
            #expect(!RoleHandover.isPending)
            let nothing = try RoleHandover.take()
            #expect(nothing == nil)
            let sent = RoleHandover(role: "worker", parent: 1, runID: "ab", settings: ["a=": "\n"])
            for (name, value) in sent.environment { setenv(name, value, 1) }
            #expect(RoleHandover.isPending)
            let taken = try RoleHandover.take()
            #expect(taken == sent)
            #expect(!RoleHandover.isPending)
            for name in RoleHandover.variableNames { #expect(getenv(name) == nil) }
        }
    }

    @Test func `reaches a child unchanged`() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/settings"
        let child = try ChildProcess.spawn(
            executable: "/bin/sh",
            arguments: ["-c", #"printf '%s' "$QTASKS_SETTINGS" >"$0""#, path],
            environment: Self.odd.environment
        )
        #expect(waitForEnd(child)?.cause == .exited(code: 0))
        let text = try #require(SmallFile.text(at: path))
        #expect(SettingLines.parse(text) == Self.odd.settings)
    }

    @Test(arguments: ["a", "a=b", "a=b=c\n", "a\n", "a=b\n\\", "=\nx"])
    func `with broken settings is refused`(text: String) {
        #expect(SettingLines.parse(text) == nil)
        var variables = Self.odd.environment
        variables["QTASKS_SETTINGS"] = text
        #expect(throws: ProcessError.self) { try RoleHandover(environment: variables) }
    }

    @Test(arguments: ["QTASKS_PARENT", "QTASKS_RUN"])
    func `without one of its parts is refused`(name: String) {
        var variables = Self.odd.environment
        variables[name] = nil
        #expect(throws: ProcessError.self) { try RoleHandover(environment: variables) }
    }
}

@Suite struct `A thread of our own` {
    @Test func `is waited for without holding one of Swift's`() async throws {
        let name = try await RoleThread.runToEnd(name: "a-role-with-a-long-name") {
            SmallFile.text(at: "/proc/thread-self/comm")
        }
        #expect(name == .success("a-role-with-a-l\n"))
    }

    @Test func `passes on what its body throws`() async throws {
        let error = ProcessError.badHandover("x")
        let result = try await RoleThread.runToEnd(name: "thrower") { () throws(ProcessError) in
            throw error
        }
        guard case .failure(error) = result else {
            Issue.record("the error was lost")
            return
        }
    }

    @Test func `has 8 MiB of stack whatever the limit says`() async throws {
        typealias Ask = @convention(c) (pthread_t, UnsafeMutablePointer<pthread_attr_t>) -> Int32
        let size = try await RoleThread.runToEnd(name: "stack") {
            // Not in Swift's Glibc: it needs _GNU_SOURCE.
            guard let ask = dlsym(nil, "pthread_getattr_np") else { return 0 }
            var attributes = pthread_attr_t()
            var bytes = 0
            _ = unsafeBitCast(ask, to: Ask.self)(pthread_self(), &attributes)
            pthread_attr_getstacksize(&attributes, &bytes)
            pthread_attr_destroy(&attributes)
            return bytes
        }
        #expect(size == .success(8 << 20))
    }
}
