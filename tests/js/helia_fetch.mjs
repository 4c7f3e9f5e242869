// Fetches a file from a trustless gateway with Helia, which checks every block, and prints its length and SHA-256.
// Usage: node helia_fetch.mjs GATEWAY CID [SECONDS]. Status 3: no verified bytes in that time (Helia may try for ever).
import { createHash } from 'node:crypto'
import { trustlessGateway } from '@helia/block-brokers'
import { createHeliaHTTP } from '@helia/http'
import { httpGatewayRouting } from '@helia/routers'
import { unixfs } from '@helia/unixfs'
import { CID } from 'multiformats/cid'

const [gateway, name, seconds = '30'] = process.argv.slice(2)
setTimeout(() => { console.error('no verified bytes in time'); process.exit(3) }, 1000 * Number(seconds))
const helia = await createHeliaHTTP({
  blockBrokers: [trustlessGateway({ allowInsecure: true, allowLocal: true })],
  routers: [httpGatewayRouting({ gateways: [gateway] })]
})
const hash = createHash('sha256')
let length = 0
try {
  for await (const piece of unixfs(helia).cat(CID.parse(name))) {
    hash.update(piece)
    length += piece.length
  }
} catch (error) {
  console.error(String(error))
  process.exit(3)
}
console.log(JSON.stringify({ length, sha256: hash.digest('hex') }))
process.exit(0)
