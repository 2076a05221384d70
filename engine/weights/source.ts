// A Source is where a model's files are: a folder, an S3 prefix or a repository of the Hugging Face hub. Whoever reads a
// model (files.ts, load.ts) sees only this interface: names, sizes, byte ranges. open.ts makes one from what --model says.
//
// Only the kinds of files below are ever listed or fetched: no pickles, no code. A read gives exactly the bytes asked
// for or throws a SourceError whose message is one line that says what to do, and holds no secret.
import type { Clock } from '../../queue/clock.ts'

/** `etag` is the store's own version of the content (S3 ETag, git or SHA-256 hash on the hub); plain folders have none. */
export type FileEntry = { name: string; bytes: number; etag?: string }

export interface Source {
  /** How an error should call it: the folder, s3://bucket/prefix, org/name. */
  readonly name: string
  list(): Promise<FileEntry[]>
  /** Bytes [begin, end) of the file. */
  read(file: string, begin: number, end: number): Promise<Uint8Array>
  text(file: string): Promise<string>
  close(): Promise<void>
}

/** `bytes` of `total` over all files have arrived; `file` is the one that moved. */
export type Progress = { file: string; bytes: number; total: number }

export type S3Options = {
  endpoint?: string | undefined
  region?: string | undefined
  /** If absent the SDK looks for them: environment, shared files, the node's role. */
  credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string } | undefined
}

export type SourceOptions = {
  clock: Clock
  /** Uniform in [0, 1): jitter of the pauses between attempts. */
  random: () => number
  /** Branch, tag or commit on the hub; 'main' if absent. */
  revision?: string | undefined
  /** Cache folder for both S3 and the hub, before `hubCache` and `s3Cache`. */
  downloadDir?: string | undefined
  hubCache?: string | undefined
  s3Cache?: string | undefined
  /** false: read from S3 or the hub straight into memory, nothing on disk. */
  cache?: boolean | undefined
  /** Use only what the cache holds. */
  offline?: boolean | undefined
  hfToken?: string | undefined
  hfEndpoint?: string | undefined
  /** Proxies on the way to the hub, as in HTTP_PROXY, HTTPS_PROXY, NO_PROXY. */
  proxies?: { http?: string | undefined; https?: string | undefined; none?: string | undefined } | undefined
  s3?: S3Options | undefined
  onProgress?: ((progress: Progress) => void) | undefined
  warn?: ((message: string) => void) | undefined
}

export type SourceErrorCode = 'not_found' | 'denied' | 'invalid' | 'unreachable' | 'changed' | 'corrupt' | 'disk'

/** The files are not what a model needs: the message names the file and the fix. */
export class ModelError extends Error {
  override name = 'ModelError'
}

/** The files cannot be had; `code` says which kind of obstacle it is. */
export class SourceError extends ModelError {
  override name = 'SourceError'
  readonly code: SourceErrorCode
  constructor(code: SourceErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** Files sit directly in the folder, prefix or repository; sub-folders hold copies in other formats. */
export function isModelFile(name: string): boolean {
  return /^\w[\w.+-]*\.(safetensors|json|txt|jinja)$/.test(name)
}
