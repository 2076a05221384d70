// Byte ranges of a Remote's files, many at a time. A range is given to its sink in order, every byte once: an attempt
// that breaks off is taken up at the byte where it stopped. Nothing is taken on trust: the answer must be the very range
// of an object of the very size that the manifest named, and its body must have that length.
import { addAbortSignal } from 'node:stream'
import { type Network, type Pulse, persist } from './network.ts'
import type { Answer, Remote, RemoteFile } from './remote.ts'

export type Piece = { file: RemoteFile; begin: number; end: number }

/** Takes bytes for `position` of the file; what it throws must be a SourceError. */
export type Sink = (piece: Piece, chunk: Uint8Array, position: number) => void | Promise<void>

/** An empty range is one empty piece, so that an empty file arrives too. */
export function cut(file: RemoteFile, begin: number, end: number, partBytes: number): Piece[] {
  const pieces: Piece[] = []
  let at = begin
  do {
    pieces.push({ file, begin: at, end: Math.min(end, at + partBytes) })
    at += partBytes
  } while (at < end)
  return pieces
}

/** Brings every piece to the sink, then calls `arrived`; the first failure stops all of them and is thrown. */
export async function transfer(
  remote: Remote,
  pieces: Piece[],
  network: Network,
  sink: Sink,
  arrived: (piece: Piece) => Promise<void> = async () => {},
): Promise<void> {
  const stop = new AbortController()
  const bring = (piece: Piece) =>
    network.gate.pass(async () => {
      if (stop.signal.aborted) return
      try {
        await bringPiece(remote, piece, network, sink, stop.signal)
        await arrived(piece)
      } catch (error) {
        stop.abort(error)
      }
    })
  await Promise.all(pieces.map(bring))
  stop.signal.throwIfAborted()
}

async function bringPiece(
  remote: Remote,
  piece: Piece,
  network: Network,
  sink: Sink,
  signal: AbortSignal,
): Promise<void> {
  const { file, end } = piece
  let at = piece.begin
  if (at === end) return
  const attempt = async (signal: AbortSignal, pulse: Pulse) => {
    const answer = await remote.open(file, at, end, signal)
    try {
      assertRange(answer, file, at, end)
      for await (const chunk of addAbortSignal(signal, answer.body)) {
        if (at + chunk.length > end) throw new Error(`more bytes came than were asked for`)
        pulse.hold()
        await sink(piece, chunk, at)
        pulse.beat()
        at += chunk.length
      }
    } finally {
      answer.body.destroy()
    }
    if (at < end) throw new Error(`the body ended at byte ${at}, asked for bytes up to ${end}`)
  }
  await persist(`${remote.name}/${file.name}`, network, attempt, signal)
}

function assertRange({ status, contentRange }: Answer, file: RemoteFile, begin: number, end: number): void {
  if (isWhole(file, begin, end) && status === 200) return
  if (status === 200) throw new Error('the server answered with the whole object instead of a range')
  const expected = `bytes ${begin}-${end - 1}/${file.bytes}`
  if (contentRange !== expected) throw new Error(`asked for ${expected}, the answer is ${contentRange ?? 'no range'}`)
}

/** A whole object is asked for without a range: some servers and proxies give small files no other way. */
export function isWhole(file: RemoteFile, begin: number, end: number): boolean {
  return begin === 0 && end === file.bytes
}

/** All bytes of [begin, end) in memory. */
export async function readRange(
  remote: Remote,
  file: RemoteFile,
  begin: number,
  end: number,
  network: Network,
  seen: (bytes: number) => void = () => {},
): Promise<Uint8Array> {
  const target = new Uint8Array(end - begin)
  await transfer(remote, cut(file, begin, end, network.partBytes), network, (_piece, chunk, position) => {
    target.set(chunk, position - begin)
    seen(chunk.length)
  })
  return target
}
