// What scripts/bench/paging.ts prints is also true.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { claims } from '../../scripts/bench/paging.ts'

for (const claim of claims) {
  test(`${claim.name} reaches what it must`, () => {
    const { figure, isMet, must } = claim()
    assert.ok(isMet, `${figure}; must be ${must}`)
  })
}
