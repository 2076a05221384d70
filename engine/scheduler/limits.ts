// What a scheduler is told, and what it refuses at once: options that cannot work together, and requests that could
// never run, which would wait for ever. Called by scheduler.ts and plain.ts.
import { RequestRefused } from '../errors.ts'
import type { Speculation } from './ngram.ts'
import type { SequenceRequest } from './sequence.ts'

export type SchedulerOptions = {
  /** Tokens of KV per block. */
  blockSize: number
  /** KV blocks of the pool. */
  numBlocks: number
  /** Prompt and output of a sequence together; it finishes with `length` there. */
  maxModelLen: number
  maxNumSeqs: number
  /** Token budget of a step, prefill and decode together. */
  maxNumBatchedTokens: number
  /** A prompt gets at most this many tokens of a step; 0: the whole budget. */
  longPrefillTokenThreshold: number
  enableChunkedPrefill: boolean
  enablePrefixCaching: boolean
  /** End of sequence, from config.json and generation_config.json. */
  eosTokenIds: readonly number[]
  /** Guesses that decodes compute and verify in the same step; null: none. */
  speculation?: Speculation | null
  /** Requests beyond so many waiting sequences are refused; no limit if absent. */
  maxNumWaiting?: number
  /** For comparison; 'continuous' if absent. static: a batch is admitted when the last one has ended whole. plain: see
   * plain.ts. */
  policy?: 'continuous' | 'static' | 'plain'
}

/** Blocks that stay free when another sequence is admitted, so that its neighbours can go on for a while. */
export function spareBlocks({ numBlocks }: SchedulerOptions): number {
  return Math.floor(numBlocks / 100)
}

/** Below the model's length a request may still be too long for this pool. @throws RequestRefused */
export function refuseMisfit({ prompt, sampling }: SequenceRequest, options: SchedulerOptions): void {
  const { maxModelLen, maxNumSeqs, numBlocks, blockSize } = options
  if (prompt.length === 0) throw new RequestRefused('request_failed', 'prompt: empty; give at least one token')
  if (prompt.length >= maxModelLen) {
    throw new RequestRefused(
      'context_length_exceeded',
      `prompt: ${prompt.length} tokens; at most ${maxModelLen - 1} leave room for an answer (--max-model-len ${maxModelLen})`,
    )
  }
  const kv = `the ${numBlocks * blockSize} tokens of KV cache; lower max_tokens or raise --kv-cache-memory-bytes`
  // The last token is sampled, never computed.
  const longest = Math.ceil((Math.min(prompt.length + sampling.maxTokens, maxModelLen) - 1) / blockSize)
  if (longest > numBlocks) {
    throw new RequestRefused(
      'context_length_exceeded',
      `max_tokens: ${prompt.length} prompt tokens and up to ${sampling.maxTokens} more do not fit in ${kv}`,
    )
  }
  if (!sampling.useBeamSearch) return
  if (sampling.n > maxNumSeqs) {
    throw new RequestRefused('request_failed', `n: ${sampling.n} beams run together; --max-num-seqs is ${maxNumSeqs}`)
  }
  // Beams wait for each other, so all must fit at the same time; what they share for certain is the prompt.
  const shared = Math.floor(prompt.length / blockSize)
  if (shared + sampling.n * (longest - shared) > numBlocks - spareBlocks(options)) {
    throw new RequestRefused(
      'context_length_exceeded',
      `n: ${sampling.n} beams of ${prompt.length} prompt tokens and up to ${sampling.maxTokens} more do not fit in ${kv}`,
    )
  }
}

/** @throws Error that names the option */
export function checkOptions(options: SchedulerOptions): void {
  const { maxNumSeqs, maxNumBatchedTokens, maxModelLen, numBlocks, blockSize, enableChunkedPrefill } = options
  for (const [name, value] of Object.entries({ maxNumSeqs, maxNumBatchedTokens, maxModelLen, numBlocks, blockSize })) {
    if (!Number.isInteger(value) || value < 1) throw new Error(`${name}: ${value}; must be a whole number above 0`)
  }
  if (maxNumBatchedTokens < maxNumSeqs) {
    throw new Error(
      `--max-num-batched-tokens ${maxNumBatchedTokens} is below --max-num-seqs ${maxNumSeqs}: not every sequence would get a token per step`,
    )
  }
  if (!enableChunkedPrefill && maxNumBatchedTokens < maxModelLen) {
    throw new Error(
      `--max-num-batched-tokens ${maxNumBatchedTokens} is below --max-model-len ${maxModelLen}: without chunked prefill a long prompt would never run`,
    )
  }
}
