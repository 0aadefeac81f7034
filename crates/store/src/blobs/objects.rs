//! The object store: a folder, or a bucket of S3 or of what speaks like it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use gatefeed_core::{Result, StoreError};
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path};
use tokio::time::timeout;
use url::Url;

/// Data with more bytes than this goes to the object store, unless another limit is set: a row of a database is a bad
/// place for more, and most queues never have any.
pub const INLINE_MAX_DEFAULT: u64 = 1024 * 1024;

/// For one blob, whatever its size.
const CALL_MAX: Duration = Duration::from_secs(90);

/// Where large data goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BlobOptions {
    /// `file:///path/to/folder`, made if it is missing, or `s3://bucket/prefix` where gatefeed was built with S3.
    pub url: String,
    /// Data of up to this many bytes stays in its row.
    pub inline_max: u64,
}

impl BlobOptions {
    /// Opens it once, for whoever wants to tell what is wrong with it from what is wrong with the database. Makes the folder; a
    /// bucket is not asked. Errs with `Config`.
    pub fn check(&self) -> Result<()> {
        Objects::open(self).map(drop)
    }

    /// Whether it names a folder, whose links lead to gatefeed; buckets have links of their own.
    pub fn is_folder(&self) -> bool {
        self.url.starts_with("file:")
    }
}

#[derive(Debug)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    place: Place,
    pub(super) inline_max: u64,
}

#[derive(Debug)]
pub(super) enum Place {
    Folder(PathBuf),
    #[cfg(feature = "s3")]
    Bucket(super::bucket::Bucket),
}

impl Objects {
    /// Makes the folder; a bucket is first asked when it is needed.
    pub(super) fn open(options: &BlobOptions) -> Result<Self> {
        let inline_max = options.inline_max;
        let url = Url::parse(&options.url).map_err(|_| expected(&options.url))?;
        match url.scheme() {
            "file" => {
                let folder = url.to_file_path().map_err(|()| expected(&options.url))?;
                let store = open_folder(&folder)?;
                Ok(Self { store: Arc::new(store), place: Place::Folder(folder), inline_max })
            }
            "s3" => open_bucket(&url, inline_max),
            _ => Err(expected(&options.url)),
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn folder(&self) -> Option<&std::path::Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder),
            #[cfg(feature = "s3")]
            Place::Bucket(_) => None,
        }
    }

    /// It is on the disk when this returns.
    pub(super) async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.call("put", path, self.store.put(&Path::from(path), bytes.into())).await.map(drop)
    }

    pub(super) async fn get(&self, path: &str) -> Result<Bytes> {
        let place = Path::from(path);
        self.call("read", path, async { self.store.get(&place).await?.bytes().await }).await
    }

    /// Fewer bytes where it ends.
    pub(super) async fn get_range(&self, path: &str, start: u64, length: u64) -> Result<Bytes> {
        let end = start.saturating_add(length).min(self.size(path).await?);
        if start >= end {
            return Ok(Bytes::new());
        }
        self.call("read", path, self.store.get_range(&Path::from(path), start..end)).await
    }

    pub(super) async fn size(&self, path: &str) -> Result<u64> {
        self.call("read", path, self.store.head(&Path::from(path))).await.map(|meta| meta.size)
    }

    pub(super) fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        self.store.list(Some(&Path::from(prefix)))
    }

    /// Gone is gone, whoever was faster.
    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        match self.call("delete", path, self.store.delete(&Path::from(path))).await {
            Err(StoreError::NotFound(_)) => Ok(()),
            deleted => deleted,
        }
    }

    async fn call<T>(
        &self,
        verb: &str,
        path: &str,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T> {
        match timeout(CALL_MAX, work).await {
            Ok(Ok(value)) => Ok(value),
            // A bucket that is not there has lost nothing: it may be the wrong one, and is no reason to give an item up.
            Ok(Err(Error::NotFound { source, .. })) if verb == "put" || is_bucket(&*source) => {
                Err(StoreError::BlobStore(format!("cannot {verb} the blob {path}: {}", text(&*source))))
            }
            Ok(Err(Error::NotFound { .. })) => {
                Err(StoreError::NotFound(format!("the blob {path} is not in the blob store")))
            }
            Ok(Err(error)) => {
                Err(StoreError::BlobStore(format!("cannot {verb} the blob {path}: {}", text(&error))))
            }
            Err(_) => Err(StoreError::BlobStore(format!(
                "cannot {verb} the blob {path}: the blob store did not answer within {CALL_MAX:?}"
            ))),
        }
    }
}

/// Whether what is missing is the bucket itself, by what S3 answers.
fn is_bucket(error: &(dyn std::error::Error + 'static)) -> bool {
    text(error).contains("NoSuchBucket")
}

/// An error with its causes, on one line.
pub(super) fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.replace(['\n', '\r'], " ")
}

/// Blobs are on the disk before the row that refers to them.
fn open_folder(folder: &std::path::Path) -> Result<LocalFileSystem> {
    let shown = folder.display();
    std::fs::create_dir_all(folder).map_err(|error| {
        StoreError::Config(format!("the blob store's folder {shown} cannot be made: {error}"))
    })?;
    let opened = LocalFileSystem::new_with_prefix(folder).map_err(|error| {
        StoreError::Config(format!("the blob store's folder {shown} cannot be opened: {}", text(&error)))
    })?;
    Ok(opened.with_fsync(true))
}

#[cfg(feature = "s3")]
fn open_bucket(url: &Url, inline_max: u64) -> Result<Objects> {
    let (store, bucket) = super::bucket::open(url)?;
    Ok(Objects { store, place: Place::Bucket(bucket), inline_max })
}

#[cfg(not(feature = "s3"))]
fn open_bucket(_: &Url, _: u64) -> Result<Objects> {
    Err(StoreError::Config(
        "this gatefeed was built without S3: use --blob-store file:///path, or build it with --features s3"
            .into(),
    ))
}

/// Whatever it is, it is not shown: a password may be in it.
fn expected(url: &str) -> StoreError {
    let what = match url.split_once(':') {
        Some(("file", _)) => {
            "a folder needs its whole path, with three slashes: file:///var/lib/gatefeed/blobs"
        }
        _ => "expected file:///path/to/folder or s3://bucket/prefix",
    };
    StoreError::Config(format!("the URL of the blob store is none that gatefeed knows: {what}"))
}
