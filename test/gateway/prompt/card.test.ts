// Which cards a gateway knows, and how often it asks Redis for them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cards } from '../../../gateway/prompt/card.ts'
import { type Clock, systemClock } from '../../../queue/clock.ts'
import { createEmbeddedRedis } from '../../../queue/embedded.ts'
import { registerCard } from '../../../queue/models.ts'
import type { Redis } from '../../../queue/redis.ts'
import { card, chatTemplate, tokenizerJson, until } from '../harness.ts'

const blobs = { tokenizer: tokenizerJson, chatTemplate }

/** Redis that counts its commands and can be switched off; a clock that the test moves. */
function setUp() {
  const redis = createEmbeddedRedis(systemClock)
  const state = { now: 0, up: true, reads: 0 }
  const counted: Redis = {
    ...redis,
    command(name, ...args) {
      if (!state.up) return Promise.reject(new Error('connection refused'))
      if (name === 'HVALS') state.reads++
      return redis.command(name, ...args)
    },
  }
  const clock: Clock = { ...systemClock, monotonic: () => state.now }
  return { redis, state, cards: new Cards(counted, clock, '1') }
}

test('a card registered a moment ago is found by name and alias', async () => {
  const { redis, state, cards } = setUp()
  await assert.rejects(cards.find('demo'), { status: 404, message: /No model is served yet/ })
  await registerCard(redis, card, blobs)
  state.now = 51
  assert.equal((await cards.find('demo')).name, 'demo')
  assert.equal((await cards.find('org/demo')).name, 'demo')
})

test('known cards are read again once a second, in the background', async () => {
  const { redis, state, cards } = setUp()
  await registerCard(redis, card, blobs)
  await cards.find('demo')
  await cards.find('demo')
  assert.equal(state.reads, 1)
  await registerCard(redis, { ...card, maxModelLength: 4096 }, blobs)
  state.now = 1001
  assert.equal((await cards.find('demo')).maxModelLength, 2048) // served from what is known
  await until(async () => (await cards.find('demo')).maxModelLength === 4096)
  assert.equal(state.reads, 2)
})

test('a flood of unknown names costs one read in 50 ms', async () => {
  const { state, cards } = setUp()
  await Promise.allSettled(Array.from({ length: 50 }, () => cards.find('none')))
  await assert.rejects(cards.find('other'), { status: 404 })
  assert.equal(state.reads, 1)
  state.now = 51
  await assert.rejects(cards.find('other'), { status: 404 })
  assert.equal(state.reads, 2)
})

test('with Redis away known models stay and unknown ones are 503, not 404', async () => {
  const { redis, state, cards } = setUp()
  await registerCard(redis, card, blobs)
  await cards.find('demo')
  state.up = false
  state.now = 5000
  assert.equal((await cards.find('demo')).name, 'demo')
  assert.equal((await cards.list()).length, 1)
  await assert.rejects(cards.find('none'), { status: 503 })
})

test("a name wins over another card's alias", async () => {
  const { redis, cards } = setUp()
  await registerCard(redis, { ...card, name: 'a', aliases: ['demo'] }, blobs)
  await registerCard(redis, card, blobs)
  assert.equal((await cards.find('demo')).name, 'demo')
})

test('a tokenizer is built once per content, and again after its load has failed', async () => {
  const { redis, state, cards } = setUp()
  await registerCard(redis, card, blobs)
  state.up = false
  await assert.rejects(cards.encoder(card), { status: 503 })
  state.up = true
  const encoder = await cards.encoder(card)
  assert.equal(await cards.encoder({ ...card, name: 'other' }), encoder)
})
