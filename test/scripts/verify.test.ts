// `pagestream verify`: it must pass what is right, and above all miss what is wrong.
import assert from 'node:assert/strict'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { verify } from '../../scripts/verify.ts'

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url))
const shared = fileURLToPath(new URL('../../../shared/data/', import.meta.url))
const absent = existsSync(shared) ? false : `${shared} is absent`
const scratch = mkdtempSync(join(tmpdir(), 'pagestream-verify-'))
after(() => rmSync(scratch, { recursive: true }))

async function run(...argv: string[]): Promise<{ code: number; output: string }> {
  const lines: string[] = []
  const code = await verify(argv, (line) => lines.push(line))
  return { code, output: lines.join('\n') }
}

/** A copy of a golden model with another golden.json. */
function changed(name: string, change: (golden: { prompts: Record<string, number[]>[] }) => void): string {
  const folder = join(mkdtempSync(join(scratch, 'model-')), name)
  cpSync(join(fixtures, 'golden', name), folder, { recursive: true })
  const golden = JSON.parse(readFileSync(join(folder, 'golden.json'), 'utf8'))
  change(golden)
  writeFileSync(join(folder, 'golden.json'), JSON.stringify(golden))
  return folder
}

test('a logit that is off by 3e-4, a wrong greedy token and a wrong logprob are misses', async () => {
  const right = changed('llama_gqa', () => {})
  const logit = changed('llama_gqa', ({ prompts }) => {
    prompts[1]!.last_logits![7]! += 3e-4
  })
  const token = changed('llama_gqa', ({ prompts }) => {
    prompts[2]!.greedy![30]! ^= 1
  })
  const logprob = changed('llama_gqa', ({ prompts }) => {
    prompts[0]!.prompt_logprobs![3]! += 1e-3
  })
  const { code, output } = await run('--isa', 'plain', '--threads', '1', right, logit, token, logprob)
  const verdicts = output
    .split('\n')
    .slice(1, 5)
    .map((line) => line.trim().split(/\s+/).at(-1))
  assert.deepEqual(verdicts, ['ok', 'MISS', 'MISS', 'MISS'], output)
  assert.match(output, /1 of 4 agree/)
  assert.equal(code, 1)
})

test('mistakes in the command line say what is wrong', async () => {
  await assert.rejects(run(), /give one or more model folders/)
  await assert.rejects(run('--dtpye', 'float32', 'x'), /did you mean --dtype/)
  await assert.rejects(run('--isa', 'sse', 'x'), /--isa must be of auto, plain, avx2, .*, amx, not "sse"/)
  await assert.rejects(run('--tokenizer', 'x'), /vectors\.json/)
})

test('a model that cannot be compared is a miss that says why, and the next one is still compared', async () => {
  const empty = changed('llama_gqa', ({ prompts }) => {
    prompts[0]!.greedy = []
  })
  const missing = changed('llama_gqa', () => {})
  rmSync(join(missing, 'golden.json'))
  const foreign = changed('llama_gqa', ({ prompts }) => {
    prompts[0]!.ids![0] = 320
  })
  const { code, output } = await run(
    '--isa',
    'plain',
    '--threads',
    '1',
    empty,
    missing,
    foreign,
    changed('llama_gqa', () => {}),
  )
  const lines = output.split('\n')
  assert.match(lines[1]!, /golden\.json: prompts\.0\.greedy: Too small/)
  assert.match(lines[2]!, /has no golden\.json to compare with/)
  assert.match(lines[3]!, /has token 320, the model's vocabulary ends at 319/)
  assert.match(lines[4]!, / ok$/)
  assert.equal(code, 1)
})

const tokenizer = join(fixtures, 'stories260K')
const vectors = {
  encode: [
    {
      text: 'Once upon a time',
      ids: [1, 403, 407, 261, 378],
      ids_no_special: [403, 407, 261, 378],
      decoded: 'Once upon a time',
    },
  ],
  decode_random: [{ ids: [1, 403, 2], decoded: '<s> Once</s>', decoded_skip_special: 'Once' }],
}

test('a tokenizer that agrees with its vectors passes, one id off is a miss', async () => {
  const file = join(scratch, 'vectors.json')
  writeFileSync(file, JSON.stringify(vectors))
  assert.deepEqual(await run('--tokenizer', tokenizer, file), { code: 0, output: 'stories260K: 5 of 5 agree' })
  vectors.encode[0]!.ids[2] = 408
  writeFileSync(file, JSON.stringify(vectors))
  const { code, output } = await run('--tokenizer', tokenizer, file)
  assert.equal(code, 1)
  assert.match(
    output,
    /encode "Once upon a time": 1,403,407,261,378 instead of 1,403,408,261,378\nstories260K: 4 of 5 agree/,
  )
})

test('templates are compared with their renderings: equal, different, refused, unsupported', async () => {
  const folder = mkdtempSync(join(scratch, 'templates-'))
  writeFileSync(
    join(folder, 'plain.jinja'),
    "{% for m in messages %}{{ bos_token }}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}>{% endif %}",
  )
  writeFileSync(join(folder, 'strict.jinja'), "{{ raise_exception('no') }}")
  const golden = (text: string) => ({
    cases: {
      hi: { messages: [{ role: 'user', content: 'Hi' }] },
      done: { messages: [{ role: 'user', content: 'Hi' }], gen: false },
    },
    extra_vars: { bos_token: '<s>' },
    templates: {
      'plain.jinja': { cases: { hi: { ok: true, text: '<s>Hi>' }, done: { ok: true, text } } },
      'strict.jinja': { cases: { hi: { ok: false, error: 'TemplateError: no' } } },
    },
  })
  const file = join(folder, 'golden.json')
  writeFileSync(file, JSON.stringify(golden('<s>Hi')))
  const right = await run('--templates', file)
  assert.equal(right.code, 0)
  assert.match(right.output, /3 renderings agree, 0 differ, 0 unsupported/)
  writeFileSync(file, JSON.stringify(golden('<s>Hi ')))
  const wrong = await run('--templates', file)
  assert.equal(wrong.code, 1)
  assert.match(wrong.output, /plain\.jinja +1 passed +done differs/)
})

test('every shared tokenizer agrees with its vectors', { skip: absent }, async () => {
  const folder = join(shared, 'tokenizers')
  for (const name of readdirSync(folder)) {
    const { code, output } = await run('--tokenizer', join(folder, name), join(folder, name, 'vectors.json'))
    assert.equal(code, 0, output)
  }
})

test('every shared chat template renders as in transformers', { skip: absent }, async () => {
  const { code, output } = await run('--templates', join(shared, 'templates', 'golden.json'))
  assert.equal(code, 0, output)
})

test('Mistral and Qwen2 goldens and the demo model agree too', { skip: absent }, async () => {
  const models = ['golden/mistral_swa', 'golden/mistral_full_headdim', 'golden/qwen2', 'models/demo']
  const { code, output } = await run(...models.map((name) => join(shared, name)))
  assert.equal(code, 0, output)
})
