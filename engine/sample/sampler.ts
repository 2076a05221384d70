// Logits -> token ids and log-probabilities: packs one row of parameters per sequence for ps_sample (pagestream.h).
//
// Row i draws with u(seed, choice, position), position being the number of tokens its choice has generated so far; it
// depends on nothing else, so neither the batch nor a resume changes what is sampled. Log-probabilities are raw: taken
// from the logits before penalties, bias and temperature.
import type { Sampling } from '../../queue/job.ts'
import type { Device } from '../native/device.ts'
import type { Commands } from '../native/ops.ts'
import type { Tensor } from '../native/tensor.ts'
import type { Sequence } from '../scheduler/sequence.ts'
import { GrowingTensor } from './growing.ts'
import { makeRecipe, type Recipe } from './recipe.ts'

export type Logprob = { id: number; logprob: number; rank: number }
export type Sampled = { tokens: Int32Array; logprobs: (Logprob[] | undefined)[] }

export type SamplerOptions = { vocabularySize: number; eosTokenIds: readonly number[]; maxNumSeqs: number }

/** 4-byte words of a row of parameters. */
const ROW = 16
/** Rows sampled by one op: its workspace is 8 bytes per vocabulary entry and row. */
const ROWS_AT_ONCE = 64

export class Sampler {
  readonly #options: SamplerOptions
  /** A request's choices share its Sampling, and so its recipe. */
  readonly #recipes = new WeakMap<Sampling, Recipe>()
  /** The rows of parameters, as the words and as the floats among them. */
  readonly #words: Int32Array
  readonly #floats: Float32Array
  readonly #params: Tensor
  readonly #allowedRow: Tensor
  readonly #out: Tensor
  readonly #logprob: Tensor
  readonly #rank: Tensor
  readonly #history: GrowingTensor
  readonly #biasIds: GrowingTensor
  readonly #biasValues: GrowingTensor
  readonly #allowed: GrowingTensor
  readonly #workspace: Tensor
  readonly #topIds: GrowingTensor
  readonly #top: GrowingTensor

  constructor(device: Device, options: SamplerOptions) {
    const rows = options.maxNumSeqs
    this.#options = options
    this.#words = new Int32Array(rows * ROW)
    this.#floats = new Float32Array(this.#words.buffer)
    this.#params = device.alloc([rows, ROW], 'i32')
    this.#allowedRow = device.alloc([rows], 'i32')
    this.#out = device.alloc([rows], 'i32')
    this.#logprob = device.alloc([rows], 'f32')
    this.#rank = device.alloc([rows], 'i32')
    this.#history = new GrowingTensor(device, 'i32')
    this.#biasIds = new GrowingTensor(device, 'i32')
    this.#biasValues = new GrowingTensor(device, 'f32')
    this.#allowed = new GrowingTensor(device, 'i32')
    this.#workspace = device.alloc([Math.min(rows, ROWS_AT_ONCE), options.vocabularySize, 2], 'f32')
    this.#topIds = new GrowingTensor(device, 'i32')
    this.#top = new GrowingTensor(device, 'f32')
  }

  /** Throws RequestRefused, naming the field that this model cannot honour. */
  check(sampling: Sampling): void {
    this.#recipe(sampling)
  }

  /** Appends the sampling of row i of `logits` for sequence i. */
  append(commands: Commands, logits: Tensor, sequences: Sequence[]): void {
    const rows = sequences.length
    const { history, bias } = this.#pack(sequences)
    const allowed = this.#packAllowed(sequences)
    for (let from = 0; from < rows; from += ROWS_AT_ONCE) {
      const to = Math.min(rows, from + ROWS_AT_ONCE)
      const part = (tensor: Tensor) => tensor.rows(from, to)
      const mask = allowed && { mask: allowed.mask, row: part(allowed.row) }
      commands.sample(
        part(this.#out),
        part(logits),
        part(this.#params),
        history,
        bias,
        mask,
        to - from,
        this.#workspace,
      )
    }
    const k = mostLogprobs(sequences)
    if (k === null) return
    const tops = { topIds: this.#topIds.fit(rows * k), top: this.#top.fit(rows * k) }
    commands.logprobs({ ...tops, logprob: this.#logprob, rank: this.#rank }, logits, this.#out, rows, k)
  }

  /** What was appended for these sequences, once the commands have run. */
  read(sequences: Sequence[]): Sampled {
    const rows = sequences.length
    const tokens = Int32Array.from(this.#out.rows(0, rows).read())
    const most = mostLogprobs(sequences)
    if (most === null) return { tokens, logprobs: [] }
    const chosen = this.#logprob.rows(0, rows).read()
    const ranks = this.#rank.rows(0, rows).read()
    const ids = this.#topIds.read(rows * most)
    const tops = this.#top.read(rows * most)
    const logprobs = sequences.map(({ request }, row) => {
      const k = request.sampling.logprobs
      if (k === null) return undefined
      const records: Logprob[] = [{ id: tokens[row]!, logprob: chosen[row]!, rank: ranks[row]! }]
      for (let i = 0, at = row * most; i < k; i++, at++) records.push({ id: ids[at]!, logprob: tops[at]!, rank: i + 1 })
      return records
    })
    return { tokens, logprobs }
  }

  free(): void {
    for (const tensor of [this.#params, this.#allowedRow, this.#workspace]) tensor.free()
    for (const tensor of [this.#out, this.#logprob, this.#rank, this.#topIds, this.#top]) tensor.free()
    for (const tensor of [this.#history, this.#biasIds, this.#biasValues, this.#allowed]) tensor.free()
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
  #pack(sequences: Sequence[]): { history: Tensor; bias: { ids: Tensor; values: Tensor } } {
    const history = new Int32Array(sequences.reduce((sum, each) => sum + this.#historyLength(each), 0))
    let historyEnd = 0
    const ids: number[] = []
    const values: number[] = []
    for (const [row, sequence] of sequences.entries()) {
      const { sampling, seedLow, seedHigh, hasPenalties, bias, earlyBias } = this.#recipe(sequence.request.sampling)
      const historyBegin = historyEnd
      if (hasPenalties) history.set(sequence.tokens.view, historyBegin)
      historyEnd += this.#historyLength(sequence)
      const biasBegin = ids.length
      const added = sequence.generated < sampling.minTokens ? earlyBias : bias
      for (const id of added.ids) ids.push(id)
      for (const value of added.values) values.push(value)

      const at = row * ROW
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
      this.#words[at + 11] = sequence.generated
      this.#words[at + 12] = historyBegin
      this.#words[at + 13] = historyEnd
      this.#words[at + 14] = biasBegin
      this.#words[at + 15] = ids.length
    }
    this.#params.write(this.#words.subarray(0, sequences.length * ROW))
    return {
      history: this.#history.write(history),
      bias: {
        ids: this.#biasIds.write(Int32Array.from(ids)),
        values: this.#biasValues.write(Float32Array.from(values)),
      },
    }
  }

  #historyLength(sequence: Sequence): number {
    return this.#recipe(sequence.request.sampling).hasPenalties ? sequence.length : 0
  }

  /** One mask per row that has one; the choices of a request repeat it. */
  #packAllowed(sequences: Sequence[]): { mask: Tensor; row: Tensor } | null {
    const masks = sequences.map(({ request }) => this.#recipe(request.sampling).allowed)
    if (masks.every((mask) => mask === null)) return null
    const words = Math.ceil(this.#options.vocabularySize / 32)
    const packed = new Int32Array(words * masks.filter((mask) => mask !== null).length)
    const rows = new Int32Array(masks.length).fill(-1)
    let used = 0
    for (const [row, mask] of masks.entries()) {
      if (!mask) continue
      packed.set(mask, used * words)
      rows[row] = used++
    }
    this.#allowedRow.write(rows)
    return { mask: this.#allowed.write(packed), row: this.#allowedRow }
  }
}

/** The largest k that any of them asks for; null if none asks for log-probabilities at all. */
function mostLogprobs(sequences: Sequence[]): number | null {
  return sequences.reduce<number | null>((most, { request }) => {
    const k = request.sampling.logprobs
    return k === null ? most : Math.max(k, most ?? 0)
  }, null)
}
