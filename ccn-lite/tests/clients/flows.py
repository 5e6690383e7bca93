#!/usr/bin/env python3
"""The published Python SDK, unmodified, through everything it does with a core channel node.

flows.py URL KEY: the node, and the private key (hex) of an account with tokens and credits on it.
"""

import asyncio
import sys

from aleph.sdk.chains.ethereum import ETHAccount
from aleph.sdk.client import AuthenticatedAlephHttpClient
from aleph.sdk.exceptions import ForgottenMessageError, MessageNotFoundError
from aleph.sdk.query.filters import MessageFilter, PostFilter
from aleph.sdk.types import StorageEnum
from aleph_message.models import MessageType, Payment
from aleph_message.status import MessageStatus


async def posts(client, address):
    post, status = await client.create_post({"n": 1}, "note", channel="SDK", sync=True)
    assert status == MessageStatus.PROCESSED, status
    amend, _ = await client.create_post({"n": 2}, "amend", ref=post.item_hash, channel="SDK", sync=True)
    found = await client.get_posts(post_filter=PostFilter(hashes=[post.item_hash]))
    assert [(p.content, p.item_hash) for p in found.posts] == [({"n": 2}, amend.item_hash)], found
    assert (await client.get_message(post.item_hash)).content.content == {"n": 1}
    listed = await client.get_messages(message_filter=MessageFilter(addresses=[address]))
    assert {m.item_hash for m in listed.messages} == {post.item_hash, amend.item_hash}, listed

    async def first():
        async for message in client.watch_messages(message_filter=MessageFilter(refs=[post.item_hash])):
            return message

    assert (await asyncio.wait_for(first(), 60)).item_hash == amend.item_hash
    return post


async def aggregates(client, address):
    await client.create_aggregate("k", {"x": 1}, channel="SDK", sync=True, inline=True)
    await client.create_aggregate("k", {"y": 2}, channel="SDK", sync=True, inline=False)
    assert await client.fetch_aggregate(address, "k") == {"x": 1, "y": 2}
    assert await client.fetch_aggregates(address, ["k"]) == {"k": {"x": 1, "y": 2}}


async def files(client):
    native, status = await client.create_store(
        file_content=b"native", storage_engine=StorageEnum.storage, channel="SDK", sync=True)
    assert status == MessageStatus.PROCESSED, status
    ipfs, status = await client.create_store(
        file_content=b"ipfs", storage_engine=StorageEnum.ipfs, channel="SDK", sync=True)
    assert status == MessageStatus.PROCESSED, status
    for store, content in ((native, b"native"), (ipfs, b"ipfs")):
        assert await client.download_file(store.content.item_hash) == content
    return native.item_hash


async def machines(client, image):
    program, status = await client.create_program(
        program_ref=image, entrypoint="main:app", runtime=image, channel="SDK", sync=True, metadata={"name": "n"},
        payment=Payment(chain="ETH", type="hold", receiver=None))
    assert status == MessageStatus.PROCESSED, status
    instance, status = await client.create_instance(
        rootfs=image, rootfs_size=20480, channel="SDK", sync=True,
        payment=Payment(chain="ETH", type="credit", receiver=None))
    assert status == MessageStatus.PROCESSED, status
    for message in (program, instance):
        read, status = await client.get_message(message.item_hash, with_status=True)
        assert status == MessageStatus.PROCESSED and read.content == message.content
    price = await client.get_program_price(instance.item_hash)
    assert (price.cost, price.payment_type) == ("3.958333333333333333", "credit"), price


async def forgetting(client, post):
    forget, _ = await client.forget([post.item_hash], "no longer true", channel="SDK", sync=True)
    assert forget.type == MessageType.forget
    assert await client.get_message_status(post.item_hash) == MessageStatus.FORGOTTEN
    for item_hash, expected in ((post.item_hash, ForgottenMessageError), ("a" * 64, MessageNotFoundError)):
        try:
            await client.get_message(item_hash)
        except expected:
            continue
        raise AssertionError(f"{item_hash} was found")


async def main(url, key):
    account = ETHAccount(bytes.fromhex(key))
    async with AuthenticatedAlephHttpClient(account, api_server=url) as client:
        post = await posts(client, account.get_address())
        await aggregates(client, account.get_address())
        image = await files(client)
        await machines(client, image)
        await forgetting(client, post)
        balance = await client.get_balances(account.get_address())
        assert balance.balance == 1000000 and balance.locked_amount >= 0, balance


asyncio.run(main(*sys.argv[1:]))
