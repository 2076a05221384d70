// The random numbers and the race of kernels/philox.h again, written from the paper with BigInt: what the sampling tests
// compare the kernels with.
export function philox(counter: readonly number[], key: readonly number[]): number[] {
  let [c0, c1, c2, c3] = counter as [number, number, number, number]
  let [k0, k1] = key as [number, number]
  for (let round = 0; round < 10; round++) {
    const a = BigInt(c0) * 0xd2511f53n
    const b = BigInt(c2) * 0xcd9e8d57n
    const [high, low] = [(x: bigint) => Number(x >> 32n), (x: bigint) => Number(x & 0xffffffffn)]
    ;[c0, c1, c2, c3] = [(high(b) ^ c1 ^ k0) >>> 0, low(b), (high(a) ^ c3 ^ k1) >>> 0, low(a)]
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  return [c0, c1, c2, c3]
}

export type Draw = { seed: readonly [low: number, high: number]; choice: number; position: number }

export function uniform({ seed, choice, position }: Draw, token: number): number {
  return (philox([token >>> 2, position, choice, 0], seed)[token & 3]! + 0.5) / 2 ** 32
}

/** argmax of weight / -log u over the kept tokens. */
export function race(kept: Map<number, number>, draw: Draw): number {
  let best = -1
  let winner = 0
  for (const [id, weight] of [...kept].sort(([a], [b]) => a - b)) {
    const key = weight / -Math.log(uniform(draw, id))
    if (key > best) [best, winner] = [key, id]
  }
  return winner
}
