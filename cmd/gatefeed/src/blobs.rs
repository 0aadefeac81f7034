//! Where large data lies.

use clap::Args;
use gatefeed_store::BlobOptions;

use crate::parse;

/// The flags that name a blob store.
#[derive(Args, Debug)]
pub(crate) struct BlobArgs {
    /// Where data goes that is larger than --inline-max: file:///path/to/folder, or s3://bucket/prefix in a gatefeed built
    /// with S3. Every process of a database needs the same [default: all data goes into the database]
    #[arg(long, global = true, env = "GATEFEED_BLOB_STORE", hide_short_help = true, value_name = "URL")]
    pub(crate) blob_store: Option<String>,
    /// Data of up to this size stays in the database's rows, with --blob-store
    #[arg(
        long,
        global = true,
        env = "GATEFEED_INLINE_MAX",
        hide_short_help = true,
        value_name = "BYTES",
        default_value = "1MiB",
        value_parser = parse::bytes
    )]
    pub(crate) inline_max: u64,
}

impl BlobArgs {
    pub(crate) fn options(&self) -> Option<BlobOptions> {
        let url = self.blob_store.clone().filter(|url| !url.is_empty())?;
        Some(BlobOptions { url, inline_max: self.inline_max })
    }
}
