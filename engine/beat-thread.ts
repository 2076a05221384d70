// The beat's thread: its own connection to Redis, so that neither a long garbage collection nor a large answer on the
// main thread costs the lease. Started by startBeatThread (below, called in main.ts); this file is also the entry.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { systemClock } from '../queue/clock.ts'
import type { EngineIdentity } from '../queue/consume.ts'
import { connectRedis } from '../queue/redis.ts'
import { Beat, type BeatOptions } from './beat.ts'
import { Control } from './control.ts'

/** What main needs of a beat, wherever it runs. */
export type Heart = {
  started: Promise<void>
  hold(id: string): void
  drop(id: string): void
  close(): Promise<void>
}

type ThreadData = {
  role: 'beat'
  redisUrl: string
  identity: EngineIdentity
  shared: SharedArrayBuffer
  leaseMs: number
  stepTimeoutMs: number
}
type ToThread = { hold: string } | { drop: string } | 'close'
type FromThread = 'started' | 'stalled' | 'closed' | { cancelled: string[] } | { error: string }

type ThreadOptions = Omit<BeatOptions, 'redis' | 'clock'> & {
  redisUrl: string
  /** The thread threw after its first beat: nobody keeps the lease any more. */
  onFailure(error: Error): void
}

/** `started` rejects when Redis cannot be reached. */
export function startBeatThread(options: ThreadOptions): Heart {
  const { redisUrl, identity, control, leaseMs, stepTimeoutMs, onBeat, onStalled, onError, onFailure } = options
  const data: ThreadData = { role: 'beat', redisUrl, identity, shared: control.shared, leaseMs, stepTimeoutMs }
  const worker = new Worker(new URL(import.meta.url), { workerData: data })
  const started = Promise.withResolvers<void>()
  const closed = Promise.withResolvers<void>()
  let isStarted = false
  worker.on('message', (message: FromThread) => {
    if (message === 'started') {
      isStarted = true
      started.resolve()
    } else if (message === 'stalled') onStalled()
    else if (message === 'closed') closed.resolve()
    else if ('cancelled' in message) onBeat(message.cancelled)
    else onError(new Error(message.error))
  })
  worker.on('error', (error: Error) => {
    started.reject(error)
    if (isStarted) onFailure(error)
  })
  worker.on('exit', () => closed.resolve())
  const post = (message: ToThread) => worker.postMessage(message)
  return {
    started: started.promise,
    hold: (id) => post({ hold: id }),
    drop: (id) => post({ drop: id }),
    async close() {
      post('close')
      await closed.promise
      await worker.terminate()
    },
  }
}

async function run(data: ThreadData) {
  const post = (message: FromThread) => parentPort?.postMessage(message)
  const onError = (error: Error) => post({ error: error.message })
  const redis = await connectRedis(data.redisUrl, { onError })
  const beat = new Beat({
    ...data,
    redis,
    clock: systemClock,
    control: new Control(data.shared),
    onBeat: (cancelled) => post({ cancelled }),
    onStalled: () => post('stalled'),
    onError,
  })
  parentPort?.on('message', async (message: ToThread) => {
    if (message === 'close') {
      await beat.close()
      await redis.close()
      post('closed')
    } else if ('hold' in message) beat.hold(message.hold)
    else beat.drop(message.drop)
  })
  await beat.started
  post('started')
}

if (!isMainThread && (workerData as Partial<ThreadData> | null)?.role === 'beat') await run(workerData as ThreadData)
