// UTF-8 character by character, for the vocabulary table and the detokenizer: a stream must know whether the bytes
// at its end are broken or only not complete yet, which TextDecoder does not tell. Table 3-7 of the Unicode standard.

/** At bytes[i]: n > 0, a whole character of n bytes; 0, the beginning of one that the end of `bytes` cuts off;
 * -n, n bytes that no continuation makes valid (the maximal subpart that is replaced by one U+FFFD). */
export function characterAt(bytes: Uint8Array, i: number): number {
  const lead = bytes[i] as number
  if (lead < 0x80) return 1
  if (lead < 0xc2 || lead > 0xf4) return -1
  const size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4
  for (let k = 1; k < size; k++) {
    const byte = bytes[i + k]
    if (byte === undefined) return 0
    const low = k > 1 ? 0x80 : lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80
    const high = k > 1 ? 0xbf : lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf
    if (byte < low || byte > high) return -k
  }
  return size
}

/** The code point of the whole character of `size` bytes at bytes[i]. */
export function codePointAt(bytes: Uint8Array, i: number, size: number): number {
  const lead = bytes[i] as number
  if (size === 1) return lead
  let code = lead & (0xff >> (size + 1))
  for (let k = 1; k < size; k++) code = (code << 6) | ((bytes[i + k] as number) & 0x3f)
  return code
}
