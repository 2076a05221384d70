// One build at a time: a lock file that names the process which holds it. A holder that has died is passed over; so is
// one that holds for minutes, for outputs appear by rename and a second build at once only wastes time.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const patienceMs = 180_000
const pollMs = 50

export async function withLock<Result>(path: string, action: () => Promise<Result>): Promise<Result> {
  const giveUpAt = performance.now() + patienceMs
  while (!tryLock(path)) {
    if (!isAlive(holder(path)) || performance.now() > giveUpAt) rmSync(path, { force: true })
    else await sleep(pollMs)
  }
  try {
    return await action()
  } finally {
    rmSync(path, { force: true })
  }
}

function tryLock(path: string): boolean {
  try {
    writeFileSync(path, String(process.pid), { flag: 'wx' })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** null: the file is gone or its process has not written its id yet. */
function holder(path: string): number | null {
  try {
    return Number(readFileSync(path, 'utf8')) || null
  } catch {
    return null
  }
}

function isAlive(pid: number | null): boolean {
  if (pid === null) return true
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
