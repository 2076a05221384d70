// `node scripts/bench/paging.ts`: what paging, sharing and continuous batching are worth, in figures that do not depend
// on the machine: the real scheduler and block pool under a virtual clock (simulate.ts), no model. One line per claim,
// with what it must reach; exit code 1 if one does not. test/scripts/paging.test.ts holds it to that.
import { pathToFileURL } from 'node:url'
import { Blocks } from '../../engine/scheduler/blocks.ts'
import type { SchedulerOptions } from '../../engine/scheduler/limits.ts'
import { Sequence, type SequenceRequest } from '../../engine/scheduler/sequence.ts'
import { type SamplingOptions, SamplingParams } from '../sampling-params.ts'
import { Random } from './random.ts'
import { percentile } from './report.ts'
import { type Arrival, VirtualRun } from './simulate.ts'

export type Claim = { what: string; figure: string; isMet: boolean; must: string }

const options: SchedulerOptions = {
  blockSize: 16,
  numBlocks: 4096,
  maxModelLen: 8192,
  maxNumSeqs: 64,
  maxNumBatchedTokens: 512,
  longPrefillTokenThreshold: 0,
  enableChunkedPrefill: true,
  enablePrefixCaching: true,
  eosTokenIds: [],
}
/** Of SmolLM2-135M on two cores, roughly; the claims do not hang on it. */
const costs = { stepMs: 12, tokenMs: 1 }
const percent = (share: number) => `${(100 * share).toFixed(1)} %`

/** Token ids that no other call gives, so that nothing is shared by accident. */
let lastId = 0
const ids = (count: number) => Array.from({ length: count }, () => lastId++ % 2 ** 30)

function request(id: string, prompt: number[], sampling: SamplingOptions = {}): SequenceRequest {
  const params = new SamplingParams(sampling).resolve({ seed: '0', room: options.maxModelLen })
  return { id, prompt: Uint32Array.from(prompt), sampling: params, resume: [], salt: '', adapter: 0, class: 0 }
}

/** Prompts and answers of medians 160 and 340 tokens, log-normal, by Poisson arrivals. */
function mixedLoad(count: number, meanIntervalMs: number, seed: number): Arrival[] {
  const random = new Random(seed)
  const lengthOf = (median: number) => Math.ceil(Math.min(4000, median * Math.exp(0.8 * random.normal())))
  let atMs = 0
  return Array.from({ length: count }, (_, i) => {
    atMs -= meanIntervalMs * Math.log(random.uniform())
    return { atMs, request: request(`${i}`, ids(lengthOf(160)), { max_tokens: lengthOf(340) }) }
  })
}

/** S2. Slots of held blocks without K and V, over all steps of a mixed load. */
export function waste(): Claim {
  const { steps } = new VirtualRun(options, costs, mixedLoad(300, 200, 1)).run()
  const held = steps.reduce((sum, { heldSlots }) => sum + heldSlots, 0)
  const used = steps.reduce((sum, { usedSlots }) => sum + usedSlots, 0)
  const alone = new VirtualRun(options, costs, [{ atMs: 0, request: request('a', ids(499), { max_tokens: 2 }) }]).run(1)
  const blocks = alone.scheduler.blocks.total - alone.scheduler.blocks.free
  return {
    what: 'S2   KV memory held but not filled, 300 requests of mixed lengths',
    figure: `${percent(1 - used / held)}; a sequence of 500 tokens holds ${blocks} blocks of 16 at a limit of 8192`,
    isMet: 1 - used / held < 0.04 && blocks === Math.ceil(499 / 16),
    must: '< 4 %; ceil(tokens / 16)',
  }
}

/** S3. After random takes and returns, one sequence gets every block that is left. */
export function fragmentation(): Claim {
  const random = new Random(3)
  const blocks = new Blocks(options.numBlocks, options.blockSize)
  const held: Sequence[] = []
  for (let i = 0; i < 20_000; i++) {
    const sequence = new Sequence(request(`${i}`, ids(random.integer(1, 600))), 0, i)
    if (random.uniform() < 0.52 && blocks.admit(sequence, [], 0)) held.push(sequence)
    else if (held.length > 0) blocks.release(held.splice(random.integer(0, held.length - 1), 1)[0]!)
  }
  const free = blocks.free
  const isAdmitted = blocks.admit(new Sequence(request('all', ids(free * options.blockSize)), 0, -1), [], 0)
  return {
    what: 'S3   after 20,000 random takes and returns, one sequence asks for all that is free',
    figure: `${free} of ${options.numBlocks} blocks free, ${isAdmitted ? 'admitted' : 'refused'}, ${blocks.free} left`,
    isMet: isAdmitted && free > 100 && blocks.free === 0,
    must: 'admitted, 0 left',
  }
}

/** S4. Ten users ask about one document at the same moment. */
export function sharedDocument(): Claim {
  const document = ids(2000)
  const arrivals = Array.from({ length: 10 }, (_, i) => ({
    atMs: 0,
    request: request(`${i}`, [...document, ...ids(50)], { max_tokens: 32 }),
  }))
  const run = new VirtualRun(options, costs, arrivals)
  let most = 0
  while (run.step()) most = Math.max(most, run.steps.at(-1)!.heldSlots / options.blockSize)
  const cached = [...run.served.values()].filter(({ cachedTokens }) => cachedTokens > 0).length
  const prefill = run.computedTokens - 10 * 31
  const least = 125 + 10 * Math.ceil((50 + 31) / 16)
  return {
    what: 'S4   ten users, one document of 2,000 tokens, 50 of their own, all at once',
    figure: `${prefill} prompt tokens computed, ${cached} of 10 report cached tokens, at most ${most} blocks`,
    isMet: prefill === 2000 + 10 * 50 && cached === 9 && most <= least,
    must: `2500, 9, <= ${least} (the document once)`,
  }
}

/** S5. Eight answers to one prompt. */
export function copyOnWrite(): Claim {
  const run = new VirtualRun(options, costs, [{ atMs: 0, request: request('r', ids(1000), { n: 8, max_tokens: 40 }) }])
  const held = () => run.scheduler.blocks.total - run.scheduler.blocks.free
  run.run(1)
  const before = [held()]
  run.run(2)
  before.push(held())
  run.run()
  return {
    what: 'S5   n = 8 on a prompt of 1,000 tokens: blocks after the prompt, and after a token each',
    figure: `${before.join(', ')}; ${run.computedTokens - 8 * 39} prompt tokens computed`,
    isMet: before[0] === 63 && before[1] === 62 + 8 && run.computedTokens === 1000 + 8 * 39,
    must: '63 = ceil(1000 / 16), 70 = 62 + 8 tails; 1000',
  }
}

/** S6. Eight places; of every eight requests seven need 100 steps and one 1,000; more wait. */
export function occupancy(policy: 'continuous' | 'static'): number {
  const arrivals = Array.from({ length: 200 }, (_, i) => ({
    atMs: 0,
    request: request(`${i}`, ids(1), { max_tokens: i % 8 === 0 ? 1000 : 100 }),
  }))
  const { steps } = new VirtualRun({ ...options, maxNumSeqs: 8, policy }, costs, arrivals).run()
  // While there is somebody to wait: the last round drains in any scheme.
  const loaded = policy === 'static' ? steps : steps.filter(({ waiting }) => waiting > 0)
  return loaded.reduce((sum, { tokens }) => sum + tokens, 0) / (8 * loaded.length)
}

export function eightSlots(): Claim {
  const [continuous, fixed] = [occupancy('continuous'), occupancy('static')]
  return {
    what: 'S6   8 places, 7 requests of 1 s for each one of 10 s: places in use',
    figure: `${percent(continuous)} continuous, ${percent(fixed)} static`,
    isMet: continuous >= 0.9 && fixed < 0.3,
    must: '>= 90 %',
  }
}

/** S10. Sessions of 500 tokens that run at the same time in the memory of eight preallocated ones. */
export function sessions(): Claim {
  const preallocated = 8
  const numBlocks = (preallocated * options.maxModelLen) / options.blockSize
  const arrivals = Array.from({ length: 300 }, (_, i) => ({
    atMs: 0,
    request: request(`${i}`, ids(400), { max_tokens: 101 }),
  }))
  const pool = { ...options, numBlocks, maxNumSeqs: 256, maxNumBatchedTokens: 256 * 400 }
  const run = new VirtualRun(pool, costs, arrivals).run()
  const most = Math.max(...run.steps.map(({ tokens, running }) => (tokens <= running ? running : 0)))
  const most500 = Math.floor(numBlocks / Math.ceil(500 / options.blockSize))
  return {
    what: `S10  sessions of 500 tokens in the KV memory of ${preallocated} preallocated at 8,192`,
    figure: `${most500} with 500 tokens each (${(most500 / preallocated).toFixed(1)}x); ${most} at once in a run, ${run.scheduler.counts.preemptions} preemptions`,
    isMet: most500 >= 10 * preallocated && most >= most500,
    must: '>= 10x',
  }
}

/** S9. The same arrivals on the same virtual machine, by policy. */
export function againstStatic(): Claim {
  const targetMs = 20_000
  const [continuous, fixed] = (['continuous', 'static'] as const).map((policy) => {
    const run = new VirtualRun({ ...options, policy }, costs, mixedLoad(400, 1000, 7)).run()
    const served = [...run.served.values()]
    const inTime = served.filter(({ atMs, finishedMs }) => finishedMs - atMs < targetMs).length
    return {
      inTime,
      ttft:
        percentile(
          served.map(({ atMs, firstTokenMs }) => firstTokenMs - atMs),
          95,
        ) / 1000,
    }
  })
  return {
    what: 'S9   the same 400 arrivals, continuous and static: finished within 20 virtual seconds, TTFT p95',
    figure: `${continuous!.inTime} and ${fixed!.inTime}; ${continuous!.ttft.toFixed(2)} s and ${fixed!.ttft.toFixed(2)} s`,
    isMet: continuous!.inTime >= 5 * fixed!.inTime && continuous!.ttft < fixed!.ttft,
    must: '>= 5x; lower',
  }
}

export const claims = [waste, fragmentation, sharedDocument, copyOnWrite, eightSlots, sessions, againstStatic]

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  for (const claim of claims) {
    const { what, figure, isMet, must } = claim()
    console.log(`${what}\n     ${figure}\n     must: ${must}${isMet ? '' : '   MISSED'}`)
    if (!isMet) process.exitCode = 1
  }
}
