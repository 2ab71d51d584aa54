// Part of QTasks. License: see LICENSE.
//
// What GlobalConfig promises: a change shows to nobody before it is on disk, and in the end everybody who
// follows the settings has the same (recovery.md, H8).

import QTasksGlobalConfig
import QTasksWire

/// The settings' history, as it was told.
struct SettingsWatch {
    /// Every change that somebody may know of, by its number.
    var changes: [UInt64: ConfigEntry] = [:]

    /// The newest that was told to anybody.
    var newest: UInt64 = 0
}

extension Checker {
    /// GlobalConfig has read its log.
    func settingsOpened(_ state: ConfigState) {
        guard state.sequence < settings.newest else { return }
        fail("setting \(settings.newest) was told, and only \(state.sequence) are on disk")
    }

    /// A change, or the number of the newest one, goes to all who follow.
    func settingPublished(_ bytes: [UInt8]) {
        reading(bytes) { header, reader in
            settings.newest = max(settings.newest, header.number)
            guard header.command == .configUpdate else { return }
            let entry = try ConfigEntry(from: &reader)
            if let known = settings.changes[header.number], known != entry {
                fail("setting \(header.number) was \(known.key), and now is \(entry.key)")
            }
            settings.changes[header.number] = entry
        }
    }

    /// Somebody is answered.
    func settingTold(_ bytes: [UInt8], _ state: ConfigState) {
        reading(bytes) { header, reader in
            guard header.command == .configDone || header.command == .configValues else { return }
            let sequence = try reader.integer("sequence", as: UInt64.self)
            if sequence > state.sequence { fail("setting \(sequence) is told and not on disk") }
            settings.newest = max(settings.newest, sequence)
        }
    }

    /// Whoever set something hears that it is on disk.
    func settingHeard(_ entry: ConfigEntry, _ sequence: UInt64) {
        guard sequence <= settings.newest else {
            return fail("setting \(sequence) is heard of and was never told")
        }
        statistics.settings += 1
    }

    /// What somebody takes the settings for.
    func settingsSeen(_ watch: ConfigWatchState, by watcher: SimulatedWatcher) {
        guard let sequence = watch.sequence, sequence > settings.newest else { return }
        // a snapshot tells of changes that are published in the same turn
        if sequence > (world.globalConfig?.state.sequence ?? .max) {
            fail("\(watcher.name) has seen setting \(sequence), which nobody made")
        }
    }

    /// Nothing is left to happen: all have the same.
    func checkSettings() {
        guard let config = world.globalConfig, config.isAlive else {
            return fail("there is no GlobalConfig")
        }
        for watcher in world.watchers {
            guard let watcher, watcher.isAlive else { return fail("a watcher did not come back") }
            guard watcher.watch.sequence == config.state.sequence,
                watcher.watch.values == config.state.values
            else {
                let seen = watcher.watch.sequence.map { "\($0)" } ?? "none"
                fail("\(watcher.name) has setting \(seen) of \(config.state.sequence)")
                return
            }
        }
    }
}
