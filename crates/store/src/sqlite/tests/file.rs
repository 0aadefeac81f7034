//! The file itself.

use super::*;

fn is_about_the_file<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    matches!(result.unwrap_err(), StoreError::Unavailable(text) if text.contains("put it back, or restart"))
}

/// A file that was deleted can be written to for as long as it is open, and everything is lost then.
#[tokio::test]
async fn one_that_is_not_there_any_more_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let (file, elsewhere) = (folder.path().join("q.db"), folder.path().join("elsewhere.db"));
    let (partition, items) = (NewPartition::new("p"), [item(0, 1)]);
    let push = || store.push(&partition, &items);
    push().await.unwrap();
    std::fs::rename(&file, &elsewhere).unwrap();
    assert!(is_about_the_file(push().await));
    assert!(is_about_the_file(store.ping().await));
    assert!(is_about_the_file(store.status().await));
    std::fs::copy(&elsewhere, &file).unwrap();
    assert!(is_about_the_file(push().await), "it is another one");
    std::fs::rename(&elsewhere, &file).unwrap();
    push().await.unwrap();
    assert_eq!(claim_all(&store).await.len(), 1);
}
