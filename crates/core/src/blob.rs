//! Blobs: data that is too large for a row lies in an object store, and the row keeps a reference to it.
//!
//! A reference is data like any other, of a content type of its own, so that whatever copies, keeps or replaces an
//! item's data does the same with its reference, in the same transaction (docs/decisions/0014-blobs.md):
//!
//! - content type: `application/vnd.gatefeed.blob; size=5242880; of=image/png`
//! - data: the blob's path, and a line for each time that the item has waited for nested partitions since

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    error::{Result, StoreError},
    gather::data_fields,
    id::{CONTENT_TYPE_BYTES_MAX, JSON},
    item::Data,
};

/// The content type of references, which no other data may have.
pub const BLOB_TYPE: &str = "application/vnd.gatefeed.blob";

/// What the content type of every reference begins with. Indexes on it are part of the schema.
pub const MARK: &str = "application/vnd.gatefeed.blob;";

/// Bytes of every blob's path. Indexes on it are part of the schema.
pub const PATH_BYTES: usize = 32 + 1 + PART_BYTES + 1 + 32;

/// The beginning of a blob's name that names its folder: 2^28 ms, about three days.
const PART_BYTES: usize = 5;

/// How long a link to a blob is good for: a handler should fetch at once.
pub const LINK_VALID: Duration = Duration::from_secs(3600);

/// Where the data of an item lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reference {
    path: String,
    /// The size of the blob in bytes.
    pub size: u64,
    /// What the blob is.
    pub content_type: String,
    /// What [`crate::nested::settle`] has to say beyond, each a JSON array; the first is innermost.
    partitions: Vec<String>,
}

impl Reference {
    /// To a blob at this path.
    pub fn new(path: String, size: u64, content_type: String) -> Self {
        Self { path, size, content_type, partitions: Vec::new() }
    }

    /// Whether data of this content type can have one: it has to fit into the reference's own.
    pub fn fits(content_type: &str) -> bool {
        let digits = u64::MAX.to_string().len();
        MARK.len() + " size=; of=".len() + digits + content_type.len() <= CONTENT_TYPE_BYTES_MAX
    }

    /// Reads what a row has; `None`: it is no reference but data.
    pub fn read(content_type: &str, bytes: &[u8]) -> Option<Self> {
        let (size, content_type) = parse_type(content_type)?;
        let mut lines = std::str::from_utf8(bytes).ok()?.split('\n');
        let path = lines.next().filter(|path| is_path(path))?;
        let partitions = lines.map(str::to_owned).collect();
        Some(Self { path: path.to_owned(), size, content_type: content_type.to_owned(), partitions })
    }

    /// As the row has it.
    pub fn to_data(&self) -> Data {
        let mut text = self.path.clone();
        for partitions in &self.partitions {
            text.push('\n');
            text.push_str(partitions);
        }
        Data {
            bytes: text.into(),
            content_type: format!("{MARK} size={}; of={}", self.size, self.content_type),
        }
    }

    /// Where the blob lies in the object store.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the item's data is the blob itself, and not made of it.
    pub fn is_whole(&self) -> bool {
        self.partitions.is_empty()
    }

    /// What the item's data is.
    pub fn shown_type(&self) -> &str {
        if self.is_whole() { &self.content_type } else { JSON }
    }

    /// The size of the item's data, about, where it is made of the blob.
    pub fn shown_size(&self) -> u64 {
        self.size + self.partitions.iter().map(|partitions| partitions.len() as u64).sum::<u64>()
    }

    /// The item's data, given the blob.
    pub fn resolve(&self, blob: Bytes) -> Data {
        let data = Data { bytes: blob, content_type: self.content_type.clone() };
        self.partitions.iter().fold(data, |data, partitions| with_partitions(&data, partitions))
    }
}

/// The data of an item that has waited for nested partitions: `{"data": …, "partitions": […]}`, of the JSON array of what
/// became of them. A reference stays one.
pub fn with_partitions(data: &Data, partitions: &str) -> Data {
    match Reference::read(&data.content_type, &data.bytes) {
        Some(mut reference) => {
            reference.partitions.push(partitions.to_owned());
            reference.to_data()
        }
        None => Data::json(format!("{{{},\"partitions\":{partitions}}}", data_fields(data))),
    }
}

/// Data that comes from outside may not say that it is a reference: it would read what is not its own.
pub fn check_not_reserved(content_type: &str) -> Result<()> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    match essence.eq_ignore_ascii_case(BLOB_TYPE) {
        true => Err(StoreError::data(format!(
            "the content type {BLOB_TYPE} is gatefeed's own, for data that lies in the blob store: use another"
        ))),
        false => Ok(()),
    }
}

fn parse_type(content_type: &str) -> Option<(u64, &str)> {
    let (size, of) = content_type.strip_prefix(MARK)?.strip_prefix(" size=")?.split_once("; of=")?;
    Some((size.parse().ok()?, of))
}

/// A new path in a database's space. Names grow with time, so that old blobs stand together.
pub fn new_path(space: &Uuid) -> String {
    let name = Uuid::now_v7().simple().to_string();
    format!("{}/{}/{name}", space.simple(), &name[..PART_BYTES])
}

/// Whether this is a path as [`new_path`] makes them: only such are read or deleted, whoever wrote them.
pub fn is_path(path: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut parts = path.split('/');
    let (space, part, name) = (parts.next(), parts.next(), parts.next());
    let (Some(space), Some(part), Some(name), None) = (space, part, name, parts.next()) else { return false };
    [space, part, name].into_iter().all(is_hex)
        && (space.len(), name.len(), part.len()) == (32, 32, PART_BYTES)
        && name.starts_with(part)
}

/// A database's own part of an object store: several may share one, since each collects its own garbage only.
#[derive(Clone, Eq, PartialEq)]
pub struct Space {
    /// What all its paths begin with.
    pub id: Uuid,
    /// Signs links; every process of the database has it.
    pub secret: String,
}

impl Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Where a handler fetches a blob by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Link {
    /// At the object store: a URL that is signed.
    Absolute(String),
    /// At `gatefeed run --listen`: path and query below its URL, without a slash before.
    Relative(String),
}

/// What a collection of garbage has come to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Collected {
    /// Blobs that are gone.
    pub blobs: u64,
    /// Bytes that are free.
    pub bytes: u64,
    /// Blobs that were looked at and are referred to.
    pub kept: u64,
}

/// The object store beside a database.
#[async_trait]
pub trait Blobs: Send + Sync + Debug {
    /// Data with more bytes than this goes there.
    fn inline_max(&self) -> u64;

    /// A link to a blob, good for [`LINK_VALID`].
    async fn link(&self, reference: &Reference) -> Result<Link>;

    /// Reads some of a blob; fewer bytes than asked for are its end. `NotFound` without it.
    async fn read(&self, path: &str, start: u64, length: u64) -> Result<Bytes>;

    /// The size of a blob for which somebody has a relative [`Link`]. `Refused` where it is not signed, or not any more.
    async fn linked(&self, path: &str, expires: u64, signature: &str) -> Result<u64>;

    /// Deletes blobs of this database that are older than this and that no row refers to. A push has to commit sooner
    /// than that: until then no row refers to what it has put.
    async fn collect(&self, older_than: Duration) -> Result<Collected>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Reference {
        Reference::new(new_path(&Uuid::new_v4()), 7, "text/plain; charset=\"utf-8\"".into())
    }

    #[test]
    fn a_reference_is_read_as_it_was_written() {
        let reference = reference();
        let data = reference.to_data();
        assert_eq!(data.bytes.len(), PATH_BYTES);
        assert!(data.content_type.starts_with(MARK) && MARK.starts_with(BLOB_TYPE));
        assert_eq!(Reference::read(&data.content_type, &data.bytes), Some(reference));
        let longest = "x".repeat(194);
        let large = Reference::new(new_path(&Uuid::nil()), u64::MAX, longest.clone());
        assert!(Reference::fits(&longest) && large.to_data().content_type.len() <= CONTENT_TYPE_BYTES_MAX);
        assert!(!Reference::fits(&"x".repeat(195)));
    }

    #[test]
    fn what_is_no_reference_is_data() {
        let data = reference().to_data();
        let read = |content_type: &str, bytes: &[u8]| Reference::read(content_type, bytes);
        assert_eq!(read("text/plain", &data.bytes), None);
        assert_eq!(read(BLOB_TYPE, &data.bytes), None);
        assert_eq!(read("application/vnd.gatefeed.blob; size=x; of=a/b", &data.bytes), None);
        for bad in ["", "../../etc/passwd", "\u{0}"] {
            assert_eq!(read(&data.content_type, bad.as_bytes()), None, "{bad:?}");
        }
        let path = new_path(&Uuid::new_v4());
        assert!(is_path(&path) && !is_path(&path.to_uppercase()) && !is_path(&format!("/{path}")));
        assert!(!is_path(&path.replacen(&path[33..38], "00000", 1)));
    }

    #[test]
    fn the_type_is_reserved_however_it_is_written() {
        for reserved in [BLOB_TYPE, MARK, "Application/VND.gatefeed.blob ; x=1"] {
            assert!(check_not_reserved(reserved).unwrap_err().is_data(), "{reserved}");
        }
        assert!(check_not_reserved("application/vnd.gatefeed.blobs").is_ok());
    }

    #[test]
    fn what_nested_partitions_came_to_is_put_around_the_blob() {
        let once = with_partitions(&reference().to_data(), r#"[{"id":"a"}]"#);
        let read = Reference::read(&once.content_type, &once.bytes).unwrap();
        assert_eq!((read.is_whole(), read.shown_type(), read.shown_size()), (false, JSON, 7 + 12));
        let data = read.resolve("content".into());
        let expected = r#"{"data_base64":"Y29udGVudA==","content_type":"text/plain; charset=\"utf-8\"","partitions":[{"id":"a"}]}"#;
        assert_eq!(data, Data::json(expected));
        let twice = with_partitions(&once, "[]");
        let twice = Reference::read(&twice.content_type, &twice.bytes).unwrap();
        assert_eq!(
            twice.resolve("content".into()),
            Data::json(format!("{{\"data\":{expected},\"partitions\":[]}}"))
        );
    }
}
