// Rotary position embedding (arXiv 2104.09864): how a checkpoint describes it, and the table of cosines and sines that
// the rope kernel reads. Angles are rounded to float32 at the same places as in Hugging Face's code, so that long
// positions agree to the last digits.
import { z } from 'zod'
import { checkJson } from '../weights/json.ts'
import { ModelError } from '../weights/source.ts'

export type RopeConfig = {
  theta: number
  /** The first `size` dimensions of each head are rotated. */
  size: number
  scaling:
    | { type: 'default' }
    | { type: 'linear'; factor: number }
    | { type: 'llama3'; factor: number; lowFrequency: number; highFrequency: number; originalPositions: number }
}

const positive = z.number().positive()
const Scaling = z.discriminatedUnion(
  'rope_type',
  [
    z.looseObject({ rope_type: z.literal('default') }),
    z.looseObject({ rope_type: z.literal('linear'), factor: positive }),
    z.looseObject({
      rope_type: z.literal('llama3'),
      factor: positive,
      low_freq_factor: positive,
      high_freq_factor: positive,
      original_max_position_embeddings: positive,
    }),
  ],
  'not supported; supported: default, linear, llama3',
)
type Scaling = z.infer<typeof Scaling>

const Rotation = z.looseObject({
  rope_theta: positive.default(10000),
  partial_rotary_factor: positive.max(1).default(1),
})

/**
 * Two forms are in use: `rope_theta` beside `rope_scaling` (whose type is called `type` in old files), and since
 * transformers 5 `rope_parameters` with everything inside.
 */
export function parseRope(raw: Record<string, unknown>, headSize: number): RopeConfig {
  const field = raw.rope_parameters ? 'rope_parameters' : 'rope_scaling'
  const described = checkJson('config.json', z.record(z.string(), z.unknown()).nullish(), raw[field], field) ?? {}
  const type = described.rope_type ?? described.type ?? 'default'
  const scaling = checkJson('config.json', Scaling, { ...described, rope_type: type }, field)
  const { rope_theta: theta, partial_rotary_factor } = checkJson('config.json', Rotation, { ...raw, ...described })
  const size = Math.floor(headSize * partial_rotary_factor)
  if (size % 2 !== 0)
    throw new ModelError(`config.json: head_dim: ${size} rotary dimensions cannot be paired; an even number is needed`)
  return { theta, size, scaling: namedScaling(scaling) }
}

function namedScaling(scaling: Scaling): RopeConfig['scaling'] {
  if (scaling.rope_type === 'default') return { type: 'default' }
  if (scaling.rope_type === 'linear') return { type: 'linear', factor: scaling.factor }
  const { factor, low_freq_factor: lowFrequency, high_freq_factor: highFrequency } = scaling
  if (highFrequency <= lowFrequency) {
    throw new ModelError(
      `config.json: rope scaling: high_freq_factor, ${highFrequency}, must be above low_freq_factor, ${lowFrequency}`,
    )
  }
  return {
    type: 'llama3',
    factor,
    lowFrequency,
    highFrequency,
    originalPositions: scaling.original_max_position_embeddings,
  }
}

/** [positions, size]: in each row size/2 cosines, then size/2 sines. */
export function cosSinTable(rope: RopeConfig, positions: number): Float32Array {
  const frequencies = inverseFrequencies(rope)
  const half = frequencies.length
  const table = new Float32Array(positions * rope.size)
  for (let position = 0; position < positions; position++) {
    const row = position * rope.size
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * frequencies[i]!)
      table[row + i] = Math.cos(angle)
      table[row + half + i] = Math.sin(angle)
    }
  }
  return table
}

/** theta^(-2i / size), rescaled so that a model trained on short positions reaches longer ones. */
function inverseFrequencies({ theta, size, scaling }: RopeConfig): Float32Array {
  return Float32Array.from({ length: size / 2 }, (_, i) => {
    const frequency = Math.fround(1 / Math.fround(theta ** Math.fround((2 * i) / size)))
    if (scaling.type === 'default') return frequency
    if (scaling.type === 'linear') return frequency / scaling.factor
    // Llama 3.1: slow rotations are stretched, fast ones kept, those between interpolated.
    const turns = (scaling.originalPositions * frequency) / (2 * Math.PI)
    const { factor, lowFrequency, highFrequency } = scaling
    if (turns < lowFrequency) return frequency / factor
    if (turns > highFrequency) return frequency
    const smooth = (turns - lowFrequency) / (highFrequency - lowFrequency)
    return ((1 - smooth) * frequency) / factor + smooth * frequency
  })
}
