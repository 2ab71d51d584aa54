// Part of QTasks. License: see LICENSE.
//
// The mistake of taking the place of a record on disk for its task's place in line.

import QTasksModel
import QTasksWire

extension PlantedFault {
    /// Beyond any run's log.
    private static let moved: UInt64 = 1_000_000

    /// A snapshot in which what compaction has moved stands behind everything that it hasn't.
    func byPosition(
        _ reader: inout WireReader,
        number: UInt64,
        _ world: World
    ) throws -> [UInt8] {
        var writer = WireWriter(.snapshot, number: number)
        while !reader.isAtEnd {
            var item = try SnapshotItem(from: &reader)
            switch item {
            case .queued(var run):
                run.places = run.places.map { place(for: $0, world) }
                    .sorted { $0.sequence < $1.sequence }
                item = .queued(run)
            case .scheduled(var placement, let due):
                placement.place = place(for: placement.place, world)
                item = .scheduled(placement, due: due)
            case .running, .worker, .queue, .end: break
            }
            item.write(to: &writer)
        }
        return writer.bytes
    }

    private func place(for place: QueuedPlace, _ world: World) -> QueuedPlace {
        guard let position = world.carried.lastIndex(of: place.sequence) else { return place }
        return QueuedPlace(sequence: Self.moved + UInt64(position), handle: place.handle)
    }

    /// What the snapshot would have said, for whoever watches the order.
    func truth(of item: SnapshotItem, _ world: World) -> SnapshotItem {
        guard self == .orderByPosition else { return item }
        func truth(_ place: QueuedPlace) -> QueuedPlace {
            guard place.sequence >= Self.moved else { return place }
            let sequence = world.carried[Int(place.sequence - Self.moved)]
            return QueuedPlace(sequence: sequence, handle: place.handle)
        }
        switch item {
        case .queued(var run):
            run.places = run.places.map(truth)
            return .queued(run)
        case .scheduled(var placement, let due):
            placement.place = truth(placement.place)
            return .scheduled(placement, due: due)
        case .running, .worker, .queue, .end: return item
        }
    }

    /// So that Storage finds the tasks that stand elsewhere.
    func byPositionBack(
        _ reader: inout WireReader,
        session: UInt64,
        _ world: World
    ) throws -> [UInt8] {
        try withPlacesBack(&reader, session: session) { sequence in
            sequence >= Self.moved ? world.carried[Int(sequence - Self.moved)] : sequence
        }
    }
}
