import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { BatchPacker } from '../../engine/batch.ts'
import { Device } from '../../engine/native/device.ts'
import { logitRows } from '../../engine/scheduler/rows.ts'
import { Scheduler } from '../../engine/scheduler/scheduler.ts'
import { range, request } from './scheduler/requests.ts'
import { defaults } from './scheduler/simulation.ts'

const device = Device.open({ backend: 'cpu', threads: 1 })
after(() => device.close())

test('the arrays of a step with a decode, a chunk and a new prompt', () => {
  const options = { ...defaults, maxNumBatchedTokens: 16 }
  const scheduler = new Scheduler(options)
  const packer = new BatchPacker(device, options)
  const step = () => {
    const slices = scheduler.schedule()
    const batch = packer.pack(slices, logitRows(slices).sampled, scheduler.blocks.copies)
    for (const slice of slices) {
      scheduler.advance(slice)
      if (slice.yieldsToken) slice.sequence.tokens.push(99)
    }
    return { batch, tables: slices.map(({ sequence }) => [...sequence.blocks.view]) }
  }
  scheduler.add(request('a', range(5)))
  step()
  scheduler.add(request('b', range(19, 50)))
  step()
  scheduler.add(request('c', range(3, 80)))
  const { batch, tables } = step()

  assert.equal(batch.tokens, 1 + 7 + 3)
  assert.equal(batch.sequences, 3)
  assert.equal(batch.tableStride, 5)
  const read = (tensor: typeof batch.ids, length: number) => [...tensor.rows(0, length).read()]
  assert.deepEqual(read(batch.ids, 11), [99, ...range(7, 62), ...range(3, 80)])
  assert.deepEqual(read(batch.positions, 11), [6, ...range(7, 12), 0, 1, 2])
  const [a, b, c] = tables.map((table) => (position: number) => table[position >> 2]! * 4 + (position & 3))
  assert.deepEqual(read(batch.slots, 11), [a!(6), ...range(7, 12).map(b!), ...[0, 1, 2].map(c!)])
  assert.deepEqual(read(batch.queryStart, 4), [0, 1, 8, 11])
  assert.deepEqual(read(batch.kvLength, 3), [7, 19, 3])
  assert.deepEqual(read(batch.logitRows, batch.logitCount), [0, 7, 10])
  const table = read(batch.blockTable, 15)
  for (const [i, blocks] of tables.entries()) assert.deepEqual(table.slice(5 * i, 5 * i + blocks.length), blocks)
  packer.free()
})

test('forks sample from the row of their prompt, and their blocks are copied before they write', () => {
  const scheduler = new Scheduler(defaults)
  const packer = new BatchPacker(device, defaults)
  scheduler.add(request('r', range(6), { n: 3 }))
  const slices = scheduler.schedule()
  const first = packer.pack(slices, logitRows(slices).sampled, scheduler.blocks.copies)
  assert.deepEqual([...first.logitRows.rows(0, 3).read()], [5, 5, 5])
  assert.deepEqual([first.logitCount, first.copyCount], [3, 0])
  scheduler.advance(slices[0]!)
  const family = [slices[0]!.sequence, ...slices[0]!.forks]
  for (const each of family) each.tokens.push(9)
  const tail = family[0]!.blocks.at(1)
  const next = scheduler.schedule()
  const second = packer.pack(next, logitRows(next).sampled, scheduler.blocks.copies)
  assert.deepEqual(
    [...second.copies.rows(0, 2 * second.copyCount).read()],
    [tail, family[0]!.blocks.at(1), tail, family[1]!.blocks.at(1)],
  )
  assert.equal(family[2]!.blocks.at(1), tail)
  packer.free()
})

test('a step of chunks alone wants no logits', () => {
  const scheduler = new Scheduler(defaults)
  const packer = new BatchPacker(device, defaults)
  scheduler.add(request('a', range(50)))
  const slices = scheduler.schedule()
  const batch = packer.pack(slices, logitRows(slices).sampled, [])
  assert.equal(batch.logitCount, 0)
  assert.equal(batch.tokens, 32)
  packer.free()
})
