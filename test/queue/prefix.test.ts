import assert from 'node:assert/strict'
import { test } from 'node:test'
import { blockHash, prefixHashes, rootHash } from '../../queue/prefix.ts'

const options = { blockSize: 4, salt: 'tenant a', adapter: 0 }
const tokens = Uint32Array.from({ length: 14 }, (_, i) => i * 7)

test('only full blocks have a hash, and it is that of the chain', () => {
  const hashes = prefixHashes(tokens, options)
  assert.equal(hashes.length, 3)
  let parent = rootHash('tenant a', 0)
  for (const [i, hash] of hashes.entries()) {
    parent = blockHash(parent, tokens, 4 * i, 4 * i + 4)
    assert.equal(hash, parent)
    assert.match(hash, /^[0-9a-f]{32}$/)
  }
})

test('a changed token changes its block and all after it, and none before', () => {
  const changed = tokens.slice()
  changed[5] = 1
  const [before, after] = [prefixHashes(tokens, options), prefixHashes(changed, options)]
  assert.deepEqual(
    before.map((hash, i) => hash === after[i]),
    [true, false, false],
  )
})

test('another salt or adapter shares no block', () => {
  const first = (salt: string, adapter: number) => prefixHashes(tokens, { ...options, salt, adapter, limit: 1 })[0]
  const names = [first('a', 0), first('b', 0), first('a', 1), first('', 0), first('0\na', 0)]
  assert.equal(new Set(names).size, names.length)
})

test('ids above 2^31 and the kind of array do not matter', () => {
  assert.deepEqual(prefixHashes(Int32Array.from(tokens), options), prefixHashes(tokens, options))
  assert.equal(prefixHashes(Uint32Array.of(0xffffffff, 1, 2, 3), options).length, 1)
})

test('the hash of a known block stays what it is, because it is written in queues and caches', () => {
  assert.deepEqual(prefixHashes(Uint32Array.of(1, 2, 3, 4), { ...options, salt: '' }), [
    'c076580a3d59452dfdcf3edd63771acb',
  ])
})
