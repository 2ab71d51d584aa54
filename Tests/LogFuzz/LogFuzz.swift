// Part of QTasks. License: see LICENSE.
//
// What Tests/fuzz runs. An input is a letter, then the files of a store one behind the other; each begins
// with its magic. After `F` all checksums are made right first: the fuzzer can't guess them, and what lies
// behind a wrong one is hardly read.

@testable import AppendLog

/// Opens what the fuzzer made up, and stops the process where a promise is broken.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 1 else { return 0 }
    var files = StoreInput.split(Array(UnsafeBufferPointer(start: start + 1, count: count - 1)))
    if start[0] == UInt8(ascii: "F") { files = files.map { $0.withRightChecksums() } }
    for file in files { file.scan() }
    StoreCheck(files).run()
    return 0
}

private func check(_ condition: Bool, _ promise: @autoclosure () -> String) {
    if !condition { fatalError("broken: " + promise()) }
}

/// The input's files, each as one reader after the other sees it.
struct StoreInput {
    enum Kind: CaseIterable {
        case meta, segment, checkpoint

        var magic: UInt64 {
            switch self {
            case .meta: MetaPage.magic
            case .segment: SegmentHeader.magic
            case .checkpoint: Checkpoint.magic
            }
        }
    }

    var kind: Kind
    var bytes: [UInt8]

    /// A file ends where the next magic stands that isn't its own second copy.
    static func split(_ bytes: [UInt8]) -> [Self] {
        var files: [Self] = []
        var starts: [(Kind, Int)] = []
        bytes.withUnsafeBytes { all in
            guard let base = all.baseAddress, all.count >= 8 else { return }
            for offset in 0...(all.count - 8) {
                let magic: UInt64 = base.number(offset)
                guard let kind = Kind.allCases.first(where: { $0.magic == magic }) else { continue }
                if let last = starts.last, last.0 == kind {
                    let distance = offset - last.1
                    if kind == .meta, distance == MetaPage.bytes { continue }
                    if kind == .segment, distance == SegmentHeader.copyOffset { continue }
                }
                starts.append((kind, offset))
            }
        }
        for (index, start) in starts.enumerated() {
            let end = index + 1 < starts.count ? starts[index + 1].1 : bytes.count
            files.append(Self(kind: start.0, bytes: Array(bytes[start.1..<end])))
        }
        return files
    }

    var name: String {
        let number: UInt32 = bytes.withUnsafeBytes {
            $0.count >= 16 ? $0.loadUnaligned(fromByteOffset: 12, as: UInt32.self) : 0
        }
        return switch kind {
        case .meta: LogFormat.metaName
        case .segment: LogFormat.segmentName(number)
        case .checkpoint: LogFormat.checkpointName(number)
        }
    }

    /// Reads everything that these bytes could be.
    func scan() {
        bytes.withUnsafeBytes { all in
            _ = try? MetaPage.newest(of: bytes, path: "")
            let header = try? SegmentHeader.decode(all, path: "")
            for limit in [Int.max, all.count / 2] {
                var scan = SegmentScan(
                    all,
                    salt: header?.salt ?? 0,
                    limit: limit,
                    knownEnd: limit == Int.max ? 0 : limit
                )
                var offset = scan.offset
                while let item = scan.next() {
                    check(scan.offset > offset, "a scan goes on")
                    if case .record(let header, let start, _) = item {
                        _ = scan.payload(header, at: start).reduce(0, ^)
                    }
                    offset = scan.offset
                }
            }
        }
    }
}

// MARK: - Checksums

extension StoreInput {
    func withRightChecksums() -> Self {
        var copy = self
        copy.bytes.withUnsafeMutableBytes { all in
            guard let base = all.baseAddress else { return }
            switch kind {
            case .meta:
                for page in stride(from: 0, through: all.count - MetaPage.bytes, by: MetaPage.bytes)
                {
                    Self.seal(base + page, MetaPage.bytes - 4)
                }
            case .segment:
                Self.sealSegment(base, all.count)
            case .checkpoint:
                Self.sealCheckpoint(base, all.count)
            }
        }
        return copy
    }

    private static func seal(_ start: UnsafeMutableRawPointer, _ count: Int, _ seed: UInt32 = 0) {
        start.store(UnsafeRawPointer(start).crc32c(count, seed: seed), at: count)
    }

    private static func sealSegment(_ base: UnsafeMutableRawPointer, _ count: Int) {
        for copy in [0, SegmentHeader.copyOffset] where copy + SegmentHeader.bytes <= count {
            seal(base + copy, SegmentHeader.bytes - 4)
        }
        guard count > SegmentHeader.areaBytes else { return }
        let salt: UInt32 = UnsafeRawPointer(base).number(16)
        var offset = SegmentHeader.areaBytes
        while offset + GroupHeader.bytes <= count {
            let seed = salt ^ UInt32(offset)
            let start = base + offset
            let magic: UInt16 = UnsafeRawPointer(start).number(0)
            let isCarried = magic == RecordHeader.carriedMagic
            offset += RecordHeader.alignment
            if magic == GroupHeader.magic {
                seal(start, GroupHeader.bytes - 4, seed)
                offset += GroupHeader.bytes - RecordHeader.alignment
            } else if magic == RecordHeader.magic || isCarried {
                let payload = Int(UnsafeRawPointer(start).number(4, as: UInt32.self))
                let size = RecordHeader.bytesOnDisk(payloadBytes: payload, isCarried: isCarried)
                let header = isCarried ? RecordHeader.carriedBytes : RecordHeader.bytes
                guard offset - RecordHeader.alignment + size <= count else { continue }
                start.store(UnsafeRawPointer(start + header).crc32c(payload, seed: seed), at: 16)
                seal(start, header - 4, seed)
                offset += size - RecordHeader.alignment
            }
        }
    }

    private static func sealCheckpoint(_ base: UnsafeMutableRawPointer, _ count: Int) {
        guard count >= Checkpoint.headerBytes + Checkpoint.trailerBytes else { return }
        seal(base, Checkpoint.headerBytes - 4)
        let salt: UInt32 = UnsafeRawPointer(base).number(16)
        let end = count - Checkpoint.trailerBytes
        var offset = Checkpoint.headerBytes
        while offset + Checkpoint.blockHeaderBytes <= end {
            let start = base + offset
            let seed = salt ^ UInt32(offset)
            let content = Int(UnsafeRawPointer(start).number(4, as: UInt32.self))
            guard offset + Checkpoint.bytesOfBlock(content: content) <= end else { break }
            let bytes = UnsafeRawPointer(start + Checkpoint.blockHeaderBytes)
            start.store(bytes.crc32c(content, seed: seed), at: 8)
            seal(start, 12, seed)
            offset += Checkpoint.bytesOfBlock(content: content)
        }
        seal(base + end, Checkpoint.trailerBytes - 4, salt ^ UInt32(end))
    }
}

// MARK: - The store

/// Reads the store, opens it twice, and compares.
struct StoreCheck {
    struct Record: Equatable {
        var sequence: UInt64
        var kind: UInt8
        var payload: [UInt8]
    }

    private static let directory = "/store"
    private static let options: LogOptions = {
        var options = LogOptions(
            segmentBytes: 1 << 16,
            recordBytesMax: 1 << 14,
            zeroFillAheadBytes: 0
        )
        options.reserveBytes = 0
        return options
    }()

    let disk = SimulatedDisk(seed: 1)

    init(_ files: [StoreInput]) {
        for file in files { disk.setContents(of: "\(Self.directory)/\(file.name)", to: file.bytes) }
    }

    func run() {
        guard let read = read() else { return }
        guard let first = try? open(restoring: false) else { return }
        check(first == read, "who writes sees what a reader sees")
        do throws(AppendLogError) {
            let second = try open(restoring: false)
            check(second.starts(with: first), "what was there once is there again")
            _ = try open(restoring: true)
        } catch {
            // it has counted up to where a writer stops
            if case .notAStore = error { return }
            // only who uses checkpoints looks at one, and minds that a later version wrote it
            if case .newerFormat = error { return }
            check(false, "what was opened once can be opened again")
        }
    }

    private func read() -> [Record]? {
        guard let reader = try? LogReader(Self.directory, files: disk) else { return nil }
        var records: [Record] = []
        reader.forEach { record in
            let payload = [UInt8](record.payload)
            let again = try? reader.withPayload(at: record.position) { [UInt8]($0) }
            check(again == payload, "what was shown can be read where it is said to be")
            records.append(Record(sequence: record.sequence, kind: record.kind, payload: payload))
        }
        for checkpoint in (try? reader.checkpoints()) ?? [] {
            _ = try? reader.restore(checkpoint) { _ in true }
            reader.forEach(from: checkpoint.start, after: checkpoint.startSequence) { _ in }
        }
        return records
    }

    private func open(restoring: Bool) throws(AppendLogError) -> [Record] {
        defer { disk.endProcess() }
        var records: [Record] = []
        var positions: [RecordPosition] = []
        let listener = LogListener(restore: restoring ? { _ in true } : nil) { record in
            let payload = [UInt8](record.payload)
            records.append(Record(sequence: record.sequence, kind: record.kind, payload: payload))
            positions.append(record.position)
        }
        let log = try Log.open(
            at: Self.directory,
            options: Self.options,
            files: disk,
            driver: .manual,
            listener: listener
        )
        for (record, position) in zip(records, positions) {
            let payload = try? log.read(position)
            check(
                payload == record.payload,
                "record \(record.sequence) at \(position), \(record.payload.count) bytes, was replayed and can be read"
            )
        }
        if log.beginCompaction() {
            while log.isCompacting {
                _ = log.compactNext { record in
                    let payload = record.payload
                    _ = try? log.carry(record, kind: record.kind, payloadBytes: payload.count) {
                        $0.copyMemory(from: payload)
                    }
                }
                while log.runOneKeep() {}
            }
        }
        log.abandonCompaction()
        return records
    }
}
