// What `serve` prints must work when pasted.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { greeting } from '../../scripts/cli/greeting.ts'

const server = { host: '127.0.0.1', rootPath: '', apiKeys: [] as string[] }
const chat = { name: 'demo', chatTemplate: 'hash' }

test('a chat model is greeted with a curl line and three lines of the openai client', () => {
  const text = greeting(server, 8000, chat)
  assert.match(text, /^Serving demo on http:\/\/127\.0\.0\.1:8000\/v1 /m)
  assert.match(text, /curl -N http:\/\/127\.0\.0\.1:8000\/v1\/chat\/completions/)
  assert.match(text, /baseURL: 'http:\/\/127\.0\.0\.1:8000\/v1', apiKey: 'not-needed'/)
  const body = /-d '(.*)'$/m.exec(text)?.[1] as string
  assert.equal(JSON.parse(body).messages[0].role, 'user')
})

test('a model without chat template is asked to complete', () => {
  const text = greeting(server, 8000, { name: 'base', chatTemplate: null })
  assert.match(text, /\/v1\/completions -H/)
  assert.match(text, /client\.completions\.create\(\{"model":"base","prompt":/)
})

test('keys are asked for and never printed; addresses are those that a client can use', () => {
  const text = greeting({ host: '0.0.0.0', rootPath: '/llm', apiKeys: ['secret-key'] }, 80, chat)
  assert.doesNotMatch(text, /secret-key/)
  assert.match(text, /authorization: Bearer \$KEY/)
  assert.match(text, /http:\/\/127\.0\.0\.1:80\/llm\/v1/)
  assert.match(greeting({ ...server, host: '::1' }, 80, chat), /http:\/\/\[::1\]:80\/v1/)
})
