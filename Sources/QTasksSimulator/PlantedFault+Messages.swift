// Part of QTasks. License: see LICENSE.
//
// Mistakes that show in messages.

import QTasksModel
import QTasksWire

extension PlantedFault {
    /// Twice as far as any run's log goes.
    private static let mirror: UInt64 = 1_000_000

    /// What becomes of a message on its way; `nil`: it is lost.
    func tamper(
        _ bytes: [UInt8],
        in connection: Connection,
        _ world: World
    ) -> [UInt8]? {
        guard !bytes.isEmpty else { return bytes }
        do {
            return try bytes.withUnsafeBytes { raw in
                var reader = WireReader(raw)
                let header = try MessageHeader.read(from: &reader)
                return try tamper(bytes, header, &reader, connection, world)
            }
        } catch {
            world.checker.fail("a planted fault met a message it can't read: \(error)")
            return bytes
        }
    }

    private func tamper(
        _ bytes: [UInt8],
        _ header: MessageHeader,
        _ reader: inout WireReader,
        _ connection: Connection,
        _ world: World
    ) throws -> [UInt8]? {
        switch (self, header.command) {
        case (.addAcknowledgedBeforeDurable, .verdicts):
            var changed = bytes
            let written = MessageHeader.byteCount..<MessageHeader.byteCount + 8
            changed.replaceSubrange(
                written.upperBound..<written.upperBound + 8,
                with: bytes[written]
            )
            return changed
        case (.helloNotReconciled, .hello):
            var hello = try Hello(from: &reader)
            hello.running = []
            return hello.encoded()
        case (.lostDispatchForgotten, .propose):
            return try withoutNotHeld(&reader, session: header.number)
        case (.creditAsIncrement, .credit):
            let window = try CreditMessage.read(from: &reader)
            let sum = world.checker.announcedBefore(window, in: connection)
            return CreditMessage.encoded(window: window + sum)
        case (.repeatAddAcknowledgedBeforeDurable, .verdicts): return try eager(bytes, &reader)
        case (.orderByPosition, .snapshot):
            return try byPosition(&reader, number: header.number, world)
        case (.orderByPosition, .propose):
            return try byPositionBack(&reader, session: header.number, world)
        case (.orderReversed, .verdicts): return try reversed(bytes, &reader)
        case (.orderReversed, .propose):
            return try reversedBack(&reader, session: header.number)
        case (.sharersDeathsCounted, .propose):
            return try counting(&reader, session: header.number) { $0 == .death && $1 }
        case (.hardLimitCountsANeighbour, .propose):
            return try counting(&reader, session: header.number) { cause, _ in
                cause == .neighbour
            }
        case (.staleLeaseAccepted, .results): return try withCurrentLeases(&reader, world)
        case (.resultAcknowledgedUnsaved, .results):
            try acknowledge(&reader, connection, world)
            return world.random.chance(80) ? nil : bytes
        default: return bytes
        }
    }

    private func withoutNotHeld(
        _ reader: inout WireReader,
        session: UInt64
    ) throws -> [UInt8] {
        try rewritten(&reader, session: session) { proposal in
            if case .release(_, _, .notHeld, _, _) = proposal { nil } else { proposal }
        }
    }

    /// Releases of this kind count against their tasks, as if each had been alone in its process.
    private func counting(
        _ reader: inout WireReader,
        session: UInt64,
        where isWrong: (_ cause: ReleaseCause, _ isShared: Bool) -> Bool
    ) throws -> [UInt8] {
        try rewritten(&reader, session: session) { proposal in
            guard case .release(let number, let holding, let cause, let isShared, _) = proposal,
                isWrong(cause, isShared)
            else { return proposal }
            return .release(
                number: number,
                holding: holding,
                cause: .death,
                isShared: false,
                counts: true
            )
        }
    }

    /// Repeats are told that what they repeat is durable for long.
    private func eager(_ bytes: [UInt8], _ reader: inout WireReader) throws -> [UInt8] {
        try rewritten(bytes, &reader) { verdict in
            guard case .exists(let number, _, let status) = verdict else { return verdict }
            return .exists(number: number, sequence: 0, status: status)
        }
    }

    private func reversed(_ bytes: [UInt8], _ reader: inout WireReader) throws -> [UInt8] {
        try rewritten(bytes, &reader) { verdict in
            guard
                case .added(let number, var place, let leased, let due, let at, let arguments) =
                    verdict
            else { return verdict }
            // acknowledgements wait for ever by this too; the order shows first
            place.sequence = Self.mirror - place.sequence
            return .added(
                number: number,
                place: place,
                leased: leased,
                due: due,
                addedAt: at,
                arguments: arguments
            )
        }
    }

    /// So that Storage finds the tasks whose places were reversed.
    private func reversedBack(
        _ reader: inout WireReader,
        session: UInt64
    ) throws -> [UInt8] {
        try withPlacesBack(&reader, session: session) { sequence in
            sequence > Self.mirror / 2 ? Self.mirror - sequence : sequence
        }
    }

    // MARK: Item by item

    /// The same message, with each proposal as the mistake makes it; `nil` leaves it out.
    private func rewritten(
        _ reader: inout WireReader,
        session: UInt64,
        _ change: (Proposal) -> Proposal?
    ) throws -> [UInt8] {
        var writer = WireWriter(.propose, number: session)
        while !reader.isAtEnd { change(try Proposal(from: &reader))?.write(to: &writer) }
        return writer.bytes
    }

    /// The same for verdicts; the watermarks stay.
    func rewritten(
        _ bytes: [UInt8],
        _ reader: inout WireReader,
        _ change: (Verdict) -> Verdict
    ) throws -> [UInt8] {
        _ = try reader.raw(16, "watermarks")
        var writer = WireWriter()
        writer.raw(Array(bytes[..<(MessageHeader.byteCount + 16)]))
        while !reader.isAtEnd { change(try Verdict(from: &reader)).write(to: &writer) }
        return writer.bytes
    }

    /// Leases of tasks that the Broker was told elsewhere, with the places that Storage knows.
    func withPlacesBack(
        _ reader: inout WireReader,
        session: UInt64,
        _ truth: (UInt64) -> UInt64
    ) throws -> [UInt8] {
        try rewritten(&reader, session: session) { proposal in
            guard case .lease(let number, var place, let lease, let worker, let synced) = proposal
            else { return proposal }
            place.sequence = truth(place.sequence)
            return .lease(
                number: number,
                place: place,
                lease: lease,
                worker: worker,
                synced: synced
            )
        }
    }

    private func withCurrentLeases(_ reader: inout WireReader, _ world: World) throws -> [UInt8] {
        var writer = WireWriter(.results)
        writer.worker(try reader.worker("worker"))
        while !reader.isAtEnd {
            var entry = try ResultEntry(from: &reader)
            if let task = world.checker.ledger.tasks[entry.id], task.status == .process {
                entry.lease = task.lease
            }
            entry.write(to: &writer)
        }
        return writer.bytes
    }

    private func acknowledge(
        _ reader: inout WireReader,
        _ connection: Connection,
        _ world: World
    ) throws {
        _ = try reader.worker("worker")
        var writer = WireWriter(.work)
        var leases: [Lease] = []
        while !reader.isAtEnd { leases.append(try ResultEntry(from: &reader).lease) }
        writer.integer(UInt32(leases.count))
        for lease in leases { writer.integer(lease.rawValue) }
        let owner = connection.socket.owner
        if let session = world.network.open.first(where: {
            $0.socket.owner === owner && $0.socket.address == .workers
        }) {
            let arrival = session.toSocket.put(writer.bytes, arrival: world.time)
            world.at(arrival) { owner.wake() }
        }
    }
}
