// How the stream of an answer looks, kept in the queue with its jobs: any gateway can write the same events again for a
// client that comes back (routes/streams.ts).
import { ChatChunks, type ChunkOptions, type Chunks, CompletionChunks, type Identity } from './openai/chunks.ts'

export type View = {
  identity: Identity
  options: ChunkOptions
  /** The jobs of the answer, in the order of its choices. */
  jobs: { id: string; n: number }[]
  /** Its client may come back, so it outlives its readers by its grace. */
  keep: boolean
} & (
  | { kind: 'chat'; role: string }
  /** `echoes`: the text of each prompt, or '' where it was not asked for; `continues`: more than that was asked for. */
  | { kind: 'completion'; echoes: string[]; continues: boolean }
)

export function createChunks(view: View): Chunks {
  const { identity, options } = view
  if (view.kind === 'chat') return new ChatChunks(identity, options, view.role)
  const { echoes, continues, jobs } = view
  const n = jobs[0]!.n
  return new CompletionChunks(identity, options, { echo: (choice) => echoes[Math.floor(choice / n)] ?? '', continues })
}
