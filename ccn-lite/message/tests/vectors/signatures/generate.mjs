// Writes javascript.json beside this file: messages signed by the network's TypeScript client, for the chains and the
// kinds of signature that its Python client does not have.
//
// In a copy of this directory: npm install --ignore-scripts --legacy-peer-deps && node generate.mjs

import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";

import { AvalancheAccount } from "@aleph-sdk/avalanche";
import { importAccountFromPrivateKey } from "@aleph-sdk/tezos";
import { b58cencode, prefix } from "@taquito/utils";
import { Buffer as AvalancheBuffer } from "avalanche";
import { KeyChain } from "avalanche/dist/apis/avm/index.js";

const key = (text) => createHash("sha256").update(text).digest();

// The client makes key pairs whose addresses have no prefix (`X-1…`), which no node accepts; these have that of the
// main network, as wallets do.
async function avalanche(chain, seed) {
  const pair = new KeyChain("avax", chain).makeKey();
  pair.importKey(AvalancheBuffer.from(key(seed)));
  const account = new AvalancheAccount(pair, pair.getAddressString(), pair.getPublicKey().toString("hex"));
  return { chain: "AVAX", account };
}

async function tezos(kind, seed, application) {
  const account = await importAccountFromPrivateKey(b58cencode(key(seed), prefix[kind]));
  if (application) account.dAppUrl = application;
  return { chain: "TEZOS", account };
}

async function signed({ chain, account }, type, content, time) {
  const sender = account.address;
  const item_content = JSON.stringify({ address: sender, time, ...content });
  const item_hash = createHash("sha256").update(item_content).digest("hex");
  const buffer = Buffer.from([chain, sender, type, item_hash].join("\n"));
  // The client's clock counts in milliseconds, the network's in seconds.
  const signable = { sender, time: time * 1000, getVerificationBuffer: () => buffer };
  const signature = await account.sign(signable);
  return { sender, chain, type, signature, item_type: "inline", item_content, item_hash, time, channel: "TEST" };
}

const accounts = [
  await avalanche("X", "avalanche 1"), await avalanche("X", "avalanche 2"), await avalanche("P", "avalanche 1"),
  await tezos("edsk2", "tezos ed"), await tezos("spsk", "tezos sp"), await tezos("p2sk", "tezos p2"),
  await tezos("edsk2", "tezos ed", "an application with spaces"), await tezos("edsk2", "tezos ed other"),
];
const messages = [];
for (const account of accounts) {
  messages.push(await signed(account, "POST", { type: "t", content: { hello: "world" } }, 1700000000.125));
  messages.push(await signed(account, "AGGREGATE", { key: "k", content: { a: 1 } }, 1661451074.86));
}
const lines = messages.map((message) => JSON.stringify(message)).join(",\n");
writeFileSync(new URL("javascript.json", import.meta.url), `[\n${lines}\n]\n`);
process.exit(0);
