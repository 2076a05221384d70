// Chat templates against jinja2 and transformers, and their limits.
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { after, test } from 'node:test'
import { RenderPool } from '../../../gateway/prompt/pool.ts'
import { renderTemplate, TemplateFailure, TemplateRefusal } from '../../../gateway/prompt/template.ts'
import { systemClock } from '../../../queue/clock.ts'
import { chatTemplate } from '../harness.ts'

const noon = Date.UTC(2026, 0, 15, 12, 5, 9)
const render = (source: string, variables: Record<string, unknown> = {}) => renderTemplate(source, variables, noon)

test('blocks eat their line, as transformers sets trim_blocks and lstrip_blocks', () => {
  assert.equal(render('a\n  {% if true %}\n  b\n  {% endif %}\nc'), 'a\n  b\nc')
})

test('tools and documents are none unless given', () => {
  assert.equal(render('{{ tools is none }} {{ documents is none }}'), 'True True')
  assert.equal(render('{{ tools | length }}', { tools: [1, 2] }), '2')
})

test('values are printed as Python prints them', () => {
  const value = { a: [1, 1.5, true, null, "it's"], 'b"': 'x\n' }
  assert.equal(render('{{ value }}', { value }), `{'a': [1, 1.5, True, None, "it's"], 'b"': 'x\\n'}`)
  assert.equal(render('{{ none }}{{ missing }}{{ false }}'), 'NoneFalse')
})

test('tojson keeps characters as they are', () => {
  assert.equal(render('{{ value | tojson }}', { value: { a: 'é<b>' } }), '{"a": "é<b>"}')
})

test('what is undefined is empty in ~ and in text filters', () => {
  assert.equal(render('[{{ missing ~ "x" }}][{{ missing | trim }}]'), '[x][]')
})

test('a string can be iterated, and what one turn of a loop sets the next does not see', () => {
  assert.equal(render('{% for c in "abc" %}{{ c }}.{% endfor %}'), 'a.b.c.')
  assert.equal(render('{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 2 %}{% endfor %}{{ x }}'), '111')
})

test('a macro sees its keyword arguments', () => {
  assert.equal(render('{% macro m() %}{{ kwargs.a }}{% endmacro %}{{ m(a=5) }}'), '5')
})

test('strftime_now reads the clock it is given', () => {
  assert.equal(render('{{ strftime_now("%d %b %Y %H:%M:%S %A %j") }}'), '15 Jan 2026 12:05:09 Thursday 015')
})

test("raise_exception is the template's refusal, other errors are its failure", () => {
  assert.throws(
    () => render('{{ raise_exception("Roles must alternate") }}'),
    new TemplateRefusal('Roles must alternate'),
  )
  assert.throws(() => render('{{ 1 + none }}'), TemplateFailure)
  assert.throws(() => render('{% if %}'), TemplateFailure)
})

test('templates that never end, or fill the memory, are stopped', () => {
  const loops = '{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}'
  assert.throws(() => render(loops), /too many steps/)
  assert.throws(() => render('{{ range(1000000000) | length }}'), /range\(\) of more than/)
  const doubling = '{% set ns = namespace(s="x") %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}'
  assert.throws(() => render(doubling), /too long/)
})

test("a template reaches nothing of the process, whatever it calls JavaScript's", () => {
  for (const name of ['process', 'globalThis', 'constructor', '__proto__', 'require']) {
    assert.equal(render(`{{ ${name} is defined }}`), 'False', name)
    assert.equal(render(`{{ messages.${name} is defined }}`, { messages: [] }), 'False', name)
  }
})

const pool = new RenderPool(systemClock)
after(() => pool.close())

test('the worker renders what the main thread renders, and tells refusals apart', async () => {
  const variables = { messages: [{ role: 'user', content: 'Hi' }], add_generation_prompt: true }
  const text = await pool.render({ source: chatTemplate, variables, now: noon })
  assert.equal(text, render(chatTemplate, variables))
  const refusing = { source: '{{ raise_exception("no") }}', variables: {}, now: noon }
  await assert.rejects(pool.render(refusing), new TemplateRefusal('no'))
  await assert.rejects(pool.render({ ...refusing, source: '{{ 1 + none }}' }), TemplateFailure)
  assert.equal(await pool.render({ source: chatTemplate, variables, now: noon }), text)
})

const golden = new URL('../../../../shared/data/templates/golden.json', import.meta.url)

test('44 templates render what transformers renders', { skip: !existsSync(golden) && 'no ../shared' }, () => {
  type Case = { messages: object[]; tools?: object[]; gen?: boolean; kw?: object }
  const { cases, templates, extra_vars } = JSON.parse(readFileSync(golden, 'utf8')) as {
    cases: Record<string, Case>
    templates: Record<string, { cases: Record<string, { ok: boolean; text?: string }> }>
    extra_vars: object
  }
  let compared = 0
  for (const [file, { cases: expected }] of Object.entries(templates)) {
    const source = readFileSync(new URL(file, golden), 'utf8')
    for (const [id, { ok, text }] of Object.entries(expected)) {
      if (!ok) continue
      const { messages, tools = null, gen = true, kw } = cases[id]!
      const variables = { ...extra_vars, messages, tools, add_generation_prompt: gen, ...kw }
      assert.equal(renderTemplate(source, variables, Date.UTC(2026, 0, 15, 12)), text, `${file} ${id}`)
      compared++
    }
  }
  assert.equal(compared, 384)
})
