// What Hugging Face's transformers computed for five small Llamas and one real one, against our kernels.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Device, type Isa } from '../../../engine/native/device.ts'
import { verify } from '../../../scripts/verify.ts'

const fixture = (name: string) => fileURLToPath(new URL(`../../fixtures/${name}`, import.meta.url))
const goldens = ['llama_gqa', 'llama_mha_sharded', 'llama3_rope_tied', 'llama_linear_rope', 'llama_bias_headdim']
const folders = [...goldens.map((name) => fixture(`golden/${name}`)), fixture('stories260K')]

function missingIsa(isa: Isa): string | false {
  try {
    Device.open({ backend: 'cpu', threads: 1, isa }).close()
    return false
  } catch (error) {
    if (isa === 'plain') throw error
    return `this machine has no ${isa}`
  }
}

async function assertAgrees(argv: string[]): Promise<void> {
  const lines: string[] = []
  const code = await verify([...argv, ...folders], (line) => lines.push(line))
  assert.equal(code, 0, `\n${lines.join('\n')}`)
  assert.equal(lines.filter((line) => line.endsWith(' ok')).length, folders.length)
}

for (const isa of ['plain', 'avx2', 'avx512', 'avx512_bf16', 'amx'] as const) {
  const skip = missingIsa(isa)
  for (const dtype of ['float32', 'bfloat16']) {
    test(`${isa} kernels in ${dtype} agree with the goldens, however the cache was filled`, { skip }, () =>
      assertAgrees(['--isa', isa, '--dtype', dtype, '--threads', '2']),
    )
  }
  test(`${isa} kernels with int8 weights and cache agree with the goldens as far as 8 bits can`, { skip }, () =>
    assertAgrees(['--isa', isa, '--quantization', 'int8', '--kv-cache-dtype', 'int8_per_token_head', '--threads', '2']),
  )
}
