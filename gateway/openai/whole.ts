// Events -> the one object of an answer that is not streamed.
import type { Finish, Token, Usage } from '../../queue/event.ts'
import { type Identity, usageObject } from './chunks.ts'
import { chatLogprobs, completionLogprobs, type TokenNames } from './logprobs.ts'

/** All that one choice has become. */
export type Choice = { tokens: Token[]; finish: Finish }

export type WholeOptions = { logprobs: boolean; tokenNames: TokenNames; returnTokenIds: boolean }

function textOf({ tokens, finish }: Choice): string {
  return tokens.map((token) => token.text).join('') + finish.text
}

function endOf({ tokens, finish }: Choice, options: WholeOptions) {
  const ids = options.returnTokenIds ? { token_ids: tokens.map((token) => token.id) } : {}
  return { finish_reason: finish.reason, stop_reason: finish.stopReason, ...ids }
}

function head({ id, created, model, fingerprint }: Identity, object: string) {
  return { id, object, created, model, system_fingerprint: fingerprint }
}

export function chatCompletion(
  identity: Identity,
  choices: Choice[],
  usage: Usage,
  options: WholeOptions & { role: string; promptTokenIds: number[] | null },
): object {
  return {
    ...head(identity, 'chat.completion'),
    choices: choices.map((choice, index) => ({
      index,
      message: { role: options.role, content: textOf(choice), refusal: null },
      logprobs: options.logprobs ? chatLogprobs(choice.tokens, options.tokenNames) : null,
      ...endOf(choice, options),
    })),
    usage: usageObject(usage),
    ...(options.promptTokenIds ? { prompt_token_ids: options.promptTokenIds } : {}),
  }
}

/** `echo` gives the prompt's text of a choice, or ''; `promptTokenIds` its ids when they were asked for. */
export function textCompletion(
  identity: Identity,
  choices: Choice[],
  usage: Usage,
  options: WholeOptions & { echo: (choice: number) => string; promptTokenIds: (choice: number) => number[] },
): object {
  return {
    ...head(identity, 'text_completion'),
    choices: choices.map((choice, index) => ({
      index,
      text: options.echo(index) + textOf(choice),
      logprobs: options.logprobs ? completionLogprobs(choice.tokens, options.tokenNames, 0).record : null,
      ...endOf(choice, options),
      ...(options.returnTokenIds ? { prompt_token_ids: options.promptTokenIds(index) } : {}),
    })),
    usage: usageObject(usage),
  }
}
