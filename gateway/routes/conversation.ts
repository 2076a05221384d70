// The part of a request that becomes the template's input; the same for /v1/chat/completions and /tokenize.
import type { ChatRequest } from '../openai/schema.ts'
import type { Conversation } from '../prompt/prompts.ts'

type Fields = Pick<
  ChatRequest,
  | 'messages'
  | 'chat_template_kwargs'
  | 'reasoning_effort'
  | 'add_generation_prompt'
  | 'continue_final_message'
  | 'add_special_tokens'
>

export function conversationOf(body: Fields): Conversation {
  const effort = body.reasoning_effort === undefined ? {} : { reasoning_effort: body.reasoning_effort }
  const continueFinalMessage = body.continue_final_message ?? false
  return {
    // An assistant that only called tools has no content; templates expect a string.
    messages: body.messages.map((message) => withoutAbsent({ ...message, content: message.content ?? '' })),
    variables: { ...effort, ...body.chat_template_kwargs },
    addGenerationPrompt: body.add_generation_prompt ?? !continueFinalMessage,
    continueFinalMessage,
    addSpecialTokens: body.add_special_tokens ?? false,
  }
}

/** Templates ask whether a field is defined, so an absent one must not be there. */
function withoutAbsent<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T
}
