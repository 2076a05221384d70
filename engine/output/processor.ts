// What the engine sampled -> what the client gets: text per token, log-probability records, finish reasons, usage.
// Lives on the main thread (the engine thread never touches text). The daemon and LLM read `RequestOutput`, which keeps
// every token of a running request, so whatever was lost on the way can be sent again.
//
// The rule: a token's text is a function of prompt, ids and sampling alone. A request that was cut off anywhere and
// resumed from its journal continues exactly as if it had not been.
import type { Element, Finish, Token, TokenLogprob, Usage } from '../../queue/event.ts'
import type { Sampling } from '../../queue/job.ts'
import { Detokenizer } from './detokenizer.ts'
import { StopStrings } from './stop.ts'
import type { Vocab } from './vocab.ts'

/** As sampled; the bytes of a token are added here. */
type Logprob = { id: number; logprob: number; rank: number }

/**
 * What the engine reports of a choice: a sampled token, or the end of one whose resumed tokens were complete already. Of a
 * request's prompt: log-probabilities of its tokens from, from + 1, ..., before the first token of any choice.
 */
export type SequenceOutput =
  | {
      type: 'token'
      id: string
      choice: number
      token: number
      /** Position in the choice's output, counted from its very first token. */
      index: number
      /** The sampled token first, then the most likely ones in order. */
      logprobs?: Logprob[]
      finish?: 'stop' | 'length'
      /** The stop token of the request that ended it; absent for end of sequence. */
      stopTokenId?: number
      /** With the first token: prompt tokens found in the prefix cache. */
      cachedTokens?: number
    }
  | { type: 'finish'; id: string; choice: number; index: number; finish: 'stop' | 'length'; stopTokenId?: number }
  | { type: 'prompt'; id: string; from: number; logprobs: Logprob[][] }

export type OutputRequest = { id: string; prompt: Uint32Array; sampling: Sampling }

export class OutputProcessor {
  #vocab: Vocab
  #requests = new Map<string, RequestOutput>()

  constructor(vocab: Vocab) {
    this.#vocab = vocab
  }

  /** `journal`: per choice what was already emitted, by this engine or another; empty for a fresh request. */
  add(request: OutputRequest, journal: Element[][] = []): RequestOutput {
    const output = new RequestOutput(this.#vocab, request, journal)
    this.#requests.set(request.id, output)
    return output
  }

  remove(id: string) {
    this.#requests.delete(id)
  }

  /** Takes in one step. `stopped`: choices that a stop string ended, which the engine does not know of yet. */
  process(outputs: SequenceOutput[]): { touched: Set<RequestOutput>; stopped: { id: string; choice: number }[] } {
    const touched = new Set<RequestOutput>()
    const stopped: { id: string; choice: number }[] = []
    for (const output of outputs) {
      const request = this.#requests.get(output.id)
      if (output.type === 'prompt') {
        request?.addPrompt(output)
        continue
      }
      const choice = request?.choices[output.choice]
      // A step that ran before an abort arrived still reports tokens of what was aborted.
      if (!request || !choice || choice.finish) continue
      if (output.type === 'token') request.cachedTokens = Math.max(request.cachedTokens, output.cachedTokens ?? 0)
      choice.push(output)
      touched.add(request)
      if (choice.finish && !output.finish) stopped.push({ id: output.id, choice: output.choice })
    }
    return { touched, stopped }
  }
}

/** One request: its choices and, when all are finished, its usage. */
export class RequestOutput {
  readonly id: string
  readonly choices: ChoiceOutput[]
  cachedTokens = 0
  readonly #vocab: Vocab
  readonly #promptTokens: number
  /** Per token of the prompt its records, as every choice's first token carries them; null unless asked for. */
  readonly #promptRecords: TokenLogprob[][] | null

  constructor(vocab: Vocab, request: OutputRequest, journal: Element[][]) {
    this.id = request.id
    this.#vocab = vocab
    this.#promptTokens = request.prompt.length
    this.#promptRecords = (request.sampling.promptLogprobs ?? null) === null ? null : journalledPrompt(journal)
    // Nothing stands before the first token, so it has no probability.
    if (this.#promptRecords?.length === 0)
      this.addPrompt({ logprobs: [[{ id: request.prompt[0]!, logprob: 0, rank: 0 }]] })
    this.choices = Array.from(
      { length: request.sampling.n },
      (_, choice) => new ChoiceOutput(vocab, request, journal[choice] ?? [], this.#promptRecords),
    )
  }

  addPrompt({ logprobs }: { logprobs: Logprob[][] }) {
    // Beams are computed anew after a resume, and the journal has the records.
    if ((this.#promptRecords?.length ?? 0) === this.#promptTokens) return
    for (const records of logprobs) this.#promptRecords?.push(records.map((record) => withBytes(this.#vocab, record)))
  }

  get isFinished(): boolean {
    return this.choices.every((choice) => choice.finish !== null)
  }

  get usage(): Usage {
    const completionTokens = this.choices.reduce((sum, choice) => sum + choice.tokens.length, 0)
    return { promptTokens: this.#promptTokens, completionTokens, cachedTokens: this.cachedTokens }
  }
}

/** One choice: the tokens so far and how it ended. */
export class ChoiceOutput {
  readonly tokens: Token[] = []
  finish: Finish | null = null
  #vocab: Vocab
  #sampling: Sampling
  #detokenizer: Detokenizer
  #stops: StopStrings
  readonly #promptRecords: TokenLogprob[][] | null

  /** `promptRecords`: for the first token to carry, complete by then. */
  constructor(vocab: Vocab, request: OutputRequest, journal: Element[], promptRecords: TokenLogprob[][] | null) {
    const { sampling, prompt } = request
    this.#vocab = vocab
    this.#sampling = sampling
    this.#promptRecords = promptRecords
    this.#detokenizer = new Detokenizer(vocab, { skipSpecialTokens: sampling.skipSpecialTokens, prompt })
    this.#stops = new StopStrings(sampling.stop, { include: sampling.includeStopString })
    for (const element of journal) this.#replay(element)
  }

  push(output: Exclude<SequenceOutput, { type: 'prompt' }>) {
    if (output.index !== this.tokens.length) {
      throw new Error(
        `token ${output.index} of ${output.id}/${output.choice} came where ${this.tokens.length} was next`,
      )
    }
    if (output.type === 'token') this.#take(output)
    if (this.#stops.matched !== null) this.finish = { text: '', reason: 'stop', stopReason: this.#stops.matched }
    else if (output.finish) this.finish = this.#end(output.finish, output.stopTokenId ?? null)
  }

  #take({ token: id, finish, logprobs }: SequenceOutput & { type: 'token' }) {
    // The token that ended the sequence is counted and reported, but its text belongs to the answer only on request.
    const isText = finish !== 'stop' || this.#sampling.includeStopString
    const token: Token = { id, text: isText ? this.#text(id) : '' }
    if (logprobs) token.logprobs = logprobs.map((record) => withBytes(this.#vocab, record))
    if (this.#promptRecords && this.tokens.length === 0) token.prompt = this.#promptRecords
    this.tokens.push(token)
  }

  #text(id: number): string {
    return this.#stops.push(this.#detokenizer.push(id), this.tokens.length >= this.#sampling.minTokens)
  }

  #end(reason: 'stop' | 'length', stopReason: number | null): Finish {
    const text = this.#stops.push(this.#detokenizer.flush(), false) + this.#stops.flush()
    return { text, reason, stopReason }
  }

  #replay(element: Element) {
    if ('finish' in element) {
      this.finish = element.finish
      return
    }
    this.#text(element.token.id)
    this.tokens.push(element.token)
    if (this.#stops.matched !== null) this.finish = { text: '', reason: 'stop', stopReason: this.#stops.matched }
  }
}

function withBytes(vocab: Vocab, record: Logprob): TokenLogprob {
  return { ...record, bytes: [...vocab.bytes(record.id)] }
}

/** The records of the prompt that some choice's first token took to the journal; a list to fill if none did. */
function journalledPrompt(journal: Element[][]): TokenLogprob[][] {
  for (const [first] of journal) if (first && 'token' in first && first.token.prompt) return first.token.prompt
  return []
}
