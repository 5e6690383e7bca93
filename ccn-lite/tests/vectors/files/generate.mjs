#!/usr/bin/env node
// Writes files.json beside this file with the IPFS project's own JavaScript libraries.
//
//   npm i ipfs-unixfs-importer@15 ipfs-unixfs-exporter@13 @ipld/car@5 @ipld/dag-pb@4 blockstore-core@5 multiformats@13
//   node generate.mjs
//
// `files`: the CID of the first `size` bytes of the pattern below in each layout. `cars`: archives (base64) with what
// stands in them, in the order of a walk.
import { writeFileSync } from 'node:fs'
import { importer } from 'ipfs-unixfs-importer'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { recursive } from 'ipfs-unixfs-exporter'
import { CarWriter } from '@ipld/car'
import { MemoryBlockstore } from 'blockstore-core'

const CHUNK = 262144
const pattern = (size) => {
  const bytes = new Uint8Array(size)
  for (let i = 0; i < size; i++) bytes[i] = (i * 7 + (i >> 8) * 13) % 251
  return bytes
}

const layouts = {
  v0: { cidVersion: 0, rawLeaves: false },
  v1: { cidVersion: 1, rawLeaves: true },
  v1_dag_pb_leaves: { cidVersion: 1, rawLeaves: false },
  v0_raw_leaves: { cidVersion: 0, rawLeaves: true }
}

const options = (layout, chunk = CHUNK) => ({
  ...layout,
  reduceSingleLeafToSelf: true,
  chunker: fixedSize({ chunkSize: chunk }),
  layout: balanced({ maxChildrenPerNode: 174 })
})

async function add (entries, given) {
  const store = new MemoryBlockstore()
  let root
  for await (const entry of importer(entries, store, given)) root = entry.cid
  return { store, root }
}

const source = async function * (bytes) { yield bytes }

async function car ({ store, root }) {
  const { writer, out } = CarWriter.create([root])
  const collected = (async () => {
    const parts = []
    for await (const part of out) parts.push(part)
    return Buffer.concat(parts)
  })()
  for await (const { cid, block } of store.getAll()) {
    // The store keys blocks by multihash and gives them back as raw CIDs: what links to them says what they are.
    await writer.put({ cid: names.get(Buffer.from(cid.multihash.bytes).toString('hex')) ?? cid, bytes: block })
  }
  await writer.close()
  return (await collected).toString('base64')
}

const names = new Map()
async function remember ({ store, root }) {
  names.clear()
  names.set(Buffer.from(root.multihash.bytes).toString('hex'), root)
  const { decode } = await import('@ipld/dag-pb')
  const queue = [root]
  while (queue.length > 0) {
    const cid = queue.pop()
    if (cid.code !== 0x70) continue
    for (const link of decode(await store.get(cid)).Links) {
      names.set(Buffer.from(link.Hash.multihash.bytes).toString('hex'), link.Hash)
      queue.push(link.Hash)
    }
  }
}

async function archive (name, added) {
  await remember(added)
  const entries = []
  for await (const entry of recursive(added.root, added.store)) {
    const rest = entry.path.slice(added.root.toString().length)
    entries.push([rest, entry.type === 'directory' ? null : Number(entry.size)])
  }
  return { name, root: added.root.toString(), car: await car(added), entries }
}

const files = []
for (const size of [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * 3 + 17, CHUNK * 174, CHUNK * 174 + 1]) {
  const cids = {}
  for (const [name, layout] of Object.entries(layouts)) {
    cids[name] = (await add([{ content: source(pattern(size)) }], options(layout))).root.toString()
  }
  files.push({ size, cids })
}

const tree = [
  { path: 'd/a.txt', content: source(pattern(10)) },
  { path: 'd/sub/b.bin', content: source(pattern(3000)) },
  { path: 'd/sub/deep/er/c', content: source(pattern(0)) },
  { path: 'd/twice', content: source(pattern(10)) },
  { path: 'd/ünï côde', content: source(pattern(5)) }
]
const again = () => tree.map((entry) => ({ ...entry, content: source(pattern(
  { 'd/a.txt': 10, 'd/sub/b.bin': 3000, 'd/sub/deep/er/c': 0, 'd/twice': 10 }[entry.path] ?? 5)) }))
const many = Array.from({ length: 300 }, (_, i) => ({ path: `d/${'x'.repeat(i % 5)}${i}`, content: source(pattern(i % 7)) }))
const cars = [
  await archive('directory v1', await add(again(), options(layouts.v1))),
  await archive('directory v0', await add(again(), options(layouts.v0))),
  await archive('sharded directory', await add(many, { ...options(layouts.v1), shardSplitThresholdBytes: 100 })),
  await archive('file v0', await add([{ content: source(pattern(3000)) }], options(layouts.v0, 1024))),
  await archive('file v1 in usual chunks', await add([{ content: source(pattern(1000)) }], options(layouts.v1_dag_pb_leaves))),
  await archive('file v1 in small chunks', await add([{ content: source(pattern(3000)) }], options(layouts.v1, 700)))
]

writeFileSync(new URL('files.json', import.meta.url), JSON.stringify({ files, cars }) + '\n')
console.log(files.length, 'files,', cars.length, 'archives')
