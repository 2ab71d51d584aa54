// swift-tools-version: 6.2

import PackageDescription

// Settings every Swift target shares.
var strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),  // SE-0335: `any` marks dynamic dispatch
    .enableUpcomingFeature("InternalImportsByDefault"),  // SE-0409: `public import` is a decision
    .enableUpcomingFeature("MemberImportVisibility"),  // SE-0444: a file imports what it uses
]

// An error only where we look: a later toolchain's new warning must not break a user's build.
if Context.environment["CI"] != nil {
    strict.append(.treatAllWarnings(as: .error))
}

let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let heap = Target.Dependency.product(name: "HeapModule", package: "swift-collections")
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")

let package = Package(
    name: "qtasks",
    products: [
        .library(name: "QTasks", targets: ["QTasks"]),
        .executable(name: "qtasks", targets: ["QTasksTool"]),
        .executable(name: "simulator", targets: ["Simulator"]),
        .executable(name: "wordcount", targets: ["wordcount"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.3.0"),
    ],
    targets: [
        // The C library, what Swift's Glibc lacks, and the thin Swift layer over both.
        // No pkgConfig: Debian's libzmq.pc carries -isystem flags that SwiftPM refuses with a warning.
        .systemLibrary(name: "CZeroMQ", providers: [.apt(["libzmq3-dev"])]),
        .target(name: "CLinux"),
        .target(name: "ZeroMQ", dependencies: ["CZeroMQ", "CLinux"], swiftSettings: strict),

        // Storage engine: bytes and sequence numbers, no idea what a task is.
        .target(name: "AppendLog", dependencies: ["CLinux"], swiftSettings: strict),

        // Pure values and rules, and their bytes: no sockets, no files, no clock.
        .target(name: "QTasksModel", swiftSettings: strict),
        .target(name: "QTasksWire", dependencies: ["QTasksModel"], swiftSettings: strict),

        // Children, locks, signals, the home directory: what the kernel knows of us.
        .target(name: "QTasksProcess", dependencies: ["CLinux"], swiftSettings: strict),

        // One place for each component of the design; they know each other only by messages.
        .target(
            name: "QTasksGlobalConfig",
            dependencies: [
                "AppendLog", "CLinux", "QTasksModel", "QTasksProcess", "QTasksWire", "ZeroMQ",
                logging,
            ],
            swiftSettings: strict
        ),
        .target(
            name: "QTasksStorage",
            dependencies: [
                "AppendLog", "CLinux", "QTasksGlobalConfig", "QTasksModel", "QTasksProcess",
                "QTasksWire", "ZeroMQ", logging, heap, deque,
            ],
            swiftSettings: strict
        ),
        .target(
            name: "QTasksBroker",
            dependencies: [
                "AppendLog", "CLinux", "QTasksGlobalConfig", "QTasksModel", "QTasksProcess",
                "QTasksWire", "ZeroMQ",
                logging, heap, deque,
            ],
            swiftSettings: strict
        ),
        .target(
            name: "QTasksWorker",
            dependencies: [
                "AppendLog", "CLinux", "QTasksModel", "QTasksProcess", "QTasksWire", "ZeroMQ",
                logging,
            ],
            swiftSettings: strict
        ),
        .target(
            name: "QTasksClient",
            dependencies: [
                "QTasksModel", "QTasksProcess", "QTasksWire", "ZeroMQ", logging, heap, deque,
            ],
            swiftSettings: strict
        ),
        .target(
            name: "QTasksStarter",
            dependencies: [
                "QTasksGlobalConfig", "QTasksModel", "QTasksProcess", "QTasksWire", "ZeroMQ",
                logging,
            ],
            swiftSettings: strict
        ),

        // What applications import.
        .target(
            name: "QTasks",
            dependencies: [
                "AppendLog", "CLinux", "ZeroMQ",
                "QTasksBroker", "QTasksClient", "QTasksGlobalConfig", "QTasksModel",
                "QTasksProcess", "QTasksStarter", "QTasksStorage", "QTasksWire", "QTasksWorker",
                logging, arguments,
            ],
            swiftSettings: strict
        ),

        // All cores in one thread, on virtual time, under faults.
        .target(
            name: "QTasksSimulator",
            dependencies: [
                "AppendLog", "CLinux", "QTasksBroker", "QTasksClient", "QTasksGlobalConfig",
                "QTasksModel",
                "QTasksProcess", "QTasksStarter", "QTasksStorage", "QTasksWire", "QTasksWorker",
                "ZeroMQ", arguments,
                heap,
            ],
            swiftSettings: strict
        ),

        // The executables.
        .executableTarget(
            name: "QTasksTool",
            dependencies: [
                "AppendLog", "CLinux", "QTasks", "QTasksModel", "QTasksProcess", "QTasksStorage",
                "QTasksWire", "ZeroMQ", arguments,
            ],
            swiftSettings: strict
        ),
        .executableTarget(
            name: "Simulator",
            dependencies: ["QTasksSimulator", arguments],
            swiftSettings: strict
        ),
        .executableTarget(
            name: "wordcount",
            dependencies: ["QTasks", arguments],
            path: "examples/wordcount",
            swiftSettings: strict
        ),

        .testTarget(
            name: "ZeroMQTests",
            dependencies: ["CLinux", "CZeroMQ", "QTasksProcess", "ZeroMQ"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "AppendLogTests",
            dependencies: ["AppendLog", "CLinux", "QTasksProcess"],
            swiftSettings: strict
        ),
        .testTarget(name: "QTasksModelTests", dependencies: ["QTasksModel"], swiftSettings: strict),
        .testTarget(
            name: "QTasksWireTests",
            dependencies: ["QTasksModel", "QTasksWire"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "QTasksProcessTests",
            dependencies: ["CLinux", "QTasksProcess"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "QTasksGlobalConfigTests",
            dependencies: [
                "AppendLog", "QTasksGlobalConfig", "QTasksModel", "QTasksProcess", "QTasksWire",
                "ZeroMQ", logging,
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "QTasksStorageTests",
            dependencies: [
                "AppendLog", "QTasksModel", "QTasksProcess", "QTasksStorage", "QTasksWire", logging,
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "QTasksBrokerTests",
            dependencies: ["QTasksBroker", "QTasksModel", "QTasksWire", "ZeroMQ"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "QTasksStarterTests",
            dependencies: ["QTasksProcess", "QTasksStarter", "QTasksWire"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "QTasksWorkerTests",
            dependencies: [
                "QTasksModel", "QTasksProcess", "QTasksWire", "QTasksWorker", "ZeroMQ", logging,
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "QTasksClientTests",
            dependencies: [
                "QTasksClient", "QTasksModel", "QTasksProcess", "QTasksWire", "ZeroMQ", logging,
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "QTasksTests",
            dependencies: [
                "QTasks", "QTasksClient", "QTasksModel", "QTasksProcess", "QTasksWire",
                "QTasksWorker", "ZeroMQ", logging,
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "WordcountTests",
            dependencies: ["QTasks", "QTasksProcess", "wordcount"],
            swiftSettings: strict
        ),
        // One suite for every implementation of a component's protocol.
        .testTarget(
            name: "ConformanceTests",
            dependencies: [
                "QTasks", "QTasksGlobalConfig", "QTasksProcess", "QTasksWire", "TestTasks",
            ],
            swiftSettings: strict
        ),
        // Real processes: an application whose tasks misbehave, and the tests that start it.
        .executableTarget(
            name: "TestTasks",
            dependencies: ["QTasks"],
            path: "Tests/TestTasks",
            swiftSettings: strict
        ),
        // What Tests/chaos runs.
        .executableTarget(
            name: "ChaosTasks",
            dependencies: ["QTasks", arguments],
            path: "Tests/ChaosTasks",
            swiftSettings: strict
        ),
        .testTarget(
            name: "SimulationTests",
            dependencies: ["QTasksSimulator"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "SystemTests",
            dependencies: [
                "CLinux", "QTasks", "QTasksModel", "QTasksProcess", "QTasksTool", "QTasksWire",
                "TestTasks", "ZeroMQ", "wordcount",
            ],
            swiftSettings: strict
        ),
    ]
)

// What Tests/fuzz builds: libFuzzer brings `main`.
if Context.environment["QTASKS_FUZZ"] != nil {
    package.products = [.executable(name: "log-fuzz", targets: ["LogFuzz"])]
    package.dependencies = []
    package.targets.removeAll { !["CLinux", "AppendLog"].contains($0.name) }
    package.targets.append(
        .executableTarget(
            name: "LogFuzz",
            dependencies: ["AppendLog"],
            path: "Tests/LogFuzz",
            swiftSettings: strict + [.unsafeFlags(["-parse-as-library"])]
        )
    )
}

// The log's own tests, from nothing in a minute: three modules, nothing fetched. For a sanitizer or the
// fuzzer, which want everything built anew, in a folder of its own (`--scratch-path`).
if Context.environment["QTASKS_LOG"] != nil {
    package.products = []
    package.dependencies = []
    let kept = ["CLinux", "AppendLog", "QTasksProcess", "AppendLogTests"]
    package.targets.removeAll { !kept.contains($0.name) }
}
