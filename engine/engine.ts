// The engine: requests of token ids in, sampled token ids out, one step at a time. It knows no queue, no text and no
// clock; the worker thread, the offline LLM and the tests drive it by the same four verbs (add, abort, step, stats).
import type { FailureCode } from '../queue/event.ts'

export type { SequenceRequest } from './scheduler/sequence.ts'

export type EngineOptions = {
  /** Tokens of KV per block. */
  blockSize: number
  /** KV blocks of the pool. */
  numBlocks: number
  /** Prompt and output of a sequence together; it finishes with `length` there. */
  maxModelLen: number
  maxNumSeqs: number
  /** Token budget of a step, prefill and decode together; at least maxNumSeqs. */
  maxNumBatchedTokens: number
  /** A prompt gets at most this many tokens of a step; 0: the whole budget. */
  longPrefillTokenThreshold: number
  enableChunkedPrefill: boolean
  enablePrefixCaching: boolean
  /** End of sequence, from config.json and generation_config.json. */
  eosTokenIds: number[]
}

/** One sampled token, or the end of a choice without one (resumed ids that were already complete), or a refusal. */
export type StepOutput =
  | {
      type: 'token'
      id: string
      choice: number
      token: number
      /** Position in the choice's output, counted from its very first token. */
      index: number
      /** The sampled token first, then the most likely ones in order; absent unless asked for. */
      logprobs?: { id: number; logprob: number; rank: number }[]
      finish?: 'stop' | 'length'
      /** The stop token of the request that ended it; absent for end of sequence. */
      stopTokenId?: number
      /** With the first token of this engine: prompt tokens found in the prefix cache. */
      cachedTokens?: number
    }
  | { type: 'finish'; id: string; choice: number; index: number; finish: 'stop' | 'length'; stopTokenId?: number }
  | { type: 'failed'; id: string; code: FailureCode; message: string }

/** Gauges of this moment and counters since the start; tokens unless named otherwise. */
export type EngineStats = {
  steps: number
  /** Sequences. */
  running: number
  waiting: number
  /** Tokens of the waiting sequences that are still to be computed. */
  waitingTokens: number
  totalBlocks: number
  /** Blocks no sequence holds; some of them still carry a cached prefix. */
  freeBlocks: number
  cachedBlocks: number
  /** 0 to 1. */
  kvUsage: number
  prefixQueries: number
  prefixHits: number
  preemptions: number
  /** Of the last step: tokens computed and sequences in it. */
  stepTokens: number
  stepSequences: number
  promptTokens: number
  generationTokens: number
}
