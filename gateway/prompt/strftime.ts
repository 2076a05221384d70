// Python's datetime.strftime for chat templates that print today's date (strftime_now). In UTC, so that every gateway
// of a deployment renders the same prompt.
const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const MONTHS = 'January February March April May June July August September October November December'.split(' ')

const two = (n: number) => String(n).padStart(2, '0')
const dayOfYear = (t: Date) => Math.floor((t.getTime() - Date.UTC(t.getUTCFullYear(), 0, 1)) / 86_400_000) + 1

const DIRECTIVES: Record<string, (t: Date) => string> = {
  Y: (t) => String(t.getUTCFullYear()),
  y: (t) => two(t.getUTCFullYear() % 100),
  m: (t) => two(t.getUTCMonth() + 1),
  B: (t) => MONTHS[t.getUTCMonth()]!,
  b: (t) => MONTHS[t.getUTCMonth()]!.slice(0, 3),
  d: (t) => two(t.getUTCDate()),
  j: (t) => String(dayOfYear(t)).padStart(3, '0'),
  A: (t) => DAYS[t.getUTCDay()]!,
  a: (t) => DAYS[t.getUTCDay()]!.slice(0, 3),
  w: (t) => String(t.getUTCDay()),
  H: (t) => two(t.getUTCHours()),
  I: (t) => two(t.getUTCHours() % 12 || 12),
  p: (t) => (t.getUTCHours() < 12 ? 'AM' : 'PM'),
  M: (t) => two(t.getUTCMinutes()),
  S: (t) => two(t.getUTCSeconds()),
  Z: () => 'UTC',
  '%': () => '%',
}

/** `now` in Unix milliseconds; a directive that is not in the table stays as it is written. */
export function strftime(now: number, format: string): string {
  const time = new Date(now)
  return format.replace(/%([A-Za-z%])/g, (whole, letter: string) => DIRECTIVES[letter]?.(time) ?? whole)
}
