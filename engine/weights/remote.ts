// A Remote is a store of a model's files over HTTP (s3.ts, hub.ts), as ranges.ts, direct.ts and cache.ts see it. It
// makes one attempt at a time and turns every answer that no repetition can change (wrong secret, no such object,
// replaced object) into a SourceError; whatever else it throws is a fault of the moment and is tried again (network.ts).
import type { Readable } from 'node:stream'
import type { FileEntry } from './source.ts'

/** `address`: key or URL. `etag` names the content; `verify` says which hash of it the etag is, where it is one. */
export type RemoteFile = FileEntry & { address: string; etag: string; verify?: 'sha256' | 'git' }

/** `revision` names this exact set of files; a store whose content changes gets another one. */
export type Manifest = { revision: string; files: RemoteFile[] }

export type Answer = { status: number; contentRange: string | undefined; body: Readable }

export interface Remote {
  /** As given by the user, for messages. */
  readonly name: string
  /** Folder of the cache that belongs to this bucket and prefix, or to this repository. */
  readonly cacheName: string
  /** What the user asked for: a branch, tag or commit. */
  readonly ref: string
  manifest(): Promise<Manifest>
  /** One attempt at bytes [begin, end) of exactly the content that the manifest named. */
  open(file: RemoteFile, begin: number, end: number, signal: AbortSignal): Promise<Answer>
  close(): void
}
