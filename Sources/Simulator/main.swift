// Part of QTasks. License: see LICENSE.
//
// `simulator`: the whole system in virtual time, under faults, seed by seed.

import ArgumentParser
import QTasksSimulator

SimulatorCommand.main()
