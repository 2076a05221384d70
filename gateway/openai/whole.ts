// Events -> the one object of an answer that is not streamed.
import type { Finish, Token, Usage } from '../../queue/event.ts'
import { type Identity, usageObject } from './chunks.ts'
import { chatLogprobs, completionLogprobs, promptLogprobs, promptTokens, type TokenNames } from './logprobs.ts'

/** All that one choice has become. */
export type Choice = { tokens: Token[]; finish: Finish }

export type WholeOptions = {
  logprobs: boolean
  tokenNames: TokenNames
  returnTokenIds: boolean
  /** Log-probabilities of the prompt, as vLLM gives them. */
  promptLogprobs: boolean
}

/** How a completion shows its prompt. */
export type EchoOptions = {
  /** The prompt's text of a choice, or ''. */
  echo: (choice: number) => string
  /** false: nothing but the prompt was asked for. */
  continues: boolean
}

const onlyPrompt: Choice = { tokens: [], finish: { text: '', reason: 'length', stopReason: null } }

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
    ...promptRecords(choices[0], options),
  }
}

function promptRecords(choice: Choice | undefined, options: WholeOptions) {
  const first = choice?.tokens[0]
  return options.promptLogprobs && first ? { prompt_logprobs: promptLogprobs(first) } : {}
}

/** `promptTokenIds` gives the ids of a choice's prompt when they were asked for. */
export function textCompletion(
  identity: Identity,
  choices: Choice[],
  usage: Usage,
  options: WholeOptions & EchoOptions & { promptTokenIds: (choice: number) => number[] },
): object {
  const { continues, tokenNames } = options
  return {
    ...head(identity, 'text_completion'),
    choices: choices.map((choice, index) => {
      const echo = options.echo(index)
      const own = continues ? choice : onlyPrompt
      const shown = [...(echo === '' ? [] : promptTokens(choice.tokens)), ...own.tokens]
      return {
        index,
        text: echo + textOf(own),
        logprobs: options.logprobs ? completionLogprobs(shown, tokenNames, 0).record : null,
        ...endOf(own, options),
        ...(options.returnTokenIds ? { prompt_token_ids: options.promptTokenIds(index) } : {}),
        ...promptRecords(choice, options),
      }
    }),
    usage: usageObject(continues ? usage : { ...usage, completionTokens: 0 }),
  }
}
