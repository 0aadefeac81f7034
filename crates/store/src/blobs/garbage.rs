//! Garbage: blobs whose row never came, since a process died in between, or has gone or got other data since.
//!
//! A blob is put before its row is committed, so that one without a row may be about to get it. What is looked at is
//! therefore older than any push takes. Nothing that has no row gets one later: rows only take over references from rows,
//! in one transaction.

use std::{path::Path, time::Duration};

use chrono::Utc;
use futures_util::{StreamExt, TryStreamExt, stream};
use gatefeed_core::{
    Result, StoreError,
    blob::{Collected, is_path},
};
use object_store::ObjectMeta;

use super::{AT_A_TIME, Depot, objects::text};

/// Blobs that the database is asked for at a time.
const BATCH: usize = 500;

impl Depot {
    pub(super) async fn collect_garbage(&self, older_than: Duration) -> Result<Collected> {
        let objects = self.objects()?;
        let space = self.space().await?.id.simple().to_string();
        let made_before = chrono::Duration::from_std(older_than)
            .ok()
            .and_then(|age| Utc::now().checked_sub_signed(age))
            .ok_or_else(|| StoreError::Config("nothing is as old as that".into()))?;
        let mut old = objects
            .list(&space)
            .try_filter(|meta| {
                let is_old = meta.last_modified <= made_before && is_path(meta.location.as_ref());
                std::future::ready(is_old)
            })
            .chunks(BATCH);
        let mut collected = Collected::default();
        while let Some(batch) = old.next().await {
            let batch = batch.into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| {
                StoreError::BlobStore(format!("cannot list the blob store: {}", text(&error)))
            })?;
            self.collect_from(batch, &mut collected).await?;
        }
        if let Some(folder) = objects.folder() {
            sweep(folder.join(space), made_before.into()).await?;
        }
        Ok(collected)
    }

    async fn collect_from(&self, batch: Vec<ObjectMeta>, collected: &mut Collected) -> Result<()> {
        let objects = self.objects()?;
        let paths: Vec<String> = batch.iter().map(|meta| meta.location.to_string()).collect();
        let kept = self.rows.referred_to(&paths).await?;
        let garbage: Vec<ObjectMeta> = batch
            .into_iter()
            .filter(|meta| !kept.iter().any(|path| path == meta.location.as_ref()))
            .collect();
        let bytes = garbage.iter().map(|meta| meta.size).sum::<u64>();
        collected.kept += kept.len() as u64;
        collected.blobs += garbage.len() as u64;
        collected.bytes += bytes;
        let delete =
            garbage.into_iter().map(|meta| async move { objects.delete(meta.location.as_ref()).await });
        stream::iter(delete).buffer_unordered(AT_A_TIME).try_collect::<()>().await
    }
}

/// Removes what a process that died has left half written: files that no listing shows.
async fn sweep(folder: std::path::PathBuf, made_before: std::time::SystemTime) -> Result<()> {
    let swept = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        for part in entries(&folder)? {
            for file in entries(&part)? {
                if is_half_written(&file) && file.metadata()?.modified()? <= made_before {
                    std::fs::remove_file(file)?;
                }
            }
        }
        Ok(())
    });
    let swept = swept.await.map_err(|error| StoreError::Defect(format!("a sweep ended: {error}")))?;
    swept.map_err(|error| StoreError::BlobStore(format!("cannot sweep the blob store's folder: {error}")))
}

/// object_store writes to `name#1` and renames that.
fn is_half_written(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    let suffix = name.and_then(|name| name.split_once('#')).map(|(_, suffix)| suffix);
    suffix.is_some_and(|suffix| !suffix.is_empty() && suffix.bytes().all(|b| b.is_ascii_digit()))
}

fn entries(folder: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}
