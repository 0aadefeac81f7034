//! S3, and what speaks like it. Key, region and endpoint come from the environment, as AWS_ACCESS_KEY_ID, AWS_REGION,
//! AWS_ENDPOINT_URL and so on, or from the machine's role.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{Result, StoreError};
use http::Method;
use object_store::{
    ObjectStore,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
    prefix::PrefixStore,
    signer::Signer,
};
use url::Url;

use super::objects::text;

/// What signs links.
#[derive(Debug)]
pub(super) struct Bucket {
    store: AmazonS3,
    prefix: Path,
}

/// Asks nobody yet.
pub(super) fn open(url: &Url) -> Result<(Arc<dyn ObjectStore>, Bucket)> {
    // ring, as everywhere here. Somebody may have chosen another already, which is fine too.
    _ = rustls::crypto::ring::default_provider().install_default();
    let bucket = url.host_str().unwrap_or_default();
    let built = AmazonS3Builder::from_env().with_bucket_name(bucket).build();
    let store = built.map_err(|error| {
        StoreError::Config(format!("the bucket of the blob store cannot be opened: {}", text(&error)))
    })?;
    let prefix = Path::parse(url.path()).map_err(|error| {
        StoreError::Config(format!("the prefix in the blob store's URL cannot be used: {}", text(&error)))
    })?;
    let opened = Arc::new(PrefixStore::new(store.clone(), prefix.clone()));
    Ok((opened, Bucket { store, prefix }))
}

impl Bucket {
    /// A URL from which whoever has it may read.
    pub(super) async fn link(&self, path: &str, valid: Duration) -> Result<String> {
        let place: Path = self.prefix.parts().chain(Path::from(path).parts()).collect();
        let signed = self.store.signed_url(Method::GET, &place, valid).await;
        let signed = signed.map_err(|error| {
            StoreError::BlobStore(format!("cannot sign a link to a blob: {}", text(&error)))
        })?;
        Ok(signed.into())
    }
}
