// The published TypeScript SDK, unmodified, through everything it does with a core channel node.
//
// flows.mjs URL KEY: the node, and the private key (hex) of an account with tokens and credits on it.
import assert from 'node:assert/strict'
import { AuthenticatedAlephHttpClient } from '@aleph-sdk/client'
import { importAccountFromPrivateKey } from '@aleph-sdk/ethereum'
import { BaseMessageClient, ItemType } from '@aleph-sdk/message'

const [url, key] = process.argv.slice(2)
const account = importAccountFromPrivateKey(key)
const client = new AuthenticatedAlephHttpClient(account, url)
const common = { channel: 'SDK', sync: true }

const post = await client.createPost({ postType: 'note', content: { n: 1 }, ...common })
const amend = await client.createPost({ postType: 'amend', ref: post.item_hash, content: { n: 2 }, ...common })
const shown = await client.getPost({ types: 'note', hashes: [post.item_hash] })
assert.deepEqual([shown.content, shown.item_hash], [{ n: 2 }, amend.item_hash])
assert.deepEqual((await client.getMessage(post.item_hash)).content.content, { n: 1 })
const listed = await client.getMessages({ addresses: [account.address], pagination: 5 })
assert.deepEqual(listed.messages.map((message) => message.item_hash), [amend.item_hash, post.item_hash])

await client.createAggregate({ key: 'k', content: { x: 1 }, ...common })
await client.createAggregate({ key: 'k', content: { y: 2 }, ...common })
assert.deepEqual(await client.fetchAggregate(account.address, 'k'), { x: 1, y: 2 })

const store = await client.createStore({
  fileObject: Buffer.from('native'), storageEngine: ItemType.storage, ...common
})
assert.equal(Buffer.from(await client.downloadFile(store.content.item_hash)).toString(), 'native')
const ipfs = await client.createStore({ fileObject: Buffer.from('ipfs'), storageEngine: ItemType.ipfs, ...common })
assert.equal(Buffer.from(await client.downloadFile(ipfs.content.item_hash)).toString(), 'ipfs')

const program = await client.createProgram({
  programRef: store.item_hash, entrypoint: 'main:app', runtime: store.item_hash, metadata: { name: 'n' }, ...common
})
const instance = await client.createInstance({
  image: store.item_hash, metadata: { name: 'n' }, payment: { type: 'credit', chain: 'ETH' }, ...common
})
for (const message of [store, ipfs, program, instance]) {
  assert.equal((await client.getMessage(message.item_hash)).item_hash, message.item_hash)
}

const feed = new BaseMessageClient(url, url.replace('http', 'ws')).getMessagesSocket({ refs: [post.item_hash] })
while (feed.getData().length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
assert.equal(feed.getData()[0].item_hash, amend.item_hash)
feed.closeSocket()

await client.forget({ hashes: [post.item_hash], ...common })
await assert.rejects(client.getMessage(post.item_hash), /has been forgotten/)
process.exit(0)
