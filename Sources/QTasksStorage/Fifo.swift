// Part of QTasks. License: see LICENSE.

/// What waits in the order in which it came.
struct Fifo<Element> {
    private var elements: ContiguousArray<Element> = []
    private var head = 0

    var isEmpty: Bool { head == elements.count }
    var first: Element? { isEmpty ? nil : elements[head] }

    mutating func append(_ element: Element) {
        elements.append(element)
    }

    mutating func removeFirst() {
        precondition(!isEmpty, "the first of nothing cannot go")
        head += 1
        if head == elements.count {
            elements.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 4096, head * 2 >= elements.count {
            elements.removeSubrange(0..<head)
            head = 0
        }
    }

    mutating func removeAll() {
        elements = []
        head = 0
    }
}
