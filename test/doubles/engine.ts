// An engine without a model: the token it gives is a function of prompt, choice and index, so any two of them continue
// each other's work. The vocabulary is the alphabet.
import type { EngineStats, SequenceRequest, StepOutput } from '../../engine/engine.ts'
import { Vocab } from '../../engine/output/vocab.ts'
import type { EngineVerbs, StepListener } from '../../engine/thread.ts'

export const LETTERS = 'abcdefghijklmnopqrstuvwxyz'
export const alphabetVocab = new Vocab(
  JSON.stringify({
    model: { type: 'BPE', vocab: Object.fromEntries([...LETTERS].map((letter, id) => [letter, id])) },
    decoder: { type: 'ByteLevel' },
  }),
)

/** The token a model would give. */
export const tokenAt = (prompt: Uint32Array, choice: number, index: number) =>
  ((prompt[0] ?? 0) + 3 * choice + index) % LETTERS.length

/** Lets promise chains that wait for nothing outside run out. */
export const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

export class EngineDouble implements EngineVerbs {
  sequences: { request: SequenceRequest; choice: number; index: number }[] = []
  isPaused = false
  waiting = 0
  freeBlocks = 100
  refuse: string | null = null
  /** An engine that guesses gives several at once. */
  tokensPerStep = (_index: number) => 1
  #listener: StepListener = () => {}
  #steps = 0

  add(request: SequenceRequest) {
    for (let choice = 0; choice < request.sampling.n; choice++) {
      this.sequences.push({ request, choice, index: request.resume[choice]?.length ?? 0 })
    }
  }

  abort(id: string, choice?: number) {
    this.sequences = this.sequences.filter(
      (sequence) => sequence.request.id !== id || (choice !== undefined && sequence.choice !== choice),
    )
  }

  forget() {}

  pause() {
    this.isPaused = true
  }

  resume() {
    this.isPaused = false
  }

  onStep(listener: StepListener) {
    this.#listener = listener
  }

  stats(): EngineStats {
    const { waiting, freeBlocks } = this
    const rest = { waitingTokens: 0, cachedBlocks: 0, kvUsage: 0, prefixQueries: 0, prefixHits: 0, preemptions: 0 }
    const counts = { steps: this.#steps, stepTokens: 0, stepSequences: 0, promptTokens: 0, generationTokens: 0 }
    const speculated = { drafts: 0, draftTokens: 0, acceptedTokens: [] }
    return { ...rest, ...counts, ...speculated, running: this.sequences.length, waiting, totalBlocks: 100, freeBlocks }
  }

  /** One step: a token of every sequence, or several. */
  async step() {
    this.#steps++
    const outputs: StepOutput[] = []
    for (const sequence of this.sequences) {
      const { request, choice, index } = sequence
      const { id, sampling, prompt } = request
      if (id === this.refuse) {
        outputs.push({ type: 'failed', id, code: 'request_failed', message: 'no' })
        continue
      }
      for (let at = index; at < Math.min(index + this.tokensPerStep(index), sampling.maxTokens); at++) {
        const isLast = at + 1 === sampling.maxTokens
        const token = tokenAt(prompt, choice, at)
        outputs.push({ type: 'token', id, choice, token, index: at, ...(isLast && { finish: 'length' as const }) })
        sequence.index++
      }
    }
    this.sequences = this.sequences.filter(({ request, index }) => {
      return index < request.sampling.maxTokens && request.id !== this.refuse
    })
    this.#listener(outputs, this.stats())
    await settled()
  }
}
