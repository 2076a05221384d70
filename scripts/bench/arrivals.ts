// When a benchmark sends its requests, as `vllm bench serve` decides it: all at once, at a mean rate with gamma intervals
// (burstiness 1 is a Poisson process), or at a rate that ramps up.
import type { Options } from './options.ts'
import { Random } from './random.ts'

type Arrivals = Pick<
  Options,
  'num-prompts' | 'request-rate' | 'burstiness' | 'seed' | 'ramp-up-strategy' | 'ramp-up-start-rps' | 'ramp-up-end-rps'
>

/** Seconds after the start, ascending, one per request. Depends on the options only. */
export function arrivalTimes(options: Arrivals): number[] {
  const { 'num-prompts': count, 'request-rate': rate, burstiness } = options
  const isRamp = options['ramp-up-strategy'] !== undefined
  if (!isRamp && !Number.isFinite(rate)) return new Array(count).fill(0)
  const random = new Random(options.seed + 1)
  let total = 0
  const times = Array.from({ length: count }, (_, i) => {
    const rateNow = isRamp ? rampedRate(options, i / Math.max(count - 1, 1)) : rate
    total += random.gamma(burstiness, 1 / (rateNow * burstiness))
    return total
  })
  if (isRamp) return times
  const scale = count / rate / total // so that the mean rate is exact
  return times.map((time) => time * scale)
}

/** `progress` runs from 0, the first request, to 1, the last. */
function rampedRate(options: Arrivals, progress: number): number {
  const start = options['ramp-up-start-rps']
  const end = options['ramp-up-end-rps']
  if (options['ramp-up-strategy'] === 'linear') return start + (end - start) * progress
  return start * (end / start) ** progress
}
