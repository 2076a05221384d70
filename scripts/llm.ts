// Offline generation with vLLM's API: no HTTP, no Redis, one continuous batch over all prompts.
//
//   const llm = new LLM({ model: './folder' })
//   const outputs = await llm.generate(prompts, new SamplingParams({ temperature: 0.8, top_p: 0.95 }))
//   for (const { prompt, outputs: [best] } of outputs) console.log(prompt, best.text)
//
// The package's main export. The engine runs in the caller's thread and lets the event loop in between steps. Calls may
// overlap: their prompts join the same batch. Results come in the order of the prompts.
import { type EngineConfig, type EngineOptions, parseEngineConfig } from '../engine/config.ts'
import type { Engine, StepOutput } from '../engine/engine.ts'
import { loadEngine, type ModelFacts, openModel, sourceSettings } from '../engine/load.ts'
import { samplingDefaults } from '../engine/model-card.ts'
import { type ChoiceOutput, type RequestOutput as Output, OutputProcessor } from '../engine/output/processor.ts'
import { Vocab } from '../engine/output/vocab.ts'
import { parseTemplate, render, type Variables } from '../gateway/prompt/template.ts'
import { PromptEncoder } from '../gateway/prompt/tokenizer.ts'
import { systemClock } from '../queue/clock.ts'
import { buildKernels } from './build.ts'
import { keyOf } from './cli/flags.ts'
import { loadingProgress, log } from './cli/log.ts'
import { ignoredFlags } from './cli/server-flags.ts'
import { showPrompts } from './prompt-progress.ts'
import { SamplingParams } from './sampling-params.ts'

export type { CamelSamplingOptions, SamplingOptions } from './sampling-params.ts'
export { SamplingParams }

/** The flags of `pagestream serve` that concern the engine, as fields: maxModelLen or max_model_len. */
export type LLMOptions = EngineOptions & Record<string, unknown>

export type Prompt = string | { prompt: string } | { prompt_token_ids: ArrayLike<number>; prompt?: string }
export type Message = { role: string; content: string } & Record<string, unknown>

export type GenerateOptions = {
  /** false: no progress bar. */
  use_tqdm?: boolean
}
export type ChatOptions = GenerateOptions & {
  add_generation_prompt?: boolean
  tools?: unknown[]
  chat_template_kwargs?: Variables
}

export type Logprob = { logprob: number; rank: number; decoded_token: string }
export type CompletionOutput = {
  index: number
  text: string
  token_ids: number[]
  /** Sum over the tokens; null unless log-probabilities were asked for. */
  cumulative_logprob: number | null
  /** Per token the sampled one and the most likely ones, by id. */
  logprobs: Record<number, Logprob>[] | null
  finish_reason: 'stop' | 'length' | 'abort'
  stop_reason: string | number | null
}
export type RequestOutput = {
  request_id: string
  prompt: string | null
  prompt_token_ids: number[]
  /** Per token of the prompt, by id; null for the first, and altogether unless asked for. */
  prompt_logprobs: (Record<number, Logprob> | null)[] | null
  outputs: [CompletionOutput, ...CompletionOutput[]]
  finished: true
  num_cached_tokens: number
}

type Loaded = {
  config: EngineConfig
  facts: ModelFacts
  engine: Engine
  encoder: PromptEncoder
  vocab: Vocab
  close(): void
}
/** Reads what it wants to know by engine.stats(). */
export type StepListener = (engine: Pick<Engine, 'stats'>) => void
type Pending = { resolve(output: Output): void; reject(error: Error): void }

/** Longest time in ms that the event loop waits for the engine, steps longer than that aside. */
const YIELD_MS = 10

export class LLM {
  readonly #loaded: Promise<Loaded>
  readonly #pending = new Map<string, Pending>()
  #processor: OutputProcessor | null = null
  #pumping: Promise<void> | null = null
  #requests = 0

  readonly #onStep: StepListener

  /** Begins to load at once; whatever is called first waits for it. `onStep` is told of every step of the engine. */
  constructor(options: LLMOptions | string, onStep: StepListener = () => {}) {
    this.#onStep = onStep
    const config = parseEngineConfig(engineOptions(typeof options === 'string' ? { model: options } : options))
    this.#loaded = load(config)
    // Whoever awaits the model hears of it.
    this.#loaded.catch(() => {})
  }

  /** Resolves when the model is loaded. */
  static async create(options: LLMOptions | string, onStep?: StepListener): Promise<LLM> {
    const llm = new LLM(options, onStep)
    await llm.#loaded
    return llm
  }

  /** One set of parameters for all prompts, or one each; without, the model's generation_config.json decides. */
  async generate(
    prompts: Prompt | readonly Prompt[],
    params?: SamplingParams | readonly SamplingParams[],
    options: GenerateOptions = {},
  ): Promise<RequestOutput[]> {
    const { encoder } = await this.#loaded
    const list = Array.isArray(prompts) ? (prompts as readonly Prompt[]) : [prompts as Prompt]
    const encoded = await Promise.all(
      list.map(async (prompt) => {
        if (typeof prompt !== 'string' && 'prompt_token_ids' in prompt) {
          return { text: prompt.prompt ?? null, ids: Uint32Array.from(prompt.prompt_token_ids) }
        }
        const text = typeof prompt === 'string' ? prompt : prompt.prompt
        return { text, ids: await encoder.plain.encode(text.toWellFormed(), true) }
      }),
    )
    return this.#run(encoded, params, options)
  }

  /** One conversation or several, through the model's chat template. */
  async chat(
    messages: readonly Message[] | readonly (readonly Message[])[],
    params?: SamplingParams | readonly SamplingParams[],
    options: ChatOptions = {},
  ): Promise<RequestOutput[]> {
    const { facts, encoder } = await this.#loaded
    if (facts.chatTemplate === null) throw new Error('this model has no chat template; use generate()')
    const template = parseTemplate(facts.chatTemplate)
    const conversations = (Array.isArray(messages[0]) ? messages : [messages]) as readonly (readonly Message[])[]
    const encoded = await Promise.all(
      conversations.map(async (conversation) => {
        // What a user writes never becomes a special token.
        const { value, found } = encoder.special.hide({ messages: conversation, tools: options.tools ?? null })
        const variables = {
          ...facts.specialTokens,
          ...options.chat_template_kwargs,
          ...value,
          add_generation_prompt: options.add_generation_prompt ?? true,
        }
        const text = render(template, variables, systemClock.now())
        return { text: encoder.special.reveal(text), ids: await encoder.encodeRendered(text, found, false) }
      }),
    )
    return this.#run(encoded, params, options)
  }

  /** Text -> ids, without special tokens, and back. */
  readonly tokenize = async (text: string): Promise<number[]> => {
    const { encoder } = await this.#loaded
    return Array.from(await encoder.plain.encode(text.toWellFormed(), false))
  }

  readonly detokenize = async (ids: ArrayLike<number>): Promise<string> => {
    const { encoder } = await this.#loaded
    return encoder.plain.decode(Array.from(ids), false)
  }

  /** Ids are below this. */
  async vocabularySize(): Promise<number> {
    return (await this.#loaded).facts.vocabularySize
  }

  /** Gives the model's memory back. Requests that still run are rejected. */
  async close(): Promise<void> {
    const loaded = await this.#loaded.catch(() => null)
    if (!loaded) return
    for (const id of this.#pending.keys()) loaded.engine.abort(id)
    this.#rejectAll(new Error('the LLM was closed'))
    await this.#pumping
    loaded.close()
  }

  async #run(
    prompts: { text: string | null; ids: Uint32Array }[],
    params: SamplingParams | readonly SamplingParams[] | undefined,
    { use_tqdm: isShown = true }: GenerateOptions,
  ): Promise<RequestOutput[]> {
    const { facts } = await this.#loaded
    const each = Array.isArray(params) ? (params as readonly SamplingParams[]) : null
    if (each && each.length !== prompts.length) {
      throw new TypeError(`${prompts.length} prompts need as many SamplingParams or one; there are ${each.length}`)
    }
    const common = each ? null : ((params as SamplingParams | undefined) ?? defaultParams(facts))
    const progress = isShown ? showPrompts(prompts.length, process.stderr, systemClock) : null
    const running = prompts.map(async ({ text, ids }, i) => {
      const output = await this.#submit(ids, (each?.[i] ?? common) as SamplingParams)
      progress?.finished(output.usage)
      return describe(output, text, ids)
    })
    const results = await Promise.allSettled(running)
    progress?.close()
    return results.map((result, i) => {
      if (result.status === 'fulfilled') return result.value
      throw new Error(`prompt ${i}: ${(result.reason as Error).message}`, { cause: result.reason })
    })
  }

  async #submit(prompt: Uint32Array, params: SamplingParams): Promise<Output> {
    const { engine, facts, vocab, config, encoder } = await this.#loaded
    const number = this.#requests++
    const badWords = await encoder.badWords(params.badWords)
    const id = String(number)
    // Distinct per prompt, the same in every run.
    const seed = BigInt.asIntN(64, (BigInt(config.seed) << 32n) + BigInt(number)).toString()
    const sampling = params.resolve({ seed, room: facts.capacity.maxModelLength - prompt.length, badWords })
    this.#processor ??= new OutputProcessor(vocab)
    this.#processor.add({ id, prompt, sampling })
    const finished = new Promise<Output>((resolve, reject) => this.#pending.set(id, { resolve, reject }))
    engine.add({ id, prompt, sampling, resume: [], salt: '', adapter: 0, class: 0 })
    this.#pumping ??= this.#pump(engine, this.#processor)
    return finished
  }

  /** Steps until nothing is left. Prompts submitted in the same turn of the event loop share the first step. */
  async #pump(engine: Engine, processor: OutputProcessor): Promise<void> {
    let yieldedAt = Number.NEGATIVE_INFINITY
    try {
      for (;;) {
        if (systemClock.monotonic() - yieldedAt >= YIELD_MS) {
          await new Promise((resolve) => setImmediate(resolve))
          yieldedAt = systemClock.monotonic()
        }
        if (!engine.hasWork) return
        this.#deliver(engine.step(), engine, processor)
        this.#onStep(engine)
      }
    } catch (error) {
      this.#rejectAll(error as Error)
    } finally {
      this.#pumping = null
    }
  }

  #deliver(outputs: StepOutput[], engine: Engine, processor: OutputProcessor) {
    const { touched, stopped } = processor.process(outputs.filter((output) => output.type !== 'failed'))
    for (const { id, choice } of stopped) engine.abort(id, choice)
    for (const output of touched) if (output.isFinished) this.#settle(output.id, ({ resolve }) => resolve(output))
    for (const output of outputs) {
      if (output.type === 'failed') this.#settle(output.id, ({ reject }) => reject(new Error(output.message)))
    }
  }

  #settle(id: string, settle: (pending: Pending) => void) {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    this.#processor?.remove(id)
    if (pending) settle(pending)
  }

  #rejectAll(error: Error) {
    for (const id of [...this.#pending.keys()]) this.#settle(id, ({ reject }) => reject(error))
  }
}

async function load(config: EngineConfig): Promise<Loaded> {
  await buildKernels({ log })
  const hooks = {
    clock: systemClock,
    random: Math.random,
    warn: log,
    onProgress: loadingProgress(config.model),
  }
  const opened = await openModel(config, sourceSettings(config, process.env), hooks)
  const { facts } = opened
  const vocab = new Vocab(facts.tokenizerJson)
  const encoder = new PromptEncoder(facts.tokenizerJson, '0', async () => facts.tokenizerJson)
  return { config, facts, vocab, encoder, ...(await loadEngine(config, opened, hooks)) }
}

/** max_model_len or maxModelLen; what has no effect here is left out, as on the command line. */
function engineOptions(options: LLMOptions): EngineOptions {
  const ignored = new Set([...ignoredFlags.flags.map(keyOf), 'disableLogStats'])
  const fields = Object.entries(options).map(([name, value]) => [
    name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
    value,
  ])
  return Object.fromEntries(fields.filter(([name]) => !ignored.has(name as string)))
}

function defaultParams(facts: ModelFacts): SamplingParams {
  return new SamplingParams(samplingDefaults(facts.generationConfig))
}

function describe(output: Output, prompt: string | null, ids: Uint32Array): RequestOutput {
  return {
    request_id: output.id,
    prompt,
    prompt_token_ids: Array.from(ids),
    prompt_logprobs:
      output.choices[0]?.tokens[0]?.prompt?.map((records) => (records[0]?.rank ? byId(records) : null)) ?? null,
    outputs: output.choices.map(describeChoice) as RequestOutput['outputs'],
    finished: true,
    num_cached_tokens: output.cachedTokens,
  }
}

function describeChoice({ tokens, finish }: ChoiceOutput, index: number): CompletionOutput {
  const logprobs = tokens.flatMap((token) => (token.logprobs ? [token.logprobs] : []))
  const hasLogprobs = logprobs.length > 0
  return {
    index,
    text: tokens.map((token) => token.text).join('') + (finish?.text ?? ''),
    token_ids: tokens.map((token) => token.id),
    cumulative_logprob: hasLogprobs ? logprobs.reduce((sum, records) => sum + (records[0]?.logprob ?? 0), 0) : null,
    logprobs: hasLogprobs ? logprobs.map(byId) : null,
    finish_reason: finish?.reason ?? 'abort',
    stop_reason: finish?.stopReason ?? null,
  }
}

function byId(records: { id: number; logprob: number; rank: number; bytes: number[] }[]): Record<number, Logprob> {
  return Object.fromEntries(
    records.map(({ id, logprob, rank, bytes }) => [
      id,
      { logprob, rank, decoded_token: Buffer.from(bytes).toString('utf8') },
    ]),
  )
}
