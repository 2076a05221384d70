// Messages or text -> token ids, for one model. The template sees what transformers would give it: messages with plain
// string content, tool-call arguments as objects, the special tokens by name.
import type { Card } from '../../queue/card.ts'
import type { Clock } from '../../queue/clock.ts'
import { badRequest, internalError } from '../errors.ts'
import type { Cards } from './card.ts'
import type { RenderPool } from './pool.ts'
import { render, type Template, TemplateFailure, TemplateRefusal, type Variables } from './template.ts'
import type { PromptEncoder, TokenIds } from './tokenizer.ts'

/** Rendering takes about 5 µs per message and little per character; beyond these a worker does it. */
const IN_PLACE_MESSAGES = 256
const IN_PLACE_CHARACTERS = 200_000

export type PromptMessage = { role: string; content: string } & Record<string, unknown>

export type Conversation = {
  messages: PromptMessage[]
  /** chat_template_kwargs and what a request says in fields of their own (reasoning_effort, documents). */
  variables: Variables
  addGenerationPrompt: boolean
  /** End the prompt inside the last message, for the model to go on with it. */
  continueFinalMessage: boolean
  addSpecialTokens: boolean
}

export class Prompts {
  readonly #cards: Cards
  readonly #pool: RenderPool
  readonly #clock: Clock

  constructor(cards: Cards, pool: RenderPool, clock: Clock) {
    this.#cards = cards
    this.#pool = pool
    this.#clock = clock
  }

  async chat(card: Card, conversation: Conversation): Promise<TokenIds> {
    const template = await this.#cards.template(card)
    if (template === null) {
      throw badRequest('messages', `The model ${card.name} has no chat template; use /v1/completions.`)
    }
    const encoder = await this.#cards.encoder(card)
    const { messages, variables } = conversation
    const { value, found } = encoder.special.hide({ messages: messages.map(rolesOf(template)), variables })
    const given = {
      ...card.specialTokens,
      ...value.variables,
      messages: value.messages,
      add_generation_prompt: conversation.addGenerationPrompt,
    }
    let rendered = await this.#render(template, given)
    if (conversation.continueFinalMessage) rendered = cutAfterLastMessage(rendered, value.messages)
    checkLength(card, encoder, rendered, 'messages')
    return encoder.encodeRendered(rendered, found, conversation.addSpecialTokens)
  }

  /** The text as it is: special tokens written in a completions prompt are special, as with vLLM. */
  async text(card: Card, text: string, addSpecialTokens: boolean): Promise<TokenIds> {
    const encoder = await this.#cards.encoder(card)
    checkLength(card, encoder, text, 'prompt')
    return encoder.plain.encode(text.toWellFormed(), addSpecialTokens)
  }

  async badWords(card: Card, words: readonly string[] = []): Promise<number[][]> {
    if (words.length === 0) return []
    const encoder = await this.#cards.encoder(card)
    return encoder.badWords(words)
  }

  async decode(card: Card, ids: TokenIds | number[]): Promise<string> {
    const encoder = await this.#cards.encoder(card)
    return encoder.plain.decode(ids, false)
  }

  async tokenStrings(card: Card, ids: TokenIds): Promise<string[]> {
    const { plain } = await this.#cards.encoder(card)
    return Array.from(ids, (id) => plain.tokenOf(id) ?? '')
  }

  async #render(template: Template, variables: Variables & { messages: PromptMessage[] }): Promise<string> {
    const now = this.#clock.now()
    const { messages } = variables
    const characters = messages.reduce((sum, message) => sum + message.content.length, 0)
    const small = messages.length <= IN_PLACE_MESSAGES && characters <= IN_PLACE_CHARACTERS
    try {
      if (small) return render(template, variables, now)
      return await this.#pool.render({ source: template.source, variables, now })
    } catch (error) {
      if (error instanceof TemplateRefusal) {
        throw badRequest('messages', `The model's chat template refuses these messages: ${error.message.slice(0, 500)}`)
      }
      if (error instanceof TemplateFailure) {
        throw badRequest(
          'messages',
          `The model's chat template cannot render these messages: ${error.message.slice(0, 500)}`,
        )
      }
      throw internalError(error)
    }
  }
}

/** OpenAI's `developer` is the system role of templates that do not know it. */
function rolesOf(template: Template): (message: PromptMessage) => PromptMessage {
  const known = template.source.includes('developer')
  return (message) => (message.role === 'developer' && !known ? { ...message, role: 'system' } : message)
}

function cutAfterLastMessage(rendered: string, messages: PromptMessage[]): string {
  const content = messages.at(-1)?.content.trim() ?? ''
  const start = rendered.lastIndexOf(content)
  if (content !== '' && start >= 0) return rendered.slice(0, start + content.length)
  throw badRequest('continue_final_message', 'The chat template does not print the last message as it is.')
}

/** Megabytes that cannot fit are refused without encoding them; what may fit is counted exactly later. */
function checkLength(card: Card, encoder: PromptEncoder, text: string, param: string): void {
  if (text.length <= card.maxModelLength * encoder.longestToken) return
  const message =
    `This model's maximum context length is ${card.maxModelLength} tokens, which no text of ${text.length} characters ` +
    'fits. Shorten the prompt.'
  throw badRequest(param, message, 'context_length_exceeded')
}
