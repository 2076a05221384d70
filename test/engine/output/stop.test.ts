import assert from 'node:assert/strict'
import { test } from 'node:test'
import { StopStrings } from '../../../engine/output/stop.ts'

/** Feeds the pieces; returns what each set free and the match. */
function run(stops: string[], pieces: string[], include = false) {
  const strings = new StopStrings(stops, { include })
  const out: string[] = []
  for (const piece of pieces) {
    out.push(strings.push(piece))
    if (strings.matched !== null) break
  }
  return { out, matched: strings.matched, rest: strings.matched === null ? strings.flush() : '' }
}

test('a stop string over three pieces is cut and the text before it is released', () => {
  assert.deepEqual(run(['STOP'], ['say S', 'TO', 'P now']), { out: ['say ', '', ''], matched: 'STOP', rest: '' })
})

test('include_stop_str_in_output keeps the stop string and drops what follows', () => {
  assert.deepEqual(run(['STOP'], ['say S', 'TO', 'P now'], true), {
    out: ['say ', '', 'STOP'],
    matched: 'STOP',
    rest: '',
  })
})

test('text that only began like a stop string is released as soon as that is known', () => {
  assert.deepEqual(run(['\n\nUser:'], ['a\n', '\n', 'Us', 'age']), {
    out: ['a', '', '', '\n\nUsage'],
    matched: null,
    rest: '',
  })
  assert.deepEqual(run(['aab'], ['a', 'a', 'a', 'c']), { out: ['', '', 'a', 'aac'], matched: null, rest: '' })
})

test('what is withheld at the end of the sequence is flushed', () => {
  assert.deepEqual(run(['END'], ['the E', 'N']), { out: ['the ', ''], matched: null, rest: 'EN' })
})

test('the match that is complete first wins, then the longest', () => {
  assert.equal(run(['abcd', 'bc'], ['xabcd']).matched, 'bc')
  assert.deepEqual(run(['abcd', 'bc'], ['xabcd']).out, ['xa'])
  assert.equal(run(['c', 'bc', 'abc'], ['xabc']).matched, 'abc')
  assert.deepEqual(run(['c', 'bc', 'abc'], ['xabc']).out, ['x'])
})

test('how the text is cut into pieces changes neither the match nor the text', () => {
  const text = 'one two <|end|> three 👩‍👩‍👧 END four \u2028 STOP'
  for (const stops of [
    ['STOP', 'four'],
    ['👩‍👧'],
    ['D f', 'END'],
    ['e', 'ee <'],
    ['nothing'],
    ['two <', 'o <|e', '<|end|>'],
  ]) {
    const characters = [...text]
    const whole = run(stops, [text])
    for (let size = 1; size < 7; size++) {
      const pieces: string[] = []
      for (let i = 0; i < characters.length; i += size) pieces.push(characters.slice(i, i + size).join(''))
      const cut = run(stops, pieces)
      assert.equal(cut.out.join('') + cut.rest, whole.out.join('') + whole.rest)
      assert.equal(cut.matched, whole.matched)
      for (const piece of cut.out) assert.ok(piece.isWellFormed())
    }
  }
})

test('empty and ill-formed stop strings never match', () => {
  assert.deepEqual(run(['', '\ud83d'], ['a😀b']), { out: ['a😀b'], matched: null, rest: '' })
})

test('matches that end inside the first min_tokens tokens do not count, those that end later do', () => {
  const strings = new StopStrings(['ab', 'a'], { include: false })
  assert.equal(strings.push('ab a', false), 'ab ')
  assert.equal(strings.matched, null)
  assert.equal(strings.push('b'), '')
  assert.equal(strings.matched, 'ab')
})
