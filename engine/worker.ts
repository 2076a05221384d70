// The engine thread: loads the model, then runs steps until it is told to close. Kernels are called synchronously, so the
// loop never yields to the thread's event loop: commands are polled between steps, and an idle engine sleeps on a word
// of shared memory until thread.ts wakes it. An exception here (a kernel's, a bug's) ends the process; see thread.ts.
import { randomInt } from 'node:crypto'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { systemClock } from '../queue/clock.ts'
import { Control } from './control.ts'
import type { Engine } from './engine.ts'
import { type LoadHooks, loadEngine, openModel } from './load.ts'
import { pack } from './packet.ts'
import type { Command, FromEngine, WorkerData } from './thread.ts'

const { config, settings, shared, commands } = workerData as WorkerData
const control = new Control(shared)
const post = (message: FromEngine) => parentPort?.postMessage(message)

/** Progress is for human eyes: at most ten reports a second cross the threads. */
function createHooks(): LoadHooks {
  let last = Number.NEGATIVE_INFINITY
  return {
    clock: systemClock,
    random: () => randomInt(2 ** 32) / 2 ** 32,
    warn: (message) => post({ type: 'warning', message }),
    onProgress: (stage, progress) => {
      const now = systemClock.monotonic()
      if (now - last < 100 && progress.bytes < progress.total) return
      last = now
      post({ type: 'progress', stage, progress })
    },
  }
}

function run(engine: Engine) {
  let isStale = false // what main knows of the engine, since an abort that no step followed
  for (;;) {
    const seen = control.wakeCount
    for (let next = receiveMessageOnPort(commands); next; next = receiveMessageOnPort(commands)) {
      const command = next.message as Command
      if (command.type === 'close') return
      if (command.type === 'add') engine.add(command.request)
      else {
        engine.abort(command.id, command.choice)
        isStale = true
      }
    }
    if (control.isPaused || !engine.hasWork) {
      if (!control.isPaused) engine.checkIntegrity()
      if (isStale) post({ type: 'step', packet: pack([]), stats: engine.stats() })
      isStale = false
      control.sleep(seen)
      continue
    }
    const outputs = control.step(() => engine.step())
    post({ type: 'step', packet: pack(outputs), stats: engine.stats() })
    isStale = false
  }
}

const hooks = createHooks()
const opened = await openModel(config, settings, hooks)
post({ type: 'opened', facts: opened.facts })
const { engine, close } = await loadEngine(config, opened, hooks)
post({ type: 'ready', stats: engine.stats() })
run(engine)
close()
commands.close()
parentPort?.close()
