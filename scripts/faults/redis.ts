// rows
import type { Row } from './row.ts'

export const redisRows: Row[] = []
