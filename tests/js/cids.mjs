// Reads a plan (JSON lines: {"size": n, "seed": s, "zeros": bool}) on stdin, and prints the CID that
// ipfs-unixfs-importer gives each file under the profile unixfs-v1-2025.
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { importer } from 'ipfs-unixfs-importer'

const BLOCK = 1 << 20
// The importer asks a block store only to keep what it made.
const nowhere = { put: async (cid) => cid }

// A file that is the same in every language: 1 MiB pieces, zeros but for the SHA-256 of "seed:index" at their start.
function * content ({ size, seed, zeros }) {
  const piece = new Uint8Array(BLOCK)
  for (let at = 0, index = 0; at < size; at += BLOCK, index++) {
    const fresh = zeros ? piece : new Uint8Array(BLOCK)
    if (!zeros) fresh.set(createHash('sha256').update(`${seed}:${index}`).digest())
    yield fresh.subarray(0, Math.min(BLOCK, size - at))
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const options = {
    cidVersion: 1,
    rawLeaves: true,
    chunker: fixedSize({ chunkSize: BLOCK }),
    layout: balanced({ maxChildrenPerNode: 1024 }),
    wrapWithDirectory: false
  }
  let root
  for await (const entry of importer([{ content: content(JSON.parse(line)) }], nowhere, options)) root = entry.cid
  console.log(root.toString())
}
