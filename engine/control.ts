// The words of shared memory between an engine process's threads: the engine thread writes what it does, the main thread
// wakes or pauses it, the beat reads whether it makes progress. Every word has one writer, except WAKE.
const STEPS = 0
const STATE = 1
const WAKE = 2
const PAUSED = 3

const IDLE = 0
const STEPPING = 1

export class Control {
  readonly shared: SharedArrayBuffer
  #words: Int32Array

  constructor(shared = new SharedArrayBuffer(16)) {
    this.shared = shared
    this.#words = new Int32Array(shared)
  }

  /** Steps the engine has completed; wraps at 2^32. */
  get steps(): number {
    return Atomics.load(this.#words, STEPS) >>> 0
  }

  /** A step is running: it should end. */
  get isStepping(): boolean {
    return Atomics.load(this.#words, STATE) === STEPPING
  }

  get isPaused(): boolean {
    return Atomics.load(this.#words, PAUSED) === 1
  }

  pause() {
    Atomics.store(this.#words, PAUSED, 1)
  }

  resume() {
    Atomics.store(this.#words, PAUSED, 0)
    this.wake()
  }

  /** After a message was posted to the engine thread. */
  wake() {
    Atomics.add(this.#words, WAKE, 1)
    Atomics.notify(this.#words, WAKE)
  }

  /** To read before looking for messages, so that a wake-up between the look and the sleep is not lost. */
  get wakeCount(): number {
    return Atomics.load(this.#words, WAKE)
  }

  /** Engine thread: sleeps until a wake-up that came after `wakeCount` was read. */
  sleep(wakeCount: number) {
    Atomics.store(this.#words, STATE, IDLE)
    Atomics.wait(this.#words, WAKE, wakeCount)
  }

  /** Engine thread: runs one step between the marks the beat reads. An exception leaves the state as it is. */
  step<Result>(run: () => Result): Result {
    Atomics.store(this.#words, STATE, STEPPING)
    const result = run()
    Atomics.add(this.#words, STEPS, 1)
    return result
  }
}
