// Virtual time: one heap of (moment, order of scheduling). Between two tasks every promise chain gets its turn, so a
// seed always runs in the same order, and hours cost what their events cost.

type Task = { at: number; order: number; run: (() => void) | null }

export class Timeline {
  /** ms since the world began. */
  now = 0
  readonly #heap: Task[] = []
  #order = 0

  /** Returns a function that calls the run off. */
  at(moment: number, run: () => void): () => void {
    const task: Task = { at: Math.max(moment, this.now), order: this.#order++, run }
    this.#push(task)
    return () => {
      task.run = null
    }
  }

  after(ms: number, run: () => void): () => void {
    return this.at(this.now + ms, run)
  }

  /** Up to `end`, or until `isOver`, which is asked after every task. */
  async run(end: number, isOver = () => false): Promise<void> {
    await settled()
    while (!isOver()) {
      const task = this.#heap[0]
      if (!task || task.at > end) {
        this.now = end
        return
      }
      this.#pop()
      if (!task.run) continue
      this.now = task.at
      task.run()
      await settled()
    }
  }

  /** Forgets all that was still to come. */
  clear(): void {
    this.#heap.length = 0
  }

  #push(task: Task): void {
    const heap = this.#heap
    let at = heap.length
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!isBefore(task, heap[parent]!)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = task
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, last)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
  }
}

const isBefore = (a: Task, b: Task): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

/** Nothing in the world waits for anything outside it, so one turn of the event loop runs all promise chains out. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
