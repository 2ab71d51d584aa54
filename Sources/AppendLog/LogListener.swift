// Part of QTasks. License: see LICENSE.

/// What the owner of a log hears while it is opened, on the thread that opens it.
public struct LogListener {
    /// Called for each record that no checkpoint covers, in the order in which they lie; positions are
    /// those to read from later.
    ///
    /// A record with a ``RecordView/source`` stands for the one that was there, from then on.
    public var replay: (borrowing RecordView) -> Void

    /// Called with the parts of a checkpoint, before any record; `nil`: the owner makes none.
    ///
    /// `false` says that the owner can't use it: the next older one is tried, or none.
    public var restore: ((CheckpointPart) -> Bool)?

    /// Called with kind and payload of a record that ``replay`` may be called with soon, so that the owner
    /// can have memory fetched meanwhile; nothing else may follow from it: the record may be damaged, or
    /// not count.
    public var prepare: ((UInt8, UnsafeRawBufferPointer) -> Void)?

    /// Whether a record of this kind may be taken in, or passed over; `nil`: any.
    ///
    /// Where it may not, opening ends with ``AppendLogError/unknownKind(path:kind:sequence:format:)``, and the
    /// store is as it was.
    public var knows: ((UInt8) -> Bool)?

    /// Called for each record that was durable and is damaged: its header can be trusted, its payload
    /// can't.
    public var damaged: ((borrowing RecordView) -> Void)?

    /// An owner without checkpoints gives `replay` alone.
    public init(
        restore: ((CheckpointPart) -> Bool)? = nil,
        damaged: ((borrowing RecordView) -> Void)? = nil,
        prepare: ((UInt8, UnsafeRawBufferPointer) -> Void)? = nil,
        knows: ((UInt8) -> Bool)? = nil,
        replay: @escaping (borrowing RecordView) -> Void
    ) {
        self.replay = replay
        self.restore = restore
        self.damaged = damaged
        self.prepare = prepare
        self.knows = knows
    }
}
