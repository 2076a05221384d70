// The name of a block of tokens: a hash of everything before it and of its own ids. Gateways route by it, engines find
// KV blocks by it; both compute it here, so the names agree.
//
// hash(block i) = SHA-256(hash(block i - 1), ids of block i), cut to 128 bits; before block 0 stands the hash of salt and
// adapter. Equal names therefore mean equal whole prefixes under one salt and one adapter, and a hit is taken without
// comparing ids. That makes a collision a leak of one tenant's context into another's answer, hence a cryptographic
// hash: 64 bits could be met by 2^32 prompts computed at leisure; 128 bits take 2^64, and a chosen second preimage
// 2^128. Across tenants the salt (an HMAC the client never sees) is unknown as well. About 1 us per block.
import { hash } from 'node:crypto'

/** 128 bits as 32 hexadecimal digits. */
export type BlockHash = string

/** The parent of the first block. */
export function rootHash(salt: string, adapter: number): BlockHash {
  return digest(Buffer.from(`pagestream block 1\n${adapter}\n${salt}`))
}

/** The block that holds `tokens` [begin, end), following the block named `parent`. */
export function blockHash(parent: BlockHash, tokens: Uint32Array | Int32Array, begin: number, end: number): BlockHash {
  const bytes = Buffer.allocUnsafe(32 + 4 * (end - begin))
  bytes.write(parent, 0, 'latin1')
  for (let i = begin, at = 32; i < end; i++, at += 4) bytes.writeUInt32LE(tokens[i]!, at)
  return digest(bytes)
}

/** Names of the full blocks of a prompt, the first `limit` of them. */
export function prefixHashes(
  tokens: Uint32Array | Int32Array,
  options: { blockSize: number; salt: string; adapter: number; limit?: number },
): BlockHash[] {
  const { blockSize, salt, adapter, limit = Number.POSITIVE_INFINITY } = options
  const hashes: BlockHash[] = []
  let parent = rootHash(salt, adapter)
  for (let end = blockSize; end <= tokens.length && hashes.length < limit; end += blockSize) {
    parent = blockHash(parent, tokens, end - blockSize, end)
    hashes.push(parent)
  }
  return hashes
}

function digest(bytes: Buffer): BlockHash {
  return hash('sha256', bytes, 'hex').slice(0, 32)
}
