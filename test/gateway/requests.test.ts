// What a gateway refuses, and how: status, `param` and message of every bad field, and the limits of a body.
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { type App, app, chatBody, post } from './harness.ts'

let gateway: App
before(async () => {
  gateway = await app({ maxBodyBytes: 100_000, maxN: 16 })
})

async function refusal(path: string, body: unknown, headers: Record<string, string> = {}) {
  const response = await gateway.request(path, post(body, headers))
  const { error } = (await response.json()) as { error: { message: string; type: string; param: string; code: string } }
  return { status: response.status, ...error }
}

const chatCases: [field: string, more: object, param?: string][] = [
  ['temperature', { temperature: 2.1 }],
  ['temperature', { temperature: '1' }],
  ['top_p', { top_p: 0 }],
  ['top_k', { top_k: -2 }],
  ['min_p', { min_p: 1.5 }],
  ['presence_penalty', { presence_penalty: -2.1 }],
  ['repetition_penalty', { repetition_penalty: 0 }],
  ['n', { n: 0 }],
  ['n', { n: 17 }],
  ['n', { n: 1e9 }],
  ['max_tokens', { max_tokens: 0 }],
  ['max_completion_tokens', { max_completion_tokens: 1.5 }],
  ['min_tokens', { min_tokens: 5, max_tokens: 4 }],
  ['stop', { stop: ['a', 'b', 'c', 'd', 'e'] }],
  ['stop', { stop: '' }],
  ['stop', { stop: [null] }, 'stop[0]'],
  ['seed', { seed: 1.5 }],
  ['logprobs', { logprobs: 5 }],
  ['top_logprobs', { logprobs: true, top_logprobs: 21 }],
  ['top_logprobs', { top_logprobs: 2 }],
  ['logit_bias', { logit_bias: { abc: 1 } }],
  ['logit_bias', { logit_bias: { 4096: 1 } }],
  ['logit_bias', { logit_bias: { 5: 101 } }],
  ['allowed_token_ids', { allowed_token_ids: [9999] }],
  ['stop_token_ids', { stop_token_ids: [9999] }],
  ['bad_words', { bad_words: [' '] }, 'bad_words[0]'],
  ['bad_words', { bad_words: 'x' }],
  ['prompt_logprobs', { prompt_logprobs: 21 }],
  ['prompt_logprobs', { prompt_logprobs: -1 }],
  ['prompt_logprobs', { prompt_logprobs: 1, stream: true }],
  ['stream_options', { stream_options: { include_usage: true } }],
  ['stream_options', { stream: true, stream_options: { include_usage: 'yes' } }, 'stream_options.include_usage'],
  ['tools', { tools: [{ type: 'function', function: { name: 'f' } }] }],
  ['tool_choice', { tool_choice: 'required' }],
  ['response_format', { response_format: { type: 'json_object' } }],
  ['structured_outputs', { structured_outputs: { choice: ['a'] } }],
  ['guided_json', { guided_json: {} }],
  ['chat_template', { chat_template: '{{ 1 }}' }],
  ['chat_template_kwargs', { chat_template_kwargs: { messages: 'x' } }],
  ['chat_template_kwargs', { chat_template_kwargs: { bos_token: 'x' } }],
  ['prompt_embeds', { prompt_embeds: 'AAAA' }],
  ['messages', { messages: [] }],
  ['messages', { messages: [{ role: 'robot', content: 'x' }] }, 'messages[0].role'],
  ['messages', { messages: [{ role: 'user', content: 5 }] }, 'messages[0].content'],
  ['messages', { messages: [{ role: 'user', content: [{ type: 'text', text: 5 }] }] }, 'messages[0].content[0].text'],
  [
    'messages',
    { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'http://x' } }] }] },
    'messages[0].content[0].type',
  ],
  ['messages', { messages: [{ role: 'tool', content: 'x' }] }, 'messages[0].tool_call_id'],
]

test('a bad field of a chat is a 400 that names it by its path', async () => {
  for (const [field, more, param = field] of chatCases) {
    const { status, ...error } = await refusal('/v1/chat/completions', chatBody(more))
    const what = JSON.stringify(more)
    assert.equal(status, 400, what)
    assert.equal(error.param, param, what)
    assert.equal(error.type, 'invalid_request_error')
    assert.ok(error.message.length > param.length + 5, what)
  }
})

test('messages say what the value must be', async () => {
  const message = async (more: object) => (await refusal('/v1/chat/completions', chatBody(more))).message
  assert.equal(await message({ temperature: 2.1 }), 'temperature: must be at most 2.')
  assert.equal(await message({ n: '2' }), 'n: must be a number, not a string.')
  assert.equal(await message({ max_tokens: 1.5 }), 'max_tokens: must be an integer, not 1.5.')
  assert.equal(await message({ stream_options: [] }), 'stream_options: must be an object, not an array.')
  assert.equal(await message({ messages: [{ role: 'tool', content: 'x' }] }), 'messages[0].tool_call_id: is missing.')
  assert.match(await message({ service_tier: 'x' }), /^service_tier: must be one of "auto", "default"/)
})

test('a bad field of a completion is a 400 that names it', async () => {
  const cases: [param: string, more: object][] = [
    ['prompt', { prompt: undefined }],
    ['prompt', { prompt: [] }],
    ['prompt', { prompt: [[]] }],
    ['prompt', { prompt: ['a', 1] }],
    ['prompt', { prompt: [1.5] }],
    ['prompt', { prompt: [4096] }],
    ['prompt', { prompt: '' }],
    ['prompt', { prompt: Array(17).fill('a') }],
    ['prompt', { prompt: ['a', 'b'], n: 9 }],
    ['suffix', { suffix: 'x' }],
    ['best_of', { best_of: 0 }],
    ['best_of', { best_of: 4, n: 2, use_beam_search: true }],
    ['use_beam_search', { use_beam_search: true, stream: true }],
    ['max_tokens', { max_tokens: 0 }],
    ['prompt_logprobs', { prompt_logprobs: 21 }],
    ['prompt_logprobs', { prompt_logprobs: 1, stream: true }],
    ['bad_words', { bad_words: ['ok', ' '] }],
    ['logprobs', { logprobs: 21 }],
  ]
  for (const [param, more] of cases) {
    const { status, ...error } = await refusal('/v1/completions', {
      model: 'demo',
      prompt: 'a',
      max_tokens: 4,
      ...more,
    })
    assert.equal(status, 400, JSON.stringify(more))
    assert.equal(error.param?.replace(/\[.*/, ''), param, JSON.stringify(more))
  }
})

test('what clients send and nobody needs is ignored', async () => {
  const harmless = {
    tools: [],
    tool_choice: 'none',
    response_format: { type: 'text' },
    user: 'me',
    metadata: { a: 'b' },
    store: true,
    parallel_tool_calls: true,
    best_of: null,
    temperature: null,
    unknown_to_us: [1, 2, 3],
  }
  const { status, code } = await refusal('/v1/chat/completions', chatBody({ ...harmless, max_tokens: 5000 }))
  assert.equal(status, 400)
  assert.equal(code, 'context_length_exceeded') // the only thing wrong with it
})

test('a prompt that leaves no room for the answer is refused before the queue', async () => {
  const long = await refusal(
    '/v1/chat/completions',
    chatBody({ messages: [{ role: 'user', content: 'hi '.repeat(3000) }] }),
  )
  assert.equal(long.status, 400)
  assert.equal(long.code, 'context_length_exceeded')
  assert.equal(long.param, 'messages')
  const hopeless = await refusal('/v1/completions', { model: 'demo', prompt: 'x'.repeat(95_000) })
  assert.equal(hopeless.code, 'context_length_exceeded') // by its characters alone
  assert.match(hopeless.message, /95000 characters/)
  const wanted = await refusal('/v1/completions', { model: 'demo', prompt: 'one two', max_tokens: 2047 })
  assert.equal(wanted.code, 'context_length_exceeded')
  assert.equal(wanted.param, 'prompt')
  assert.match(wanted.message, /maximum context length is 2048 tokens/)
})

test('choices that no engine could hold together are refused', async () => {
  const { status, code, message } = await refusal('/v1/chat/completions', chatBody({ n: 10, max_tokens: 1000 }))
  assert.equal(status, 400)
  assert.equal(code, 'context_length_exceeded')
  assert.match(message, /8192/)
})

test('bodies that are not JSON objects are refused without quoting them', async () => {
  for (const body of ['', 'hello-secret', '[1]', 'null', '"str"', '{"a":1,}', "{'a':1}", '{"a":NaN}']) {
    const { status, message } = await refusal('/v1/chat/completions', body)
    assert.equal(status, 400, body)
    assert.doesNotMatch(message, /secret/)
  }
})

test('nesting is bounded before the parser sees it, and brackets in strings do not count', async () => {
  const deep = `{"model":"demo","metadata":${'['.repeat(50_000)}${']'.repeat(40_000)}}`
  assert.match((await refusal('/v1/chat/completions', deep)).message, /nested deeper than 64/)
  const text = chatBody({ messages: [{ role: 'user', content: '["\\'.repeat(100) }], max_tokens: 5000 })
  assert.equal((await refusal('/v1/chat/completions', text)).code, 'context_length_exceeded')
})

test('a body over the limit is 413, of another type 415, compressed 415', async () => {
  const large = await refusal('/v1/chat/completions', chatBody({ user: 'x'.repeat(100_001) }))
  assert.equal(large.status, 413)
  assert.equal((await refusal('/v1/chat/completions', 'a=b', { 'content-type': 'text/plain' })).status, 415)
  assert.equal((await refusal('/v1/chat/completions', chatBody(), { 'content-encoding': 'gzip' })).status, 415)
})

test('a key named __proto__ is an ordinary wrong key', async () => {
  const { status, param } = await refusal(
    '/v1/chat/completions',
    '{"model":"demo","messages":[{"role":"user","content":"x"}],"logit_bias":{"__proto__":{"1":5}}}',
  )
  assert.equal(status, 400)
  assert.equal(param, 'logit_bias')
  assert.equal(({} as Record<string, unknown>)['1'], undefined)
})
