//! `ccn-lite publish`: stores a file on a core channel node under a signed STORE message.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use aleph_message::{Envelope, ItemHash, Keypair, MessageType, PaymentType};
use anyhow::{Context, bail};
use axum::body::Body;
use bytes::Bytes;
use clap::Args;
use futures_util::{Stream, StreamExt, stream};
use http::{Request, header};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::key;
use crate::outbound::{Answer, Client};

const BUFFER: usize = 256 << 10;
const MAX_ANSWER: usize = 1 << 20;

/// Arguments of `ccn-lite publish`.
#[derive(Args, Debug)]
pub struct PublishArgs {
    /// URL of the node.
    #[arg(long, default_value = "http://127.0.0.1:4024")]
    ccn: String,
    /// File that holds the key to sign with, in hex.
    #[arg(long)]
    key_file: PathBuf,
    /// Name under which later versions replace this file, or the item hash of the STORE message it updates. A file
    /// published under a name is found by its item hash only with `use_latest: false`.
    #[arg(long = "ref")]
    reference: Option<String>,
    /// Channel of the message.
    #[arg(long)]
    channel: Option<String>,
    /// How the file is paid: `credit` or `hold`.
    #[arg(long, default_value = "credit")]
    payment: PaymentType,
    /// The file.
    file: PathBuf,
}

/// Runs the command; prints `{"item_hash", "file_hash", "size", "status"}` on standard output.
///
/// # Errors
/// When the file cannot be read, or the node does not take it.
pub async fn run(args: PublishArgs) -> anyhow::Result<()> {
    let key = key::read(&args.key_file)?;
    let path = args.file.clone();
    let (file_hash, size) = tokio::task::spawn_blocking(move || hash_file(&path)).await??;
    let envelope = sign(&args, &key, &file_hash)?;
    let answer = upload(&args, &envelope, size).await?;
    let status = match answer.status.as_u16() {
        200 => "processed",
        202 => "pending",
        code => bail!(
            "the node answered {code}: {}",
            String::from_utf8_lossy(&answer.body)
        ),
    };
    let report = json!({"item_hash": envelope.item_hash, "file_hash": file_hash, "size": size, "status": status});
    writeln!(std::io::stdout(), "{report}").context("cannot write the result")
}

fn sign(args: &PublishArgs, key: &Keypair, file_hash: &ItemHash) -> anyhow::Result<Envelope> {
    let mut content = json!({
        "item_type": "storage",
        "item_hash": file_hash,
        "payment": {"type": args.payment},
    });
    if let Some(reference) = &args.reference {
        content["ref"] = Value::from(reference.as_str());
    }
    let envelope = Envelope::sign(
        key,
        MessageType::Store,
        args.channel.as_deref(),
        crate::store::now(),
        content,
    )?;
    Ok(envelope)
}

fn progress(size: u64, what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{msg:9} {bar:40} {bytes}/{total_bytes} {bytes_per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style).with_message(what)
}

fn hash_file(path: &Path) -> anyhow::Result<(ItemHash, u64)> {
    let context = || format!("cannot read {}", path.display());
    let mut file = std::fs::File::open(path).with_context(context)?;
    let bar = progress(file.metadata().with_context(context)?.len(), "hashing");
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer).with_context(context)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
        bar.inc(read as u64);
    }
    bar.finish_and_clear();
    Ok((ItemHash::from_sha256(hasher.finalize().into()), size))
}

/// The file's bytes as they are read.
fn chunks(file: tokio::fs::File, bar: ProgressBar) -> impl Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold((file, bar), |(mut file, bar)| async move {
        let mut buffer = Vec::with_capacity(BUFFER);
        (&mut file)
            .take(BUFFER as u64)
            .read_to_end(&mut buffer)
            .await?;
        bar.inc(buffer.len() as u64);
        Ok(if buffer.is_empty() {
            None
        } else {
            Some((Bytes::from(buffer), (file, bar)))
        })
    })
}

async fn upload(args: &PublishArgs, envelope: &Envelope, size: u64) -> anyhow::Result<Answer> {
    let path = &args.file;
    let file = tokio::fs::File::open(path)
        .await
        .with_context(|| format!("cannot read {}", path.display()))?;
    let boundary = format!("ccn-lite-{:032x}", rand::random::<u128>());
    let metadata = json!({"message": envelope, "sync": true});
    // The message goes first, so that the node knows whose file it is before it takes it.
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\
         Content-Type: application/json\r\n\r\n{metadata}\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = head.len() as u64 + size + tail.len() as u64;
    let bar = progress(size, "uploading");
    let part = |text: String| stream::once(async move { Ok(Bytes::from(text)) });
    let body = part(head)
        .chain(chunks(file, bar.clone()))
        .chain(part(tail));
    let url = format!("{}/api/v0/storage/add_file", args.ccn.trim_end_matches('/'));
    let request = Request::post(&url)
        .header(
            header::CONTENT_TYPE,
            format!("multipart/form-data; boundary={boundary}"),
        )
        .header(header::CONTENT_LENGTH, length)
        .body(Body::from_stream(body))
        .context("cannot form the request")?;
    let answer = Client::default().send(request, MAX_ANSWER, None).await;
    bar.finish_and_clear();
    answer.with_context(|| format!("cannot upload to {url}"))
}
