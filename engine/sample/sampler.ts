// Logits -> token ids and log-probabilities: packs one row of parameters per sampled row for ps_sample (pagestream.h).
// A step is pack(), append() for each piece of the logits, the run of the commands, read().
//
// A row draws with u(seed, choice, position), position being the number of tokens of its choice before it; it depends
// on nothing else, so neither the batch nor a resume nor guesses that precede it change what is sampled. Log-probabilities
// are raw: taken from the logits before penalties, bias and temperature.
import type { Sampling } from '../../queue/job.ts'
import type { Device, DType } from '../native/device.ts'
import type { Commands } from '../native/ops.ts'
import type { Tensor } from '../native/tensor.ts'
import type { LogitRow } from '../scheduler/rows.ts'
import { GrowingTensor } from './growing.ts'
import { makeRecipe, type Recipe } from './recipe.ts'

export type Logprob = { id: number; logprob: number; rank: number }
export type Sampled = {
  /** Of the sampled rows. */
  tokens: Int32Array
  /** Of all rows, the sampled or scored token first; undefined where nobody asked. */
  logprobs: (Logprob[] | undefined)[]
}

export type SamplerOptions = { vocabularySize: number; eosTokenIds: readonly number[] }

/** Rows of logits taken at a time: they and the workspace of sampling are 12 bytes per vocabulary entry and row. */
export const LOGITS_AT_ONCE = 64

/** 4-byte words of a row of parameters. */
const ROW = 16

export class Sampler {
  readonly #options: SamplerOptions
  /** A request's choices share its Sampling, and so its recipe. */
  readonly #recipes = new WeakMap<Sampling, Recipe>()
  /** The rows of parameters, as the words and as the floats among them. */
  #words = new Int32Array(0)
  #floats = new Float32Array(0)
  readonly #params: GrowingTensor
  readonly #history: GrowingTensor
  readonly #biasIds: GrowingTensor
  readonly #biasValues: GrowingTensor
  readonly #allowed: GrowingTensor
  readonly #allowedRow: GrowingTensor
  readonly #workspace: Tensor
  /** Of all rows the token: sampled, or given to be scored. */
  readonly #out: GrowingTensor
  readonly #logprob: GrowingTensor
  readonly #rank: GrowingTensor
  readonly #topIds: GrowingTensor
  readonly #top: GrowingTensor
  #step: Step | null = null

  constructor(device: Device, options: SamplerOptions) {
    const growing = (dtype: DType) => new GrowingTensor(device, dtype)
    this.#options = options
    this.#params = growing('i32')
    this.#history = growing('i32')
    this.#biasIds = growing('i32')
    this.#biasValues = growing('f32')
    this.#allowed = growing('i32')
    this.#allowedRow = growing('i32')
    this.#workspace = device.alloc([LOGITS_AT_ONCE, options.vocabularySize, 2], 'f32')
    this.#out = growing('i32')
    this.#logprob = growing('f32')
    this.#rank = growing('i32')
    this.#topIds = growing('i32')
    this.#top = growing('f32')
  }

  /** Throws RequestRefused, naming the field that this model cannot honour. */
  check(sampling: Sampling): void {
    this.#recipe(sampling)
  }

  /** Before the step's commands run: what all its rows of logits, in this order, are wanted for. */
  pack(sampled: LogitRow[], scored: LogitRow[] = []): void {
    const rows = [...sampled, ...scored]
    const k = mostLogprobs(rows)
    const tokens = new Int32Array(rows.length)
    for (const [i, { sequence, scored: index }] of scored.entries()) {
      tokens[sampled.length + i] = sequence.tokens.at(index!)
    }
    this.#out.write(tokens)
    if (k !== null) {
      for (const tensor of [this.#logprob, this.#rank]) tensor.fit(rows.length)
      for (const tensor of [this.#topIds, this.#top]) tensor.fit(rows.length * k)
    }
    const packed = this.#pack(sampled)
    this.#step = { rows, sampled: sampled.length, k, ...packed, allowed: this.#packAllowed(sampled) }
  }

  /** Appends what is to be done with `logits`: those of rows first, first + 1, ... */
  append(commands: Commands, logits: Tensor, first: number): void {
    const { sampled, k, history, bias, allowed } = this.#step!
    const count = logits.shape[0]!
    for (let from = first; from < Math.min(first + count, sampled); from += LOGITS_AT_ONCE) {
      const to = Math.min(first + count, sampled, from + LOGITS_AT_ONCE)
      commands.sample(
        this.#out.rows(from, to),
        logits.rows(from - first, to - first),
        this.#params.rows(from * ROW, to * ROW),
        history,
        bias,
        allowed && { mask: allowed.mask, row: allowed.row.rows(from, to) },
        to - from,
        this.#workspace,
      )
    }
    if (k === null) return
    const part = (tensor: GrowingTensor, width = 1) => tensor.rows(first * width, (first + count) * width)
    const records = { topIds: part(this.#topIds, k), top: part(this.#top, k) }
    const own = { logprob: part(this.#logprob), rank: part(this.#rank) }
    commands.logprobs({ ...records, ...own }, logits, part(this.#out), count, k)
  }

  /** What came of the rows that were packed, once the commands have run. */
  read(): Sampled {
    const { rows, sampled, k: most } = this.#step!
    const all = this.#out.rows(0, rows.length).read() as Int32Array
    const tokens = all.slice(0, sampled)
    if (most === null) return { tokens, logprobs: [] }
    const chosen = this.#logprob.rows(0, rows.length).read()
    const ranks = this.#rank.rows(0, rows.length).read()
    const ids = this.#topIds.rows(0, rows.length * most).read()
    const tops = this.#top.rows(0, rows.length * most).read()
    const logprobs = rows.map((each, row) => {
      const k = logprobsOf(each)
      if (k === null) return undefined
      const records: Logprob[] = [{ id: all[row]!, logprob: chosen[row]!, rank: ranks[row]! }]
      for (let i = 0, at = row * most; i < k; i++, at++) records.push({ id: ids[at]!, logprob: tops[at]!, rank: i + 1 })
      return records
    })
    return { tokens, logprobs }
  }

  free(): void {
    for (const tensor of [this.#params, this.#history, this.#biasIds, this.#biasValues]) tensor.free()
    for (const tensor of [this.#allowed, this.#allowedRow, this.#workspace, this.#out]) tensor.free()
    for (const tensor of [this.#logprob, this.#rank, this.#topIds, this.#top]) tensor.free()
  }

  #recipe(sampling: Sampling): Recipe {
    let recipe = this.#recipes.get(sampling)
    if (!recipe) {
      recipe = makeRecipe(sampling, this.#options)
      this.#recipes.set(sampling, recipe)
    }
    return recipe
  }

  /** The rows of parameters, and beside them the tokens that penalties look at and the biases. */
  #pack(rows: LogitRow[]): { history: Tensor; bias: { ids: Tensor; values: Tensor } } {
    this.#fitParams(rows.length)
    const history = new Int32Array(rows.reduce((sum, each) => sum + this.#historyLength(each), 0))
    let historyEnd = 0
    const ids: number[] = []
    const values: number[] = []
    for (const [i, row] of rows.entries()) {
      const { sequence, draft } = row
      const { sampling, seedLow, seedHigh, hasPenalties, bias, earlyBias, badWords } = this.#recipe(
        sequence.request.sampling,
      )
      const position = sequence.generated + draft.length
      const historyBegin = historyEnd
      if (hasPenalties) {
        history.set(sequence.tokens.view, historyBegin)
        history.set(draft, historyBegin + sequence.length)
      }
      historyEnd += this.#historyLength(row)
      const biasBegin = ids.length
      const added = position < sampling.minTokens ? earlyBias : bias
      for (const id of added.ids) ids.push(id)
      for (const value of added.values) values.push(value)
      for (const { before, last } of badWords) {
        if (!endsWith(row, before)) continue
        ids.push(last)
        values.push(Number.NEGATIVE_INFINITY)
      }

      const at = i * ROW
      this.#floats[at] = sampling.temperature
      this.#floats[at + 1] = sampling.topP
      this.#floats[at + 2] = sampling.minP
      this.#floats[at + 3] = sampling.repetitionPenalty
      this.#floats[at + 4] = sampling.frequencyPenalty
      this.#floats[at + 5] = sampling.presencePenalty
      this.#words[at + 6] = sampling.topK
      this.#words[at + 7] = sequence.request.prompt.length
      this.#words[at + 8] = seedLow
      this.#words[at + 9] = seedHigh
      this.#words[at + 10] = sequence.choice
      this.#words[at + 11] = position
      this.#words[at + 12] = historyBegin
      this.#words[at + 13] = historyEnd
      this.#words[at + 14] = biasBegin
      this.#words[at + 15] = ids.length
    }
    this.#params.write(this.#words.subarray(0, rows.length * ROW))
    return {
      history: this.#history.write(history),
      bias: {
        ids: this.#biasIds.write(Int32Array.from(ids)),
        values: this.#biasValues.write(Float32Array.from(values)),
      },
    }
  }

  #fitParams(rows: number): void {
    if (rows * ROW <= this.#words.length) return
    this.#words = new Int32Array(2 * rows * ROW)
    this.#floats = new Float32Array(this.#words.buffer)
  }

  #historyLength({ sequence, draft }: LogitRow): number {
    return this.#recipe(sequence.request.sampling).hasPenalties ? sequence.length + draft.length : 0
  }

  /** One mask per row that has one; the choices of a request repeat it. */
  #packAllowed(rows: LogitRow[]): { mask: Tensor; row: Tensor } | null {
    const masks = rows.map(({ sequence }) => this.#recipe(sequence.request.sampling).allowed)
    if (masks.every((mask) => mask === null)) return null
    const words = Math.ceil(this.#options.vocabularySize / 32)
    const packed = new Int32Array(words * masks.filter((mask) => mask !== null).length)
    const maskRows = new Int32Array(masks.length).fill(-1)
    let used = 0
    for (const [row, mask] of masks.entries()) {
      if (!mask) continue
      packed.set(mask, used * words)
      maskRows[row] = used++
    }
    return { mask: this.#allowed.write(packed), row: this.#allowedRow.write(maskRows) }
  }
}

/** What pack() prepared for append() and read(). */
type Step = {
  rows: LogitRow[]
  /** Of the rows, the first so many. */
  sampled: number
  /** Most log-probabilities that any row asks for; null: none at all. */
  k: number | null
  history: Tensor
  bias: { ids: Tensor; values: Tensor }
  allowed: { mask: Tensor; row: Tensor } | null
}

function logprobsOf({ sequence, scored }: LogitRow): number | null {
  const { logprobs, promptLogprobs = null } = sequence.request.sampling
  return scored === null ? logprobs : promptLogprobs
}

function mostLogprobs(rows: LogitRow[]): number | null {
  return rows.reduce<number | null>((most, row) => {
    const k = logprobsOf(row)
    return k === null ? most : Math.max(k, most ?? 0)
  }, null)
}

/** Whether the output before the row ends with these tokens; the prompt does not count, as in vLLM. */
function endsWith({ sequence, draft }: LogitRow, tail: number[]): boolean {
  if (tail.length > sequence.generated + draft.length) return false
  const from = sequence.length + draft.length - tail.length
  return tail.every((id, i) => {
    const at = from + i
    return id === (at < sequence.length ? sequence.tokens.at(at) : draft[at - sequence.length])
  })
}
