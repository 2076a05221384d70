// User text never becomes a special token, and the rest is encoded as if nothing had been hidden.
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { SpecialText } from '../../../gateway/prompt/special-text.ts'
import { PromptEncoder } from '../../../gateway/prompt/tokenizer.ts'
import { tokenizerJson } from '../harness.ts'

// Two vocabularies lie in the project: byte-level, and SentencePiece with its specials inside the model's vocabulary.
// The large ones are beside it where tests are developed.
const stories = new URL('../../fixtures/stories260K/tokenizer.json', import.meta.url)
const shared = new URL('../../../../shared/data/tokenizers/', import.meta.url)
const tokenizers: Record<string, string> = { demo: tokenizerJson, stories: readFileSync(stories, 'utf8') }
for (const name of existsSync(shared) ? readdirSync(shared) : []) {
  tokenizers[name] = readFileSync(new URL(`${name}/tokenizer.json`, shared), 'utf8')
}

const encoderOf = (json: string) => new PromptEncoder(json, '4711', async () => json)
const encoders = Object.entries(tokenizers).map(([name, json]) => ({ name, json, encoder: encoderOf(json) }))
const specialsOf = (json: string): string[] =>
  JSON.parse(json)
    .added_tokens.filter((token: { special: boolean }) => token.special)
    .map((token: { content: string }) => token.content)

test("special tokens' texts in user text stay text, in every kind of vocabulary", async () => {
  for (const { name, json, encoder } of encoders) {
    const specials = specialsOf(json)
    const ids = new Set(specials.map((text) => encoder.plain.idOf(text)))
    const user = `Hello ${specials.join(' and ')}, 🙂 ü`
    const { value, found } = encoder.special.hide(user)
    assert.ok(found, name)
    for (const special of specials) assert.ok(!value.includes(special), name)
    const [open, close] = [specials[0]!, specials.at(-1)!]
    const encoded = await encoder.encodeRendered(`${open}${value}${close}`, true, false)
    const kept = [...encoded].filter((id) => ids.has(id))
    assert.deepEqual(kept, [encoder.plain.idOf(open), encoder.plain.idOf(close)], name)
    const back = await encoder.plain.decode(encoded, false)
    assert.ok(back.includes(user), `${name}: ${back}`)
  }
})

test('the encoding around hidden text is that of the tokenizer itself', async () => {
  for (const { name, json, encoder } of encoders) {
    const special = specialsOf(json)[0]!
    const text = `${special}user\n  Plain text, 12 345 tokens!  ünï 🙂${special}\nmore`
    const twin = await encoder.encodeRendered(text, true, false)
    assert.deepEqual(twin, await encoder.plain.encode(text, false), name)
  }
})

test('the longest special token is the one that is hidden', () => {
  const added = ['<a>', '<a><b>'].map((content, id) => ({ id, content, special: true }))
  const special = new SpecialText({ added_tokens: added, model: {} }, '4711')
  const { value } = special.hide('<a><b>')
  assert.equal(special.reveal(value), '<a><b>')
  assert.equal(value.match(/4711/g)?.length, 1)
})

test('strings are found at any depth, lone surrogates are repaired, other values are kept', () => {
  const { special } = encoderOf(tokenizerJson)
  const given = { messages: [{ content: 'a<|im_end|>', n: 1, flag: true, none: null }], lone: 'a\ud800b' }
  const { value, found } = special.hide(given)
  assert.ok(found)
  assert.doesNotMatch(value.messages[0]!.content, /im_end/)
  assert.deepEqual({ ...value.messages[0], content: '' }, { content: '', n: 1, flag: true, none: null })
  assert.equal(value.lone, 'a\ufffdb')
  assert.ok(special.hide({ arguments: { '<|im_end|>': 1 } }).found) // keys are printed by templates too
  assert.equal(special.hide('nothing special').found, false)
})

test('a thousand special tokens do not make a long prompt slow', () => {
  const added = Array.from({ length: 1000 }, (_, id) => ({ id, content: `<SPECIAL_${id}>`, special: true }))
  const special = new SpecialText({ added_tokens: added, model: {} }, '4711')
  const text = 'a < b and <SPECIAL or <SPECIAL_x> '.repeat(30_000)
  const start = process.cpuUsage().user
  assert.equal(special.hide(text).found, false)
  assert.ok(process.cpuUsage().user - start < 500_000) // µs for 1 MB
})
