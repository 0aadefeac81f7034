//! Names that people choose: partition ids, item ids, feeds and content types.

use uuid::Uuid;

/// The most bytes an id or a feed's name may have. Ids travel in HTTP headers and sit in every index.
pub const ID_BYTES_MAX: usize = 512;

/// The most bytes a content type may have.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// The feed of a partition that names none.
pub const DEFAULT_FEED: &str = "default";

/// The content type of an item that names none.
pub const JSON: &str = "application/json";

/// Names everything that gatefeed derives from other names; a random constant, never to be changed.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_1c7e_92a4_4c0b_8e53_5b7d_0a61_c2f9);

/// Why a name was refused; the text names the thing, says what was wrong and what is allowed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what} {problem}; it must be 1 to {max} bytes of UTF-8 without control characters")]
pub struct InvalidName {
    what: &'static str,
    problem: String,
    max: usize,
}

/// Checks an id or feed name (`what` names it in the error): 1 to [`ID_BYTES_MAX`] bytes, no control
/// characters. The databases enforce the same by CHECK constraints.
pub fn check_id(what: &'static str, id: &str) -> Result<(), InvalidName> {
    check(what, id, ID_BYTES_MAX)
}

/// Checks a content type: 1 to [`CONTENT_TYPE_BYTES_MAX`] bytes without control characters.
pub fn check_content_type(content_type: &str) -> Result<(), InvalidName> {
    check("content type", content_type, CONTENT_TYPE_BYTES_MAX)
}

fn check(what: &'static str, name: &str, max: usize) -> Result<(), InvalidName> {
    let problem = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > max {
        format!("has {} bytes", name.len())
    } else if let Some(c) = name.chars().find(|c| c.is_control()) {
        format!("has the control character {c:?}")
    } else {
        return Ok(());
    };
    Err(InvalidName { what, problem, max })
}

/// The `Idempotency-Key` of a delivery: stable for partition, item and pass, and different for each.
pub fn idempotency_key(partition: &str, item: &str, pass: i32) -> Uuid {
    derive(&["key", partition, item], &[pass])
}

/// The id of an item that was posted with an idempotency key and without an id: the same key is the same item.
pub fn posted_id(partition: &str, key: &str) -> String {
    derive(&["post", partition, key], &[]).to_string()
}

/// The id of a partition that was posted with an idempotency key and without an id: the same key is the same partition, in
/// each feed its own. That of the default feed is the one from before the feed counted.
pub fn posted_partition_id(feed: &str, key: &str) -> String {
    match feed {
        DEFAULT_FEED => posted_id("", key),
        feed => derive(&["posted partition", feed, key], &[]).to_string(),
    }
}

/// The id of an item without one that comes with a partition that is posted with an idempotency key.
pub fn posted_item_id(partition: &str, key: &str, index: i32) -> String {
    derive(&["posted", partition, key], &[index]).to_string()
}

/// The id of a child that its parent's answer left unnamed. A redelivery of the same pass derives the same
/// ids and so adds nothing twice; a later pass derives its own.
pub fn child_id(partition: &str, parent: &str, pass: i32, index: i32) -> String {
    derive(&["child", partition, parent], &[pass, index]).to_string()
}

/// The id of a nested partition that its parent's answer left unnamed.
pub fn nested_id(partition: &str, parent: &str, pass: i32, index: i32) -> String {
    derive(&["nested", partition, parent], &[pass, index]).to_string()
}

/// Length prefixes keep ("a", "bc") and ("ab", "c") apart.
fn derive(names: &[&str], numbers: &[i32]) -> Uuid {
    let mut bytes = Vec::with_capacity(names.iter().map(|n| n.len() + 4).sum::<usize>() + numbers.len() * 4);
    for name in names {
        bytes.extend_from_slice(&(name.len() as u32).to_be_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
    for number in numbers {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_bounded_and_printable() {
        assert!(check_id("item id", "résumé 1 / π").is_ok());
        assert!(check_id("item id", &"x".repeat(512)).is_ok());
        for bad in ["", "a\nb", "nul\0", "\u{7f}", "\u{85}", &"x".repeat(513)] {
            let error = check_id("item id", bad).unwrap_err().to_string();
            assert!(error.starts_with("item id ") && error.contains("1 to 512 bytes"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn derived_ids_differ_wherever_their_parts_do(
            a in ("[ab]{0,3}", "[ab]{0,3}", 0..3i32, 0..3i32),
            b in ("[ab]{0,3}", "[ab]{0,3}", 0..3i32, 0..3i32),
        ) {
            let same = a == b;
            prop_assert_eq!(child_id(&a.0, &a.1, a.2, a.3) == child_id(&b.0, &b.1, b.2, b.3), same);
            prop_assert_eq!(
                idempotency_key(&a.0, &a.1, a.2) == idempotency_key(&b.0, &b.1, b.2),
                (&a.0, &a.1, a.2) == (&b.0, &b.1, b.2)
            );
        }
    }
}
