// golden.json: what another implementation computed for a model, in the folder of the model. Also takes the shape of
// the demo model's file ("cases", with the greedy tokens alone).
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { checkJson, parseJson } from '../../engine/weights/json.ts'
import { ModelError } from '../../engine/weights/source.ts'

const ids = z.array(z.int().nonnegative())
const numbers = z.array(z.number())

const Prompt = z.object({
  ids: ids.min(1),
  /** Logits of the last position. */
  last_logits: numbers.optional(),
  /** Of each prompt token given those before it; the first has none. */
  prompt_logprobs: z.array(z.number().nullable()).optional(),
  /** The 20 largest logits of every position. */
  top20_ids: z.array(ids).optional(),
  top20_logits: z.array(numbers).optional(),
  /** What follows greedily, end tokens treated like any other. */
  greedy: ids.min(1),
  /** The greedy tokens as text, special tokens left out. */
  text: z.string().optional(),
})
export type GoldenPrompt = z.infer<typeof Prompt>

const Case = z
  .object({
    prompt_ids: ids.min(1),
    output_ids: ids.min(1),
    stop_index: z.int().nonnegative().nullable(),
    text: z.string(),
  })
  .transform(({ prompt_ids, output_ids, stop_index, text }): GoldenPrompt => {
    const greedy = output_ids.slice(0, stop_index === null ? undefined : stop_index + 1)
    return { ids: prompt_ids, greedy, text }
  })

const Golden = z.union(
  [
    z.looseObject({ prompts: z.array(Prompt).min(1) }),
    z.looseObject({ cases: z.array(Case).min(1) }).transform(({ cases }) => ({ prompts: cases })),
  ],
  'expected "prompts", each with ids and greedy tokens',
)

export function readGolden(folder: string): GoldenPrompt[] {
  const file = join(folder, 'golden.json')
  if (!existsSync(file)) throw new ModelError(`${folder} has no golden.json to compare with`)
  return checkJson(file, Golden, parseJson(file, readFileSync(file, 'utf8'))).prompts
}

/** Made for another model? The kernels take any id for granted. */
export function assertFits(goldens: GoldenPrompt[], vocabularySize: number): void {
  const largest = goldens.reduce((id, golden) => Math.max(id, ...golden.ids, ...golden.greedy), 0)
  if (largest >= vocabularySize) {
    throw new ModelError(`golden.json has token ${largest}, the model's vocabulary ends at ${vocabularySize - 1}`)
  }
}
