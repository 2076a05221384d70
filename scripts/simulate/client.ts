// One request and its client, who writes down what it hears and at the end says what was wrong with it: a token lost,
// repeated, out of order or of another history, text or finish that the tokens do not give, an end that is clean but too
// early, wrong usage. An explicit error is no violation; it is counted.
import { OutputProcessor } from '../../engine/output/processor.ts'
import type { ApiError } from '../../gateway/errors.ts'
import type { Listener } from '../../gateway/generation.ts'
import type { Finish, Token, Usage } from '../../queue/event.ts'
import type { Job } from '../../queue/job.ts'
import { eosTokenIds, Oracle, vocab } from './model.ts'

/** `refused`: an error instead of an answer; `failed`: an error after the request was queued; `broken`: the gateway died;
 * `gone`: the client hung up. */
export type End = 'done' | 'refused' | 'failed' | 'broken' | 'gone'

export class Client implements Listener {
  readonly job: Job
  end: End | null = null
  /** Code and message of the error. */
  error: string | null = null
  readonly #choices: { tokens: Token[]; finish: Finish | null }[]
  readonly #wrong: string[] = []
  /** The same request, over a connection that broke. */
  readonly #before: Client | null
  #usage: Usage | null = null

  constructor(job: Job, before: Client | null = null) {
    this.job = job
    this.#before = before
    this.#choices = Array.from({ length: job.sampling.n }, () => ({ tokens: [], finish: null }))
  }

  tokens(choice: number, tokens: Token[]): void {
    this.#hear('tokens')
    if (this.#choices[choice]!.finish) this.#wrong.push(`choice ${choice}: tokens after its finish`)
    this.#choices[choice]!.tokens.push(...tokens)
  }

  finish(choice: number, { text, reason, stopReason }: Finish): void {
    this.#hear('finish')
    if (this.#choices[choice]!.finish) this.#wrong.push(`choice ${choice}: a second finish`)
    this.#choices[choice]!.finish = { text, reason, stopReason }
  }

  done(usage: Usage): void {
    this.#hear('done')
    this.#usage = usage
    this.close('done')
  }

  failed(error: ApiError): void {
    this.#hear('failed')
    this.close('failed', `${error.code}: ${error.message}`)
  }

  close(end: End, error: string | null = null): void {
    if (this.end) return
    this.end = end
    this.error = error
  }

  get received(): number {
    return this.#choices.reduce((sum, { tokens }) => sum + tokens.length, 0)
  }

  /** What the client was given that it should not have been. */
  violations(isDeterministic: boolean): string[] {
    const wrong = [...this.#wrong]
    for (const [choice, { tokens, finish }] of this.#choices.entries()) {
      const complaint = this.#audit(choice, tokens, finish, isDeterministic)
      if (complaint) wrong.push(`choice ${choice}: ${complaint}`)
    }
    if (this.end === 'done') {
      const { promptTokens, completionTokens, cachedTokens } = this.#usage!
      if (cachedTokens > promptTokens) wrong.push(`usage: ${cachedTokens} cached tokens`)
      if (promptTokens !== this.job.prompt.length) wrong.push(`usage: ${promptTokens} prompt tokens`)
      if (completionTokens !== this.received) {
        wrong.push(`usage: ${completionTokens} completion tokens, ${this.received} came`)
      }
    }
    return wrong.map((what) => `request ${this.job.id}: ${what}`)
  }

  /** Where the answer is another than the one this client was getting before: the request is generated once. */
  changes(): string[] {
    if (!this.#before) return []
    return this.#before.#choices.flatMap(({ tokens }, choice) => {
      const again = this.#choices[choice]!.tokens
      const at = tokens.findIndex(({ id }, i) => i < again.length && again[i]!.id !== id)
      return at < 0
        ? []
        : [`request ${this.job.id}: choice ${choice}: token ${at} is another since the client came back`]
    })
  }

  #hear(what: string): void {
    if (this.end) this.#wrong.push(`${what} after the end (${this.end})`)
  }

  /** The tokens must be a continuation of the prompt, and everything else what the output processor makes of them. */
  #audit(choice: number, tokens: Token[], finish: Finish | null, isDeterministic: boolean): string | null {
    const { prompt, sampling, id } = this.job
    const oracle = new Oracle(prompt, sampling, choice, isDeterministic)
    const processor = new OutputProcessor(vocab)
    const expected = processor.add(this.job).choices[choice]!
    for (const [index, token] of tokens.entries()) {
      if (expected.finish) return `goes on after token ${index - 1}, which ended it`
      if (!oracle.accepts(token.id)) return `token ${index} (id ${token.id}) does not follow from those before it`
      const isEos = !sampling.ignoreEos && eosTokenIds.includes(token.id) && index + 1 >= sampling.minTokens
      const ending = isEos ? 'stop' : index + 1 === sampling.maxTokens ? 'length' : null
      processor.process([{ type: 'token', id, choice, token: token.id, index, ...(ending && { finish: ending }) }])
      const { text } = expected.tokens[index]!
      if (token.text !== text)
        return `token ${index} came with ${JSON.stringify(token.text)}, not ${JSON.stringify(text)}`
    }
    if (this.end === 'done' && !finish) return `a clean end after ${tokens.length} tokens without a finish`
    if (finish && !expected.finish) return `finished as ${finish.reason} after ${tokens.length} tokens, too early`
    if (finish && JSON.stringify(finish) !== JSON.stringify(expected.finish)) {
      return `finish ${JSON.stringify(finish)}, not ${JSON.stringify(expected.finish)}`
    }
    return null
  }
}
