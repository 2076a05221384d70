// Devices and tensors: lifetimes, errors, memory.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Device } from '../../engine/native/device.ts'
import { KernelError } from '../../engine/native/library.ts'
import type { Backend } from '../../engine/native/location.ts'
import { numbers, open, run } from './devices.ts'

test('a library that is not built is named, with the command that builds it', () => {
  const openOther = () => Device.open({ backend: 'other' as Backend, threads: 1 })
  assert.throws(openOther, /libpagestream_other\.so is not built yet; build it: npm run build:cuda/)
})

test('an unknown instruction set and a bad number of threads are refused', () => {
  const { library } = open('plain')
  const create = (options: string) => () => library.call('ps_ctx_create', 0, options, new BigUint64Array(1))
  const isInvalid = (message: RegExp) => (error: unknown) =>
    error instanceof KernelError && error.code === -1 && message.test(error.message)
  assert.throws(create('{"isa":"sse9"}'), isInvalid(/isa is sse9; this library has auto, plain/))
  assert.throws(create('{"threads":-1}'), isInvalid(/threads is -1, not in 0..1024/))
})

test('memory begins zeroed, is written in place and read without a copy', () => {
  const device = open('plain')
  const tensor = device.alloc([3, 2], 'f32')
  assert.deepEqual(Array.from(tensor.read()), [0, 0, 0, 0, 0, 0])
  const view = tensor.read()
  tensor.write(Float32Array.of(1, 2), 4)
  assert.deepEqual(Array.from(view), [0, 0, 0, 0, 1, 2])
  assert.deepEqual(Array.from(tensor.rows(2, 3).read()), [1, 2])
  assert.equal(tensor.rows(2, 3).pointer, tensor.pointer + 16)
  assert.throws(
    () => tensor.write(Float32Array.of(1, 2), 5),
    /write of 8 bytes at 20 into a tensor \[3,2\] of 24 bytes/,
  )
  assert.throws(() => tensor.rows(2, 4), /rows \[2, 4\) of a tensor \[3,2\]/)
})

test('freed memory cannot be read, not even through a view taken before', () => {
  const device = open('plain')
  const tensor = device.alloc([4], 'i32')
  const view = tensor.read()
  tensor.free()
  tensor.free()
  assert.equal(view.length, 0)
  assert.throws(() => tensor.read(), /a tensor \[4\] is used after it was freed/)
  const other = device.alloc([4], 'i32')
  device.close()
  device.close()
  assert.throws(() => other.read(), /used after it was freed/)
})

test('an allocation that no machine can give is an error, not a crash', () => {
  assert.throws(
    () => open('plain').alloc([2 ** 30, 2 ** 22], 'f32'),
    /ps_malloc: no memory for 18014398509481984 bytes/,
  )
})

test('free memory is at most all memory, and there is some', () => {
  const { free, total } = open('plain').memory()
  assert.ok(free > 0 && free <= total)
})

test('devices of one process do not disturb each other', () => {
  const sum = (device: Device) => {
    const [x, y] = [device.upload(numbers(1000, 1)), device.upload(numbers(1000, 2))]
    run(device, (commands) => commands.add(x, y, 1000))
    return Array.from(x.read())
  }
  const [one, other] = [open('plain', 2), open('plain', 3)]
  const first = sum(one)
  assert.deepEqual(sum(other), first)
  other.close()
  assert.deepEqual(sum(one), first)
})
