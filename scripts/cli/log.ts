// What the commands tell the person who started them: lines on stderr; stdout is for results.
export function log(line: string): void {
  process.stderr.write(`pagestream: ${line}\n`)
}
