// Where a model's files come from. A source lists the files of one model and reads byte ranges of them; weights/load.ts
// streams tensors through it and never asks which kind it is. File names are plain names, relative to the model.

export type FileEntry = {
  name: string
  bytes: number
  /** What the store says identifies this content, if it says so: never reused for other bytes. */
  etag?: string
}

export interface Source {
  /** How an error should call it: the folder, s3://bucket/prefix, org/name. */
  readonly name: string
  list(): Promise<FileEntry[]>
  /** Bytes [begin, end), all of them: a source that has fewer throws and names the file. */
  read(file: string, begin: number, end: number): Promise<Uint8Array>
  text(file: string): Promise<string>
  close(): Promise<void>
}

/** The files of a model are not what a model needs: the message names the file and the fix. */
export class ModelError extends Error {
  override name = 'ModelError'
}
