//! Links to blobs, for handlers that fetch large data by themselves. A bucket signs its own; for a folder they lead to
//! `gatefeed run --listen` and are signed here, so that nobody reads what he was not sent to.

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use gatefeed_core::{
    Result, StoreError,
    blob::{Blobs, Collected, LINK_VALID, Link, Reference, Space, is_path},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{Depot, objects::Place};

#[async_trait]
impl Blobs for Depot {
    fn inline_max(&self) -> u64 {
        self.inline_max()
    }

    async fn link(&self, reference: &Reference) -> Result<Link> {
        match self.objects()?.place() {
            Place::Folder(_) => {
                let expires = now_secs().saturating_add(LINK_VALID.as_secs());
                let path = reference.path();
                let signature = hex(&mac(self.space().await?, path, expires).finalize().into_bytes());
                Ok(Link::Relative(format!("v1/blobs/{path}?expires={expires}&signature={signature}")))
            }
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => Ok(Link::Absolute(bucket.link(reference.path(), LINK_VALID).await?)),
        }
    }

    async fn read(&self, path: &str, start: u64, length: u64) -> Result<Bytes> {
        self.objects()?.get_range(path, start, length).await
    }

    async fn linked(&self, path: &str, expires: u64, signature: &str) -> Result<u64> {
        let refused = |why: &str| Err(StoreError::Refused(format!("this link is not good: {why}")));
        let Some(signature) = unhex(signature).filter(|_| is_path(path)) else {
            return refused("it is not what gatefeed makes");
        };
        if mac(self.space().await?, path, expires).verify_slice(&signature).is_err() {
            return refused("it is not signed for this blob");
        }
        match expires < now_secs() {
            true => refused("its time is over; a later delivery brings another"),
            false => self.objects()?.size(path).await,
        }
    }

    async fn collect(&self, older_than: std::time::Duration) -> Result<Collected> {
        self.collect_garbage(older_than).await
    }
}

fn mac(space: &Space, path: &str, expires: u64) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(space.secret.as_bytes()).unwrap_or_else(|_| unreachable!());
    mac.update(format!("blob\n{path}\n{expires}").as_bytes());
    mac
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let pairs = (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok());
    is_hex.then(|| pairs.collect::<Option<_>>()).flatten()
}
