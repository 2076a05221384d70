// What the engine answers when it will not run a request. A refusal is data for the client (a `failed` output), never
// the end of the engine; an error of a kernel is the opposite: it is thrown, the process exits, another engine takes over.
import type { FailureCode } from '../queue/event.ts'

export class RequestRefused extends Error {
  readonly code: FailureCode

  constructor(code: FailureCode, message: string) {
    super(message)
    this.name = 'RequestRefused'
    this.code = code
  }
}
