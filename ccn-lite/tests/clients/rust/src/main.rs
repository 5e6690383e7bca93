//! The published Rust SDK, unmodified, through everything it does with a core channel node.
//!
//! `client-flows URL KEY`: the node, and the private key (hex) of an account with tokens and credits on it.

use std::path::PathBuf;

use aleph_sdk::client::{
    AlephAccountClient, AlephAggregateClient, AlephClient, AlephMessageClient, AlephPostClient,
    AlephStorageClient, CreditHistoryFilters, MessageFilter, MessageVerification,
    MessageWithStatus, PaginationParams, PostFilter,
};
use aleph_sdk::messages::{
    AggregateBuilder, ForgetBuilder, InstanceBuilder, PostBuilder, ProgramBuilder,
};
use aleph_types::account::{Account, EvmAccount};
use aleph_types::chain::Chain;
use aleph_types::channel::Channel;
use aleph_types::item_hash::ItemHash;
use aleph_types::message::StorageEngine;
use aleph_types::message::execution::base::Payment;
use aleph_types::message::execution::volume::PersistentVolumeSize;
use aleph_types::message::pending::PendingMessage;
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

struct Flows {
    client: AlephClient,
    account: EvmAccount,
}

fn channel() -> Channel {
    Channel::from("SDK".to_owned())
}

impl Flows {
    async fn publish(&self, message: PendingMessage) -> Result<ItemHash> {
        let answer = self.client.submit_message(&message, true).await?;
        ensure!(answer.message_status == "processed", "{answer:?}");
        Ok(message.item_hash)
    }

    async fn posts(&self) -> Result<ItemHash> {
        let build = |content: Value| PostBuilder::new(&self.account, "note", content);
        let everything = MessageFilter::default();
        let mut feed = self
            .client
            .subscribe_to_messages(&everything, Some(0))
            .await?;
        let post = self
            .publish(build(json!({"n": 1}))?.channel(channel()).build()?)
            .await?;
        let told = feed.next().await.context("the feed ended")??;
        ensure!(told.item_hash == post, "{told:?}");
        let amend = PostBuilder::amend(&self.account, post.clone(), json!({"n": 2}))?;
        let amend = self.publish(amend.channel(channel()).build()?).await?;

        let filter = PostFilter {
            hashes: Some(vec![post.clone()]),
            ..PostFilter::default()
        };
        let first = PaginationParams::default();
        let old = self
            .client
            .get_posts_v0(&filter, first.clone())
            .await?
            .posts;
        ensure!(old.len() == 1 && old[0].content == json!({"n": 2}) && old[0].hash == post);
        let new = self.client.get_posts_v1(&filter, first).await?.posts;
        ensure!(new.len() == 1 && new[0].item_hash == amend && new[0].original_item_hash == post);

        let filter = MessageFilter {
            addresses: Some(vec![self.account.address().clone()]),
            channels: Some(vec!["SDK".into()]),
            ..MessageFilter::default()
        };
        let listed = self.client.get_messages_iterator(filter.clone(), Some(1));
        let listed: Vec<_> = listed.try_collect().await?;
        ensure!(listed.len() == 2, "{} were listed by cursor", listed.len());
        let checked = self.client.get_messages_and_verify(&filter).await?;
        ensure!(
            checked.len() == 2
                && checked
                    .iter()
                    .all(|message| matches!(message, MessageVerification::Verified(_)))
        );
        Ok(post)
    }

    async fn aggregates(&self) -> Result<()> {
        for content in [json!({"x": 1}), json!({"y": 2})] {
            let content = content.as_object().cloned().unwrap_or_default();
            let message = AggregateBuilder::new(&self.account, "k", content).build()?;
            self.publish(message).await?;
        }
        let read: Value = self
            .client
            .get_aggregate(self.account.address(), "k")
            .await?;
        ensure!(read == json!({"k": {"x": 1, "y": 2}}), "{read}");
        Ok(())
    }

    async fn file(&self, directory: &std::path::Path) -> Result<ItemHash> {
        let path = directory.join("file");
        std::fs::write(&path, "a file of the client's\n")?;
        for engine in [StorageEngine::Ipfs, StorageEngine::Storage] {
            let hash = self
                .client
                .create_store(&self.account, &path, engine, true)
                .await?;
            let file = self.client.download_file_by_hash(&hash).await?;
            let bytes = file.with_verification().bytes().await?;
            ensure!(bytes == "a file of the client's\n");
        }
        let files = self
            .client
            .get_account_files_iterator(self.account.address(), Some(1), None);
        let files: Vec<_> = files.try_collect().await?;
        ensure!(files.len() == 2, "{files:?}");
        let stored = files
            .iter()
            .find(|file| file.file_hash.len() == 64)
            .context("the file under its sha256 is not listed")?;
        let metadata = self
            .client
            .get_file_metadata_by_message_hash(&stored.item_hash)
            .await?;
        ensure!(metadata.file_hash.to_string() == stored.file_hash);
        Ok(stored.item_hash.clone())
    }

    async fn machines(&self, image: ItemHash) -> Result<()> {
        let program = ProgramBuilder::new(&self.account, image.clone(), "main:app", image.clone())
            .payment(Payment::credits())
            .build()?;
        self.publish(program).await?;
        let size = PersistentVolumeSize::try_from(20480)?;
        let instance = InstanceBuilder::new(&self.account, image, size)
            .payment(Payment::credits())
            .build()?;
        let estimate = self.client.estimate_price(&instance).await?;
        ensure!(
            estimate.cost.as_deref() == Some("3.958333333333333333"),
            "{estimate:?}"
        );
        let instance = self.publish(instance).await?;
        ensure!(self.client.get_vm_price(&instance).await? > 3.9);
        Ok(())
    }

    async fn account(&self) -> Result<()> {
        let address = self.account.address();
        let balance = self.client.get_balance(address).await?;
        ensure!(balance.aleph_tokens == 1_000_000.0 && balance.credits == 1_000_000_000_000);
        let all = CreditHistoryFilters::default();
        let summary = self
            .client
            .get_credit_history_summary(address, &all)
            .await?;
        ensure!(summary.total_incoming == 1_000_000_000_000, "{summary:?}");
        let history = self
            .client
            .get_credit_history(address, 1, None, &all)
            .await?;
        ensure!(history.credit_history.len() == 1, "{history:?}");
        Ok(())
    }

    async fn forget(&self, post: ItemHash) -> Result<()> {
        let forget = ForgetBuilder::new(&self.account, vec![post.clone()]).reason("no longer true");
        let forget = self.publish(forget.build()?).await?;
        let MessageWithStatus::Forgotten { forgotten_by, .. } =
            self.client.get_message(&post).await?
        else {
            anyhow::bail!("{post} is not forgotten");
        };
        ensure!(forgotten_by == [forget]);
        let unknown = ItemHash::try_from("a".repeat(64).as_str())?;
        let Err(error) = self.client.get_message(&unknown).await else {
            anyhow::bail!("{unknown} was found");
        };
        ensure!(error.is_not_found(), "{error}");
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("no URL")?;
    let key = arguments.next().context("no key")?;
    let key: Vec<u8> = (0..key.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&key[at..at + 2], 16))
        .collect::<Result<_, _>>()?;
    let flows = Flows {
        client: AlephClient::new(url.parse()?),
        account: EvmAccount::new(Chain::Ethereum, &key)?,
    };
    let directory = PathBuf::from(std::env::var("TMPDIR").unwrap_or_else(|_| "/tmp".into()))
        .join(format!("client-flows-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let done = async {
        let post = flows.posts().await.context("posts")?;
        flows.aggregates().await.context("aggregates")?;
        let image = flows.file(&directory).await.context("files")?;
        flows.machines(image).await.context("machines")?;
        flows.account().await.context("account")?;
        flows.forget(post).await.context("forgetting")
    };
    let done = done.await;
    std::fs::remove_dir_all(&directory)?;
    done
}
