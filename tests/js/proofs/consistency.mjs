// Reads JSON lines {"first": m, "second": n, "root1": hex, "root2": hex, "path": [hex, ...]} on stdin and prints, for
// each, whether @transmute/rfc9162 accepts the consistency proof.
import { createInterface } from 'node:readline'
import rfc9162 from '@transmute/rfc9162'

const judge = rfc9162.default ?? rfc9162
const bytes = (hex) => new Uint8Array(Buffer.from(hex, 'hex'))

for await (const line of createInterface({ input: process.stdin })) {
  const { first, second, root1, root2, path } = JSON.parse(line)
  // It leaves out step 2 of RFC 9162, 2.1.4.2: where the first size is a power of two, its root begins the path.
  const whole = (first & (first - 1)) === 0 ? [root1, ...path] : path
  const proof = { tree_size_1: first, tree_size_2: second, consistency_path: whole.map(bytes) }
  console.log(await judge.verifyConsistencyProof(bytes(root1), bytes(root2), proof))
}
