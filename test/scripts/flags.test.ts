// The command line takes what vLLM's takes and names what it does not know.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { demoModel, engineConfig, gatewayConfig, modelOf } from '../../scripts/cli/configure.ts'
import { keyOf, nearest, parseFlags, readInteger, UsageError } from '../../scripts/cli/flags.ts'
import { formatHelp } from '../../scripts/cli/help.ts'
import { createKey } from '../../scripts/cli/keys.ts'
import { engineFlags, gatewayFlags, ignoredFlags, processFlags, sharedFlags } from '../../scripts/cli/server-flags.ts'

const groups = [gatewayFlags, ...engineFlags, sharedFlags, processFlags, ignoredFlags]
const flags = groups.flatMap((group) => group.flags)
const parse = (line: string, env: NodeJS.ProcessEnv = {}) => parseFlags(flags, line.split(' ').filter(Boolean), env)

test('the spellings of argparse are understood', () => {
  const { values } = parse('--max_model_len=2k --no-enable-prefix-caching --port 1234 --dtype float32')
  assert.deepEqual(values, { maxModelLen: 2000, enablePrefixCaching: false, port: 1234, dtype: 'float32' })
})

test('human integers: small letters are decimal, capitals binary', () => {
  const cases = { '32k': 32_000, '32K': 32_768, '1.5k': 1500, '2G': 2 ** 31, '1m': 1e6, '-1': -1 }
  for (const [text, value] of Object.entries(cases)) assert.equal(readInteger('--x', text), value)
  for (const text of ['', 'k', '1.5', '12kb', '1e3', '0x10']) {
    assert.throws(() => readInteger('--x', text), /--x must be a whole number/)
  }
})

test('a list flag takes every word up to the next flag', () => {
  const { values, positional } = parse('folder --served-model-name a b --port 1')
  assert.deepEqual(values, { servedModelName: ['a', 'b'], port: 1 })
  assert.deepEqual(positional, ['folder'])
})

test('an unknown flag is refused with the nearest name', () => {
  assert.throws(
    () => parse('--max-modell-len 5'),
    new UsageError('unknown flag --max-modell-len; did you mean --max-model-len? (--help lists all)'),
  )
  assert.throws(() => parse('--zzzzzzzzzzzzz'), new UsageError('unknown flag --zzzzzzzzzzzzz (--help lists all)'))
  assert.equal(nearest('srve', ['serve', 'engine']), 'serve')
})

test('a missing, wrong or superfluous value names its flag', () => {
  assert.throws(() => parse('--port'), /--port needs a value/)
  assert.throws(() => parse('--port --host x'), /--port needs a value/)
  assert.throws(() => parse('--port eighty'), /--port must be a whole number.*"eighty"/)
  assert.throws(() => parse('--dtype int4'), /--dtype must be one of auto, float32, bfloat16, not "int4"/)
  assert.throws(() => parse('--allowed-origins [oops'), /--allowed-origins must be JSON/)
  assert.throws(() => parse('--enable-prefix-caching=yes'), /takes no value/)
})

test('flags of vLLM that change nothing here are accepted with a warning', () => {
  const { values, warnings } = parse('--gpu-memory-utilization 0.9 --enforce-eager --trust-remote-code --port 1')
  assert.deepEqual(values, { port: 1 })
  assert.equal(warnings.length, 3)
  assert.match(warnings[2] as string, /--trust-remote-code has no effect: code of a model is never executed/)
})

test('the environment gives what no flag gives', () => {
  const env = { VLLM_API_KEY: 'secret', PAGESTREAM_CACHE_SECRET: 'salt', REDIS_URL: 'redis://env' }
  const { values } = parse('--redis redis://flag', env)
  assert.deepEqual(values, { apiKeys: ['secret'], cacheSecret: 'salt', redis: 'redis://flag' })
})

test('flags and fields of the configurations match one to one', () => {
  const fieldsOf = (config: object) =>
    Object.entries(config).flatMap(([name, value]) =>
      name === 's3' ? Object.keys(value as object).map((field) => `s3.${field}`) : [name],
    )
  const keysOf = (of: typeof groups) => of.flatMap((group) => group.flags).map(keyOf)
  assert.deepEqual(keysOf([gatewayFlags, sharedFlags]).sort(), fieldsOf(gatewayConfig({})).sort())
  const notFlags = ['redisUrl', 'seed'] // set by the command; of LLM only
  const engineFields = fieldsOf(engineConfig({ model: 'm' }, null)).filter((field) => !notFlags.includes(field))
  assert.deepEqual(keysOf([...engineFlags, sharedFlags]).sort(), engineFields.sort())
})

test('a value that a configuration refuses is named by its flag', () => {
  assert.throws(() => gatewayConfig({ port: 70_000 }), /^Error: --port: /)
  assert.throws(() => gatewayConfig({ apiKeys: [''] }), /^Error: --api-key: /)
  assert.throws(() => engineConfig({ model: demoModel, maxNumSeqs: 0 }, null), /--max-num-seqs/)
  const guessing = (given: object) => () => engineConfig({ model: 'm', speculativeConfig: given }, null)
  const ngram = { method: 'ngram', num_speculative_tokens: 4 }
  assert.throws(guessing({ ...ngram, method: 'eagle' }), /--speculative-config: method: must be "ngram"/)
  assert.throws(guessing({ ...ngram, model: 'x' }), /--speculative-config: model: unknown/)
  assert.throws(
    guessing({ ...ngram, prompt_lookup_max: 2, prompt_lookup_min: 3 }),
    /prompt_lookup_min: is 3, more than/,
  )
  const { speculativeConfig } = guessing({ ...ngram, prompt_lookup_max: 3 })()
  const parsed = { numSpeculativeTokens: 4, promptLookupMax: 3, promptLookupMin: 3, disableByBatchSize: null }
  assert.deepEqual(speculativeConfig, parsed)
  assert.equal(engineConfig({ model: 'm', 's3.region': 'eu' }, 'redis://r').s3.region, 'eu')
})

test('the model may stand alone or behind its flag, once', () => {
  assert.equal(modelOf(parse('some/model')), 'some/model')
  assert.equal(modelOf(parse('--model some/model')), 'some/model')
  assert.equal(modelOf(parse('')), undefined)
  assert.throws(() => modelOf(parse('a b')), /"b" is too much/)
  assert.throws(() => modelOf(parse('a --model b')), /two models/)
})

test('the help shows every flag of the table', () => {
  const help = formatHelp('pagestream serve', 'Serves.', groups)
  for (const flag of flags) assert.ok(help.includes(flag.name.slice(2)), flag.name)
  assert.ok(
    help.split('\n').every((line) => line.length <= 110),
    'lines fit a terminal',
  )
})

test('a new key has the documented form and is never twice the same', () => {
  assert.match(createKey(), /^sk-ps-[A-Za-z0-9]{12}-[A-Za-z0-9]{48}$/)
  assert.notEqual(createKey(), createKey())
})
