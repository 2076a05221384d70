import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Card } from '../../queue/card.ts'
import { contentHash, listCards, readBlob, registerCard, removeCard } from '../../queue/models.ts'
import { onBothServers } from './servers.ts'

const tokenizer = '{"é": 1}'
const chatTemplate = '{{ messages }}'

function makeCard(name: string, fields: Partial<Card> = {}): Card {
  return {
    name,
    aliases: [],
    revision: 'rev1',
    numerics: 'cpu-plain',
    root: '/models/demo',
    created: 1_700_000_000,
    maxModelLength: 2048,
    kvTokens: 4096,
    blockSize: 16,
    vocabularySize: 32_000,
    tokenizer: contentHash(tokenizer),
    chatTemplate: contentHash(chatTemplate),
    specialTokens: { bos_token: '<s>' },
    eosTokenIds: [2],
    defaults: { temperature: 0.7 },
    maxLogprobs: 20,
    ...fields,
  }
}

await onBothServers('model cards', (world) => {
  test('a card and its texts are read back as written, and a later card takes the place of the first', async () => {
    const name = world.model()
    await registerCard(world.redis, makeCard(name), { tokenizer, chatTemplate })
    await registerCard(world.redis, makeCard(name, { revision: 'rev2' }), { tokenizer, chatTemplate })
    const cards = (await listCards(world.redis)).filter((card) => card.name === name)
    assert.deepEqual(cards, [makeCard(name, { revision: 'rev2' })])
    assert.equal(await readBlob(world.redis, cards[0]!.tokenizer), tokenizer)
    assert.equal(await readBlob(world.redis, cards[0]!.chatTemplate!), chatTemplate)
    assert.equal(await readBlob(world.redis, 'unknown'), null)
    assert.equal(await removeCard(world.redis, name), true)
    assert.equal(await removeCard(world.redis, name), false)
  })

  test('cards are listed by name', async () => {
    for (const name of ['b', 'a', 'c']) {
      await registerCard(world.redis, makeCard(name, { chatTemplate: null }), { tokenizer, chatTemplate: null })
    }
    assert.deepEqual(
      (await listCards(world.redis)).map(({ name }) => name),
      ['a', 'b', 'c'],
    )
  })

  test('a card whose text is another, or missing, is refused', async () => {
    const name = world.model()
    await assert.rejects(
      registerCard(world.redis, makeCard(name), { tokenizer: 'x', chatTemplate }),
      /card\.tokenizer must be the SHA-256/,
    )
    await assert.rejects(
      registerCard(world.redis, makeCard(name), { tokenizer, chatTemplate: null }),
      /text is missing/,
    )
    assert.equal(
      (await listCards(world.redis)).some((card) => card.name === name),
      false,
    )
  })
})
