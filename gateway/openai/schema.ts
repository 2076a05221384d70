// The bodies of /v1/chat/completions, /v1/completions, /tokenize and /detokenize. Fields we do not know are ignored, as
// OpenAI-compatible servers do, except those that would change the answer if they were honoured: these are refused by
// name, never dropped in silence. null means absent wherever a client library may send it.
import { z } from 'zod'

const MAX_TEMPLATE_VARIABLES = 64
const MAX_LOGIT_BIAS = 1024
const MAX_BAD_WORDS = 1024

const optional = <T extends z.ZodType>(type: T) => type.nullish().transform((value) => value ?? undefined)
const int = z.int
const number = (low: number, high: number) => z.number().min(low).max(high)

const NOT_STREAMED = 'is not available with stream: true.'

/** Accepted only as absent, null, or what it would mean to leave it out. */
const refused = (message: string, harmless: (value: unknown) => boolean = () => false) =>
  z
    .unknown()
    .optional()
    .refine((value) => value === undefined || value === null || harmless(value), message)
const isEmpty = (value: unknown) => Array.isArray(value) && value.length === 0
const unsupported = (what: string) => `${what} is not supported by this server; leave it out.`

const logitBias = z
  .unknown()
  .optional()
  .transform((value, context): [id: number, bias: number][] => {
    if (value === undefined || value === null) return []
    const fail = (message: string) => {
      context.addIssue({ code: 'custom', message, input: value })
      return z.NEVER
    }
    if (typeof value !== 'object' || Array.isArray(value)) return fail('must be an object of token id: bias.')
    const entries = Object.entries(value)
    if (entries.length > MAX_LOGIT_BIAS)
      return fail(`has ${entries.length} entries; at most ${MAX_LOGIT_BIAS} are accepted.`)
    for (const [id, bias] of entries) {
      if (!/^\d{1,10}$/.test(id)) return fail(`the key ${JSON.stringify(id.slice(0, 40))} is not a token id.`)
      if (typeof bias !== 'number' || !(Math.abs(bias) <= 100))
        return fail(`the bias of ${id} must be from -100 to 100.`)
    }
    return entries.map(([id, bias]) => [Number(id), bias as number])
  })

const stopString = z.string().min(1, 'must not be an empty string.').max(1000)
const stop = optional(
  z.union([stopString.transform((text) => [text]), z.array(stopString).max(4, 'takes at most 4 strings.')], {
    error: 'must be a string or an array of at most 4 strings.',
  }),
)

const badWord = z.string().max(1000).regex(/\S/, 'must hold more than white space.')

const metadata = optional(
  z
    .record(z.string().max(64), z.string().max(512))
    .refine((fields) => Object.keys(fields).length <= 16, 'takes at most 16 keys.'),
)

/** What both endpoints take. */
const common = {
  model: z.string({ error: 'must name a model; see /v1/models.' }).min(1).max(100_000),
  n: optional(int().min(1).max(128)),
  temperature: optional(number(0, 2)),
  top_p: optional(z.number().gt(0, 'must be above 0; for greedy sampling set temperature to 0.').max(1)),
  top_k: optional(int().min(-1).max(1_000_000)),
  min_p: optional(number(0, 1)),
  presence_penalty: optional(number(-2, 2)),
  frequency_penalty: optional(number(-2, 2)),
  repetition_penalty: optional(z.number().gt(0).max(100)),
  max_tokens: optional(int().min(1)),
  min_tokens: optional(int().min(0)),
  seed: optional(z.number().refine(Number.isInteger, 'must be an integer.')),
  stop,
  stop_token_ids: optional(z.array(int().min(0)).max(128)),
  ignore_eos: optional(z.boolean()),
  include_stop_str_in_output: optional(z.boolean()),
  skip_special_tokens: optional(z.boolean()),
  logit_bias: logitBias,
  allowed_token_ids: optional(z.array(int().min(0)).min(1).max(100_000)),
  use_beam_search: optional(z.boolean()),
  length_penalty: optional(number(-10, 10)),
  beam_width: optional(z.unknown()),
  bad_words: optional(z.array(badWord).max(MAX_BAD_WORDS)),
  prompt_logprobs: optional(int().min(0)),
  stream: optional(z.boolean()),
  stream_options: optional(
    z.object({
      include_usage: optional(z.boolean()),
      continuous_usage_stats: optional(z.boolean()),
    }),
  ),
  return_token_ids: optional(z.boolean()),
  return_tokens_as_token_ids: optional(z.boolean()),
  truncate_prompt_tokens: optional(int().min(-1)),
  cache_salt: optional(z.string().min(1).max(1000)),
  service_tier: optional(z.enum(['auto', 'default', 'flex', 'scale', 'priority'])),
  priority: optional(int()),
  user: optional(z.string().max(1000)),
  metadata,

  prompt_embeds: refused(unsupported('prompt_embeds')),
  custom_logit_processor: refused(unsupported('custom_logit_processor')),
  structured_outputs: refused('structured outputs are not supported yet; leave it out.'),
  guided_json: refused('structured outputs are not supported yet; leave it out.'),
  guided_regex: refused('structured outputs are not supported yet; leave it out.'),
  guided_choice: refused('structured outputs are not supported yet; leave it out.'),
  guided_grammar: refused('structured outputs are not supported yet; leave it out.'),
  response_format: refused(
    'only {"type": "text"} is supported yet; leave it out.',
    (value) => (value as { type?: unknown }).type === 'text',
  ),
}

const textPart = z.object({ type: z.literal('text'), text: z.string() })
const refusalPart = z.object({ type: z.literal('refusal'), refusal: z.string() })
const part = z.discriminatedUnion('type', [textPart, refusalPart], {
  error: (issue) => (issue.code === 'invalid_union' ? 'only parts of type "text" are supported.' : undefined),
})

/** Text parts become one string, joined by newlines as vLLM joins them. */
const content = z
  .union([z.string(), z.array(part)], { error: 'must be a string or an array of text parts.' })
  .transform((value) =>
    typeof value === 'string' ? value : value.map((p) => (p.type === 'text' ? p.text : p.refusal)).join('\n'),
  )

const name = optional(z.string().max(256))

/** Templates read the arguments as an object (transformers), clients send them as JSON text (OpenAI). */
const callArguments = z.string().transform((text, context) => {
  try {
    const value: unknown = text === '' ? {} : JSON.parse(text)
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) return value
  } catch {}
  context.addIssue({ code: 'custom', message: 'must be the JSON text of an object.', input: text })
  return z.NEVER
})
const toolCall = z.object({
  id: z.string().max(256),
  type: z.literal('function'),
  function: z.object({ name: z.string().min(1).max(256), arguments: callArguments }),
})

const message = z.discriminatedUnion(
  'role',
  [
    z.object({ role: z.literal('system'), content, name }),
    z.object({ role: z.literal('developer'), content, name }),
    z.object({ role: z.literal('user'), content, name }),
    z.object({
      role: z.literal('assistant'),
      content: optional(content),
      name,
      tool_calls: optional(z.array(toolCall).max(128)),
      reasoning_content: optional(z.string()),
      reasoning: optional(z.string()),
    }),
    z.object({ role: z.literal('tool'), content, tool_call_id: z.string().max(256), name }),
    z.object({ role: z.literal('function'), content, name: z.string().max(256) }),
  ],
  { error: 'needs a role: system, developer, user, assistant, tool or function.' },
)

/** Names the template gets from us: a request may not stand in for them. */
const OWN_VARIABLES =
  /^(messages|tools|documents|add_generation_prompt|tokenize|chat_template|continue_final_message|conversation|return_\w+|padding|truncation|max_length|\w+_token|raise_exception|range|strftime_now|namespace|loop|__\w*)$/
const PLAIN_VALUE = 'must be a string, a number, a boolean or null.'
const templateVariables = optional(
  z
    .record(z.string(), z.union([z.string().max(1000), z.number(), z.boolean(), z.null()], { error: PLAIN_VALUE }))
    .superRefine((given, context) => {
      const names = Object.keys(given)
      const reserved = names.find((name) => OWN_VARIABLES.test(name))
      if (reserved) context.addIssue(`${reserved.slice(0, 40)} cannot be set by a request.`)
      if (names.length > MAX_TEMPLATE_VARIABLES) context.addIssue(`takes at most ${MAX_TEMPLATE_VARIABLES} names.`)
    }),
)

/** What turns messages into a prompt; shared with /tokenize. */
const conversation = {
  messages: z.array(message, { error: 'must be an array of messages.' }).min(1, 'must hold at least one message.'),
  add_generation_prompt: optional(z.boolean()),
  continue_final_message: optional(z.boolean()),
  add_special_tokens: optional(z.boolean()),
  chat_template_kwargs: templateVariables,
  reasoning_effort: optional(z.enum(['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'])),
  chat_template: refused('chat templates come with the model; a request cannot bring one.'),
  documents: refused('documents are not supported yet; put them into a message.', isEmpty),
  tools: refused('tools are not supported yet; leave it out.', isEmpty),
}

type BeamSearch = { stream?: boolean | undefined; beam_width?: unknown; n?: number | undefined }

function checkBeamSearch({ stream, beam_width: width, n }: BeamSearch, fault: (path: string, text: string) => void) {
  if (stream) fault('use_beam_search', 'cannot be used with stream: true.')
  if (width !== undefined && width !== (n ?? 1))
    fault('use_beam_search', 'has n beams; leave beam_width out and set n.')
}

export const ChatRequest = z
  .object({
    ...common,
    ...conversation,
    max_completion_tokens: optional(int().min(1)),
    logprobs: optional(z.boolean()),
    top_logprobs: optional(int().min(0)),
    functions: refused('tools are not supported yet; leave it out.', isEmpty),
    tool_choice: refused('needs tools, which are not supported yet; use "none" or leave it out.', (v) => v === 'none'),
    function_call: refused('needs tools, which are not supported yet; leave it out.', (v) => v === 'none'),
    modalities: refused('only ["text"] is supported.', (v) => Array.isArray(v) && v.every((item) => item === 'text')),
    audio: refused(unsupported('audio')),
  })
  .superRefine((body, context) => {
    const fault = (path: string, text: string) => context.addIssue({ code: 'custom', path: [path], message: text })
    if (body.stream_options && !body.stream) fault('stream_options', 'is only allowed together with stream: true.')
    if (body.use_beam_search) checkBeamSearch(body, fault)
    if (body.stream && body.prompt_logprobs !== undefined) fault('prompt_logprobs', NOT_STREAMED)
    if (body.top_logprobs !== undefined && !body.logprobs) fault('top_logprobs', 'needs logprobs: true.')
    if (body.continue_final_message && body.add_generation_prompt) {
      fault('continue_final_message', 'excludes add_generation_prompt: true.')
    }
  })
export type ChatRequest = z.infer<typeof ChatRequest>

const tokenIds = z.array(
  int()
    .min(0)
    .max(2 ** 32 - 1),
)
const prompt = z.union([z.string(), z.array(z.string()).min(1), tokenIds.min(1), z.array(tokenIds.min(1)).min(1)], {
  error: 'must be a string, an array of strings, an array of token ids, or an array of such arrays.',
})

export const CompletionRequest = z
  .object({
    ...common,
    prompt,
    max_tokens: optional(int().min(0)),
    add_special_tokens: optional(z.boolean()),
    logprobs: optional(int().min(0)),
    echo: optional(z.boolean()),
    best_of: optional(int().min(1).max(20)),
    suffix: refused('insertion is not supported; leave it out.', (value) => value === ''),
  })
  .superRefine((body, context) => {
    const fault = (path: string, text: string) => context.addIssue({ code: 'custom', path: [path], message: text })
    if (body.stream_options && !body.stream) fault('stream_options', 'is only allowed together with stream: true.')
    if (body.use_beam_search) checkBeamSearch(body, fault)
    if (body.use_beam_search && (body.best_of ?? 1) > (body.n ?? 1)) fault('best_of', 'of beam search is n.')
    if (body.stream && body.prompt_logprobs !== undefined) fault('prompt_logprobs', NOT_STREAMED)
    if (body.max_tokens === 0 && !body.echo) fault('max_tokens', 'must be at least 1, or 0 together with echo: true.')
    if (body.stream && (body.best_of ?? 1) > (body.n ?? 1)) fault('best_of', 'cannot be used with stream: true.')
  })
export type CompletionRequest = z.infer<typeof CompletionRequest>

const tokenize = { model: optional(z.string()), return_token_strs: optional(z.boolean()) }
export const TokenizeChatRequest = z.object({ ...tokenize, ...conversation })
export const TokenizeTextRequest = z.object({
  ...tokenize,
  prompt: z.string(),
  add_special_tokens: optional(z.boolean()),
})

export const DetokenizeRequest = z.object({ model: optional(z.string()), tokens: tokenIds.max(1_000_000) })
