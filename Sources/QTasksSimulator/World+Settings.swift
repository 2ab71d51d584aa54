// Part of QTasks. License: see LICENSE.
//
// GlobalConfig, and those who follow the settings.

import QTasksGlobalConfig

extension World {
    func startGlobalConfig(by storage: SimulatedStorage) -> SimulatedGlobalConfig {
        let config = SimulatedGlobalConfig(self, life: takeLife(.globalConfig), parent: storage)
        configs.removeAll { !$0.isAlive }
        configs.append(config)
        return config
    }

    /// The one that serves.
    var globalConfig: SimulatedGlobalConfig? { broker?.child?.globalConfig }

    /// Whether somebody else holds the lock of the settings.
    func isConfigTaken(but config: SimulatedGlobalConfig) -> Bool {
        configs.contains { $0 !== config && $0.isAlive && $0.hasOpened }
    }

    func startWatcher(_ number: Int) {
        guard !isDown, watchers[number]?.isAlive != true else { return }
        let life = (watchers[number]?.name.life ?? 0) + 1
        watchers[number] = SimulatedWatcher(self, number: number, life: life)
    }

    func watcherEnded(_ watcher: SimulatedWatcher) { planWatcher(watcher.name.number) }

    private func planWatcher(_ number: Int) {
        after(random.nanoseconds(100 * .millisecond...700 * .millisecond)) { [self] in
            guard !isDown else { return planWatcher(number) }
            startWatcher(number)
        }
    }

    /// Somebody sets something; who isn't there doesn't.
    func take(_ setting: Scenario.Setting) {
        guard let watcher = watchers[setting.watcher], watcher.isAlive else { return }
        watcher.set(ConfigEntry(key: setting.key, value: setting.value))
    }
}
