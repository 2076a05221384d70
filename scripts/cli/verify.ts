// `pagestream verify`: the comparison of scripts/verify.ts, on kernels that are built first if need be.
import { buildKernels } from '../build.ts'
import { verify } from '../verify.ts'
import { log } from './log.ts'

export { help } from '../verify.ts'

export async function run(argv: string[]): Promise<number> {
  await buildKernels({ log })
  return verify(argv)
}
