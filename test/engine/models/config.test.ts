import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { parseModelConfig } from '../../../engine/models/config.ts'
import { ModelError } from '../../../engine/weights/source.ts'

const raw = JSON.parse(readFileSync(new URL('../../fixtures/golden/llama_gqa/config.json', import.meta.url), 'utf8'))
const config = (changes: object) => parseModelConfig({ ...raw, ...changes })
const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 }

test('a Llama is read with its own numbers', () => {
  assert.deepEqual(config({}), {
    architecture: 'LlamaForCausalLM',
    vocabularySize: 320,
    hiddenSize: 64,
    intermediateSize: 144,
    layers: 2,
    heads: { query: 4, kv: 2, size: 16 },
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    tiedEmbeddings: false,
    activation: 'silu',
    normEps: 1e-5,
    rope: { theta: 10000, size: 16, scaling: { type: 'default' } },
    window: 0,
    maxPositions: 512,
    dtype: 'float32',
    bosTokenId: 1,
    eosTokenIds: [2],
  })
})

test('absent fields take the defaults of Hugging Face', () => {
  const { num_key_value_heads: _, head_dim: __, rope_theta: ___, rms_norm_eps: ____, dtype: _____, ...bare } = raw
  const read = parseModelConfig({ ...bare, torch_dtype: 'bfloat16', eos_token_id: [2, 7] })
  assert.deepEqual(read.heads, { query: 4, kv: 4, size: 16 })
  assert.equal(read.rope.theta, 10000)
  assert.equal(read.normEps, 1e-6)
  assert.equal(read.dtype, 'bfloat16')
  assert.deepEqual(read.eosTokenIds, [2, 7])
  assert.deepEqual(config({ eos_token_id: null }).eosTokenIds, [])
})

test('the three ways to write rope scaling say the same', () => {
  const expected = {
    theta: 500000,
    size: 16,
    scaling: { type: 'llama3', factor: 8, lowFrequency: 1, highFrequency: 4, originalPositions: 8192 },
  }
  assert.deepEqual(config({ rope_theta: 500000, rope_scaling: { ...llama3, rope_type: 'llama3' } }).rope, expected)
  assert.deepEqual(config({ rope_theta: 500000, rope_scaling: { ...llama3, type: 'llama3' } }).rope, expected)
  const { rope_theta: _, rope_scaling: __, ...rest } = raw
  const parameters = { ...llama3, rope_type: 'llama3', rope_theta: 500000 }
  assert.deepEqual(parseModelConfig({ ...rest, rope_parameters: parameters }).rope, expected)
})

test('Mistral has a window and no biases, Qwen2 has biases on q, k and v', () => {
  const mistral = config({ architectures: ['MistralForCausalLM'], sliding_window: 16 })
  assert.deepEqual([mistral.window, mistral.qkvBias], [16, false])
  assert.equal(config({ architectures: ['MistralForCausalLM'], sliding_window: null }).window, 0)
  const qwen = config({ architectures: ['Qwen2ForCausalLM'] })
  assert.deepEqual([qwen.qkvBias, qwen.outputBias, qwen.mlpBias], [true, false, false])
})

const refused: [object, RegExp][] = [
  [
    { architectures: ['GPT2LMHeadModel'] },
    /architectures: GPT2LMHeadModel is not supported; supported: LlamaForCausalLM/,
  ],
  [{ architectures: ['toString'] }, /architectures: toString is not supported/],
  [{ architectures: [] }, /architectures/],
  [{ architectures: undefined }, /architectures: .*missing/],
  [{ quantization_config: { quant_method: 'awq' } }, /quantization_config\.quant_method: awq is not supported/],
  [{ architectures: ['Qwen2ForCausalLM'], use_sliding_window: true }, /use_sliding_window: true is not supported/],
  [{ hidden_size: 0 }, /hidden_size: .*\(0\)/],
  [{ hidden_size: -64 }, /hidden_size: .*\(-64\)/],
  [{ hidden_size: '64' }, /hidden_size: .*\(64\)/],
  [{ hidden_size: undefined }, /hidden_size: .*\(missing\)/],
  [{ num_hidden_layers: 2.5 }, /num_hidden_layers/],
  [{ vocab_size: 2 ** 40 }, /vocab_size/],
  [{ num_key_value_heads: 3 }, /num_attention_heads: 4 is not a multiple of num_key_value_heads, 3/],
  [{ head_dim: null, num_attention_heads: 6 }, /hidden_size: 64 is not a multiple of num_attention_heads, 6/],
  [{ head_dim: 15 }, /head_dim: 15 rotary dimensions/],
  [{ hidden_act: 'relu' }, /hidden_act: relu is not supported; supported: silu/],
  [{ rms_norm_eps: -1 }, /rms_norm_eps/],
  [{ dtype: 'int4' }, /dtype: int4 is not supported; supported: float32, float16, bfloat16/],
  [{ max_position_embeddings: 0 }, /max_position_embeddings/],
  [{ eos_token_id: '2' }, /eos_token_id: expected a token id or a list of them \(2\)/],
  [{ eos_token_id: [2, -1] }, /eos_token_id/],
  [{ attention_bias: 'yes' }, /attention_bias/],
  [{ rope_theta: 0 }, /rope_theta/],
  [
    { rope_scaling: { rope_type: 'yarn', factor: 4 } },
    /rope_scaling\.rope_type: not supported; supported: default, linear, llama3 \(yarn\)/,
  ],
  [{ rope_scaling: { type: 'dynamic', factor: 2 } }, /rope_type: not supported.*\(dynamic\)/],
  [{ rope_scaling: { rope_type: 'linear' } }, /rope_scaling\.factor: .*missing/],
  [{ rope_scaling: { ...llama3, rope_type: 'llama3', high_freq_factor: 1 } }, /high_freq_factor, 1, must be above/],
  [{ rope_scaling: 'linear' }, /rope_scaling: /],
]
for (const [change, message] of refused) {
  test(`config.json with ${JSON.stringify(change)} is refused by name`, () => {
    assert.throws(
      () => config(change),
      (error: Error) => {
        assert.ok(error instanceof ModelError, error.stack)
        assert.match(error.message, /^config\.json: /)
        assert.match(error.message, message)
        return true
      },
    )
  })
}

test('anything but an object is refused', () => {
  for (const json of [null, 7, 'x', [], undefined]) assert.throws(() => parseModelConfig(json), ModelError)
})
