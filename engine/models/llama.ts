// Llama: arXiv 2302.13971, with the grouped-query attention of Llama 2 (2307.09288). Mistral (2310.06825) is the same
// with a sliding window, Qwen2 (2407.10671) the same with biases on q, k and v: config.ts says which.
import type { KvLayer } from '../native/ops.ts'
import { attention, embedding, gatedMlp, head, type Residual, rmsNorm, type Shared, type Step } from './layers.ts'
import type { Weights } from './weights.ts'

export function llama(weights: Weights, shared: Shared) {
  const model = weights.in('model')
  const { weight, embed } = embedding(model.in('embed_tokens'), shared)
  const layers = Array.from({ length: shared.config.layers }, (_, i) => decoderLayer(model.in(`layers.${i}`), shared))
  const norm = rmsNorm(model.in('norm'), shared)
  const lmHead = head(weights.in('lm_head'), weight, shared)

  return (step: Step, kv: KvLayer[]): void => {
    const x = embed(step)
    for (const [i, layer] of layers.entries()) layer(x, step, kv[i]!)
    lmHead(norm(x, step), step)
  }
}

function decoderLayer(weights: Weights, shared: Shared) {
  const inputNorm = rmsNorm(weights.in('input_layernorm'), shared)
  const attend = attention(weights.in('self_attn'), shared)
  const postNorm = rmsNorm(weights.in('post_attention_layernorm'), shared)
  const mlp = gatedMlp(weights.in('mlp'), shared)

  return (x: Residual, step: Step, kv: KvLayer): void => {
    x.pending = attend(inputNorm(x, step), step, kv)
    x.pending = mlp(postNorm(x, step), step)
  }
}
