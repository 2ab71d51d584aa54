// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksProcess
package import QTasksWire
package import ZeroMQ

/// Why GlobalConfig could not begin, or go on.
package enum GlobalConfigError: Error {
    case log(AppendLogError)
    case socket(ZeroMQError)
    case process(ProcessError)

    /// A record in the folder's log isn't one that this version writes.
    case unreadable(String, WireError)

    /// Sorts an error that came from one of the layers below; another one is a bug.
    init(_ error: any Error) {
        switch error {
        case let error as GlobalConfigError: self = error
        case let error as AppendLogError: self = .log(error)
        case let error as ZeroMQError: self = .socket(error)
        case let error as ProcessError: self = .process(error)
        default: preconditionFailure("the layers below throw errors of their own: \(error)")
        }
    }

    /// 78 where another try would fail again, so that there is none; 74 where it may help.
    package var exitCode: Int32 {
        switch self {
        case .log(let error):
            switch error {
            case .newerFormat, .unknownKind, .notAStore, .metaUnreadable, .unsuitableFileSystem:
                78
            case .system, .payloadTooLarge, .outOfSpace, .corrupt, .locked: 74
            }
        case .process(let error):
            switch error {
            case .homeInUse, .unusableHome, .badHandover: 78
            case .system: 74
            }
        case .unreadable: 78
        case .socket: 74
        }
    }
}

extension GlobalConfigError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .log(let error): error.description
        case .socket(let error): error.description
        case .process(let error): error.description
        case .unreadable(let directory, let error):
            "\(directory): a record that this version can't read (\(error)); use the newer one"
        }
    }
}
