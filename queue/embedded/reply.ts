// Replies inside the embedded server, before they become Lua values or Buffers, and its errors. Texts are byte strings.

export type Value = null | number | string | Status | Value[]

/** `OK` and the like: a string for clients, {ok = ...} for Lua. */
export class Status {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

export const OK = new Status('OK')

/** An error reply; the message starts with its code, as Redis writes it. */
export class RedisError extends Error {
  override name = 'ReplyError'
}

export function integer(text: string, complaint = 'ERR value is not an integer or out of range'): number {
  if (!/^(0|-?[1-9]\d{0,14})$/.test(text)) throw new RedisError(complaint)
  return Number(text)
}

export function float(text: string): number {
  const infinite = /^([-+]?)inf(inity)?$/i.exec(text)
  if (infinite) return infinite[1] === '-' ? -Infinity : Infinity
  if (!/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text)) throw new RedisError('ERR value is not a valid float')
  return Number(text)
}
