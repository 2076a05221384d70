// The flags of `serve`, `gateway` and `engine`: names and meanings are vLLM's where vLLM has the flag. The keys are
// the fields of GatewayConfig and EngineConfig, which hold the defaults and check the values.
import type { Flag } from './flags.ts'
import { logLevels } from './log.ts'

export type FlagGroup = { title: string; flags: readonly Flag[] }

export const processFlags: FlagGroup = {
  title: 'Process',
  flags: [
    {
      name: '--redis',
      kind: 'string',
      env: ['PAGESTREAM_REDIS', 'REDIS_URL'],
      help: 'redis://, rediss:// or unix:// URL; "embedded" keeps the queue in this process (serve only). Without it, serve starts a redis-server found on PATH, else embeds one',
    },
    {
      name: '--log-level',
      kind: 'string',
      choices: logLevels,
      env: ['PAGESTREAM_LOG_LEVEL'],
      help: 'least severe log record to write (default info; warn for serve)',
    },
  ],
}

/** One word for both halves. */
export const sharedFlags: FlagGroup = {
  title: 'Limits',
  flags: [{ name: '--max-logprobs', kind: 'integer', help: 'most log-probabilities per token' }],
}

export const gatewayFlags: FlagGroup = {
  title: 'Gateway',
  flags: [
    { name: '--host', kind: 'string', help: 'address to listen on (0.0.0.0: every interface)' },
    { name: '--port', kind: 'integer', help: 'port to listen on (0: a free one)' },
    {
      name: '--api-key',
      kind: 'list',
      key: 'apiKeys',
      env: ['PAGESTREAM_API_KEY', 'VLLM_API_KEY'],
      help: 'accept only these bearer keys; without, any key is accepted',
    },
    { name: '--root-path', kind: 'string', help: 'path prefix under which a proxy forwards to us, like /llm' },
    {
      name: '--allowed-origins',
      kind: 'json',
      help: 'JSON list of origins a browser may call from, \'["*"]\' for any',
    },
    { name: '--response-role', kind: 'string', help: 'role of chat answers' },
    {
      name: '--max-num-queued-reqs',
      kind: 'integer',
      key: 'maxQueuedRequests',
      help: 'answer 503 when a model has this many requests waiting',
    },
    {
      name: '--max-num-queued-tokens',
      kind: 'integer',
      key: 'maxQueuedTokens',
      help: 'answer 503 when the waiting requests may need this many tokens',
    },
    { name: '--max-n', kind: 'integer', help: 'most choices of one request' },
    { name: '--max-body-bytes', kind: 'integer', help: 'largest request body' },
    {
      name: '--request-timeout-ms',
      kind: 'integer',
      help: 'give up a request without a token after',
    },
    { name: '--headers-after-ms', kind: 'integer', help: 'send the headers of a stream at the latest after' },
    { name: '--keep-alive-comment-ms', kind: 'integer', help: 'SSE comment after this much silence' },
    { name: '--stalled-reader-ms', kind: 'integer', help: 'cut off a client that reads nothing for' },
    { name: '--keep-alive-timeout-ms', kind: 'integer', help: 'close idle connections after' },
    { name: '--drain-timeout-ms', kind: 'integer', help: 'open requests get this long after SIGTERM' },
    { name: '--orphan-grace-ms', kind: 'integer', help: 'a job whose gateway has died goes on for' },
    { name: '--idempotency-ttl-ms', kind: 'integer', help: 'remember an Idempotency-Key for' },
    { name: '--idempotent-retention-ms', kind: 'integer', help: 'keep an ended answer for its Idempotency-Key for' },
    { name: '--enable-force-include-usage', kind: 'boolean', help: 'end every stream with a usage chunk' },
    { name: '--return-tokens-as-token-ids', kind: 'boolean', help: 'write tokens of logprobs as "token_id:123"' },
    {
      name: '--cache-secret',
      kind: 'string',
      env: ['PAGESTREAM_CACHE_SECRET'],
      help: 'separates tenants in the prefix cache; the same on every gateway of a deployment',
    },
  ],
}

export const engineFlags: FlagGroup[] = [
  {
    title: 'Model',
    flags: [
      { name: '--model', kind: 'string', help: 'folder, s3://bucket/prefix or org/name of the Hugging Face hub' },
      { name: '--served-model-name', kind: 'list', help: 'names the model answers to; the first one is the pool' },
      { name: '--revision', kind: 'string', help: 'branch, tag or commit on the hub' },
      { name: '--tokenizer', kind: 'string', help: 'folder of another tokenizer.json than the model brings' },
      { name: '--chat-template', kind: 'string', help: 'file of a Jinja chat template, or the template itself' },
      {
        name: '--dtype',
        kind: 'string',
        choices: ['auto', 'float32', 'bfloat16'],
        help: 'type of the weights in memory; auto: bfloat16 unless the checkpoint is float32',
      },
      {
        name: '--load-format',
        kind: 'string',
        choices: ['auto', 'safetensors', 'dummy'],
        help: 'dummy: random weights of the shape that config.json describes, for measuring',
      },
      {
        name: '--quantization',
        kind: 'string',
        choices: ['int8'],
        help: 'int8: weights of the layers and activations in 8 bits, made while loading',
      },
      { name: '--max-model-len', kind: 'integer', help: 'longest prompt plus answer, in tokens (32k)' },
      {
        name: '--generation-config',
        kind: 'string',
        help: '"auto": sampling defaults of generation_config.json; "vllm": none; or a folder',
      },
      { name: '--override-generation-config', kind: 'json', help: 'JSON over the generation config' },
    ],
  },
  {
    title: 'Where weights come from',
    flags: [
      { name: '--download-dir', kind: 'string', help: 'cache of downloaded models' },
      { name: '--hf-token', kind: 'string', help: 'token for gated models of the hub (or HF_TOKEN)' },
      { name: '--hf-endpoint', kind: 'string', help: 'another hub (or HF_ENDPOINT; default huggingface.co)' },
      { name: '--offline', kind: 'boolean', help: 'use the cache only, never the network (or HF_HUB_OFFLINE=1)' },
      {
        name: '--s3-endpoint',
        kind: 'string',
        key: 's3.endpoint',
        help: 'S3-compatible server (or AWS_ENDPOINT_URL); keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or wherever the AWS SDK finds them',
      },
      { name: '--s3-region', kind: 'string', key: 's3.region', help: 'its region (or AWS_REGION)' },
    ],
  },
  {
    title: 'Engine',
    flags: [
      { name: '--max-num-seqs', kind: 'integer', help: 'most sequences in one step' },
      { name: '--max-num-batched-tokens', kind: 'integer', help: 'most tokens in one step' },
      {
        name: '--long-prefill-token-threshold',
        kind: 'integer',
        help: 'longest piece of one prompt per step (0: no bound)',
      },
      { name: '--enable-chunked-prefill', kind: 'boolean', help: 'cut long prompts into pieces' },
      {
        name: '--static-batching',
        kind: 'boolean',
        help: 'admit a batch only when all of the last one has ended; for comparison',
      },
      {
        name: '--enable-prefix-caching',
        kind: 'boolean',
        help: 'keep the KV blocks of prompts for reuse',
      },
      {
        name: '--speculative-config',
        kind: 'json',
        help: 'guess tokens from the prompt and verify them in one step: \'{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}\'',
      },
      { name: '--block-size', kind: 'integer', help: 'tokens per KV block' },
      { name: '--kv-cache-memory-bytes', kind: 'integer', help: 'memory of the KV cache (2G = 2 x 2^30)' },
      { name: '--num-gpu-blocks-override', kind: 'integer', help: 'exact number of KV blocks' },
      {
        name: '--kv-cache-dtype',
        kind: 'string',
        choices: ['auto', 'float32', 'bfloat16', 'float16', 'int8_per_token_head'],
        help: 'type of the KV cache; auto: that of the weights',
      },
      { name: '--threads', kind: 'integer', help: 'CPU threads of the kernels (0: the cores of this machine)' },
      {
        name: '--isa',
        kind: 'string',
        choices: ['auto', 'plain', 'avx2', 'avx512', 'avx512_vnni', 'avx512_bf16', 'amx'],
        help: 'instruction path of the CPU kernels',
      },
      { name: '--lease-ms', kind: 'integer', help: 'work of an engine silent this long goes to another' },
      { name: '--step-timeout-ms', kind: 'integer', help: 'an engine whose step takes longer ends itself' },
      { name: '--shutdown-timeout', kind: 'integer', help: 'seconds running requests may take after SIGTERM' },
      {
        name: '--metrics-port',
        kind: 'integer',
        help: "port of the engine's own /metrics and /health (0: a free one)",
      },
      { name: '--metrics-host', kind: 'string', help: 'address of the same' },
    ],
  },
]

const noGpu = 'it concerns GPUs, and this engine computes on the CPU'

/** Flags of vLLM that known command lines and manifests carry and that change nothing here. */
export const ignoredFlags: FlagGroup = {
  title: 'Accepted without effect',
  flags: [
    { name: '--trust-remote-code', kind: 'boolean', help: '', ignored: 'code of a model is never executed' },
    {
      name: '--gpu-memory-utilization',
      kind: 'number',
      help: '',
      ignored: `${noGpu}; --kv-cache-memory-bytes sets the cache`,
    },
    { name: '--enforce-eager', kind: 'boolean', help: '', ignored: noGpu },
    {
      name: '--seed',
      kind: 'integer',
      help: '',
      ignored: 'every request draws a seed of its own unless it brings one',
    },
    { name: '--swap-space', kind: 'number', help: '', ignored: 'removed from vLLM' },
    { name: '--disable-log-requests', kind: 'boolean', help: '', ignored: 'prompts are never logged' },
    { name: '--enable-log-requests', kind: 'boolean', help: '', ignored: 'prompts are never logged' },
    { name: '--disable-log-stats', kind: 'boolean', help: '', ignored: 'statistics are at /metrics only' },
    { name: '--use-v2-block-manager', kind: 'boolean', help: '', ignored: 'removed from vLLM' },
    { name: '--num-scheduler-steps', kind: 'integer', help: '', ignored: 'removed from vLLM' },
    { name: '--max-seq-len-to-capture', kind: 'integer', help: '', ignored: 'removed from vLLM' },
    { name: '--worker-use-ray', kind: 'boolean', help: '', ignored: 'removed from vLLM' },
    { name: '--guided-decoding-backend', kind: 'string', help: '', ignored: 'removed from vLLM' },
    { name: '--uvicorn-log-level', kind: 'string', help: '', ignored: 'there is no uvicorn' },
    { name: '--disable-uvicorn-access-log', kind: 'boolean', help: '', ignored: 'there is no uvicorn' },
    { name: '--enable-request-id-headers', kind: 'boolean', help: '', ignored: 'every answer carries x-request-id' },
    { name: '--enable-prompt-tokens-details', kind: 'boolean', help: '', ignored: 'usage always has cached_tokens' },
  ],
}
