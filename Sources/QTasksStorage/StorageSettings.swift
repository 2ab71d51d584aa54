// Part of QTasks. License: see LICENSE.

import Glibc
package import QTasksModel
import QTasksProcess

extension StorageState.Settings {
    /// Those of a store that this process opens, on this boot of the host.
    ///
    /// - Parameters:
    ///   - config: What the system was set up with.
    ///   - directory: The store's.
    ///   - seed: Another one each time, unless a run is to be the same as another.
    package init(
        _ config: QueueConfig,
        directory: String,
        seed: UInt64 = .random(in: .min ... .max)
    ) {
        let boot = BootID.current
        self.init(
            config: config,
            directory: directory,
            bootID: TaskID(high: boot.high, low: boot.low),
            pid: getpid(),
            seed: seed
        )
    }
}
