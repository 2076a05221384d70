// Debug mode names the index that is out of range; without it, too, a list that is malformed does not run.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KernelError } from '../../engine/native/library.ts'
import { Commands } from '../../engine/native/ops.ts'
import { numbers, open, packed, run } from './devices.ts'

const heads = { query: 2, kv: 1, size: 8 }
const invalid = -1

function refused(action: () => void, message: RegExp): void {
  assert.throws(action, (error: unknown) => {
    assert.ok(error instanceof KernelError)
    assert.equal(error.code, invalid)
    assert.match(error.message, message)
    return true
  })
}

test('an index that is out of range is named', () => {
  const device = open('plain')
  const weight = packed(device, numbers(40, 1), 10, 4, 'f32')
  const i32 = (...values: number[]) => device.upload(Int32Array.from(values))
  const x = device.alloc([10, 4], 'f32')
  refused(
    () => run(device, (commands) => commands.embedding(x, weight, i32(1, 10), 2)),
    /ps_embedding: ids\[1\] is 10, not below 10 \(record 0\)/,
  )
  refused(() => run(device, (commands) => commands.embedding(x, weight, i32(-1), 1)), /ids\[0\] is -1/)
  refused(
    () => run(device, (commands) => commands.gatherRows(x, x, i32(10), 1)),
    /ps_gather_rows: x \(at the row wanted\)/,
  )
})

test('slots, blocks and lengths of the cache are checked', () => {
  const device = open('plain')
  const i32 = (...values: number[]) => device.upload(Int32Array.from(values))
  const [k, v] = [device.alloc([2, 1, 4, 8], 'bf16'), device.alloc([2, 1, 4, 8], 'bf16')]
  const cache = { k, v, blockSize: 4 }
  const qkv = device.alloc([2, 32], 'f32')
  const out = device.alloc([2, 16], 'f32')
  const options = { scale: 1, softcap: 0, window: 0 }
  const attention = (queryStart: number[], kvLength: number, table: number[]) =>
    run(device, (commands) => {
      const batch = {
        queryStart: i32(...queryStart),
        kvLength: i32(kvLength),
        blockTable: i32(...table),
        tableStride: table.length,
        sequences: 1,
      }
      commands.attention(out, qkv, cache, batch, heads, options)
    })
  attention([0, 2], 5, [1, 0])
  refused(
    () => run(device, (commands) => commands.kvWrite(cache, qkv, i32(3, 8), 2, heads)),
    /ps_kv_write: slots\[1\] is 8/,
  )
  refused(() => attention([0, 2], 5, [1, 2]), /block_table\[0\]\[1\] is 2, not a block of the cache/)
  refused(() => attention([0, 2], 9, [1, 0]), /kv_length\[0\] is 9: 3 blocks, but table_stride is 2/)
  refused(() => attention([0, 2], 1, [1, 0]), /kv_length\[0\] is 1, below its 2 query rows/)
})

test('a tensor that is too small is named', () => {
  const device = open('plain')
  const weight = packed(device, numbers(40, 1), 10, 4, 'f32')
  const [x, y] = [device.alloc([3, 4], 'f32'), device.alloc([2, 10], 'f32')]
  refused(
    () => run(device, (commands) => commands.linear(y, x, weight, null, 3)),
    /ps_linear: y: 120 bytes at 0x[0-9a-f]+ are not inside one allocation/,
  )
})

test('the record that failed is told, and records before it have run', () => {
  const device = open('plain')
  const [x, y] = [device.upload(numbers(8, 1)), device.upload(numbers(8, 2))]
  const before = x.read().slice()
  refused(
    () =>
      run(device, (commands) => {
        commands.add(x, y, 8)
        commands.add(x, y, 9)
      }),
    /ps_add: x: .* \(record 1\)/,
  )
  assert.notDeepEqual(x.read(), before)
})

test('numbers that the native side would cut are refused in TypeScript', () => {
  const device = open('plain')
  const x = device.alloc([8], 'f32')
  const commands = new Commands(device)
  assert.throws(() => commands.gatherRows(x, x, x, 2 ** 31), /ps_gather_rows: n is 2147483648, which is not a int32_t/)
  assert.throws(() => commands.gatherRows(x, x, x, 1.5), /n is 1.5/)
  assert.throws(() => commands.add(x, x, Number.NaN), /n is NaN/)
})

test('a command list that is cut off or unknown is refused', () => {
  const device = open('plain')
  const exec = (...words: number[]) => {
    const bytes = new Uint8Array(Uint32Array.from(words).buffer)
    device.library.call('ps_exec', device.context, 0, bytes, bytes.length)
  }
  refused(() => exec(0), /ps_exec: record 0 is cut off/)
  refused(() => exec(999, 0), /there is no op 999/)
  refused(() => exec(7, 4, 0, 0), /record 0 is cut off/)
  refused(() => exec(7, 1, 0, 0), /ps_add: the record has 1 arguments, the op takes 4/)
})
