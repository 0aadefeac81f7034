//! Ids in paths: percent-encoded, whatever they hold.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use gatefeed_core::id::check_id;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::problem::Problem;

/// What stays as it is in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An id as a segment of a path.
pub(crate) fn segment(id: &str) -> String {
    // A segment of dots only would be taken for a step in the path.
    match id {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        id => utf8_percent_encode(id, SEGMENT).to_string(),
    }
}

/// Where a partition is.
pub(crate) fn partition_url(partition: &str) -> String {
    format!("/v1/partitions/{}", segment(partition))
}

/// Where an item is.
pub(crate) fn item_url(partition: &str, item: &str) -> String {
    format!("/v1/partitions/{}/items/{}", segment(partition), segment(item))
}

/// `{id}`: a partition.
pub(crate) struct PartitionId(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PartitionId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, state).await.map_err(unreadable)?;
        check_id("the partition's id", &id).map_err(|error| Problem::unprocessable(error.to_string()))?;
        Ok(Self(id))
    }
}

/// `{id}` and `{item}`: an item of a partition.
pub(crate) struct ItemId {
    pub(crate) partition: String,
    pub(crate) item: String,
}

impl<S: Send + Sync> FromRequestParts<S> for ItemId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((partition, item)) = path.map_err(unreadable)?;
        check_id("the partition's id", &partition)
            .map_err(|error| Problem::unprocessable(error.to_string()))?;
        check_id("the item's id", &item).map_err(|error| Problem::unprocessable(error.to_string()))?;
        Ok(Self { partition, item })
    }
}

fn unreadable(rejection: impl std::fmt::Display) -> Problem {
    Problem::bad_request(format!("the path cannot be read: {rejection}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_one_segment_whatever_they_hold() {
        assert_eq!(item_url("a/b c", "ü?#%"), "/v1/partitions/a%2Fb%20c/items/%C3%BC%3F%23%25");
        assert_eq!((segment(".."), segment("a.b-c_d~e")), ("%2E%2E".into(), "a.b-c_d~e".into()));
    }
}
