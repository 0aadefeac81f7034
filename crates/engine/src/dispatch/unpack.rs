//! Answers that are compressed, although nobody asked for that: some servers and proxies do it anyway.

use std::io::Read;

use ::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;

/// The body as it was meant: of gzip what is in it, if that has at most `max` bytes. Errs with what stands in its way.
pub(super) async fn unpack(headers: &HeaderMap, body: Bytes, max: usize) -> Result<Bytes, String> {
    let Some(coding) = coding(headers).filter(|_| !body.is_empty()) else { return Ok(body) };
    if !matches!(coding.as_str(), "gzip" | "x-gzip") {
        return Err(format!(
            "the answer has Content-Encoding {coding:?}, although no compression was asked for"
        ));
    }
    // A small body can take long: what comes out of it is what counts.
    let unpacked = tokio::task::spawn_blocking(move || gunzip(&body, max)).await;
    unpacked.unwrap_or_else(|_| Err("the answer could not be unpacked".to_owned()))
}

fn gunzip(body: &[u8], max: usize) -> Result<Bytes, String> {
    let mut bytes = Vec::new();
    // One more than may be, and no more than that is ever made.
    let mut unpacking = MultiGzDecoder::new(body).take(max as u64 + 1);
    unpacking.read_to_end(&mut bytes).map_err(|error| format!("the answer is no gzip ({error})"))?;
    match bytes.len() > max {
        true => Err(format!("answer larger than {max} bytes when unpacked (--max-answer)")),
        false => Ok(bytes.into()),
    }
}

/// A content coding other than none, in lower case.
fn coding(headers: &HeaderMap) -> Option<String> {
    let coding = headers.get(header::CONTENT_ENCODING)?.as_bytes().trim_ascii();
    let coding = String::from_utf8_lossy(coding).to_ascii_lowercase();
    (!coding.is_empty() && coding != "identity").then_some(coding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn headers(coding: &str) -> HeaderMap {
        [(header::CONTENT_ENCODING, coding.parse().unwrap())].into_iter().collect()
    }

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut packing = GzEncoder::new(Vec::new(), Compression::best());
        packing.write_all(bytes).unwrap();
        packing.finish().unwrap().into()
    }

    #[tokio::test]
    async fn gzip_is_unpacked_up_to_what_an_answer_may_have() {
        let packed = gzip(b"{\"done\":true}");
        assert_eq!(unpack(&headers(" GZip "), packed.clone(), 13).await.unwrap(), "{\"done\":true}");
        assert!(
            unpack(&headers("gzip"), packed, 12)
                .await
                .unwrap_err()
                .contains("larger than 12 bytes when unpacked")
        );
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        // No more of it is unpacked than is needed to know: the half that is missing is not missed.
        let half = bomb.slice(..bomb.len() / 2);
        for bomb in [bomb, half] {
            assert!(unpack(&headers("gzip"), bomb, 1 << 20).await.unwrap_err().contains("--max-answer"));
        }
    }

    #[tokio::test]
    async fn what_is_not_packed_is_left_and_what_cannot_be_unpacked_is_refused() {
        let body = Bytes::from_static(b"{}");
        assert_eq!(unpack(&HeaderMap::new(), body.clone(), 10).await.unwrap(), body);
        assert_eq!(unpack(&headers("identity"), body.clone(), 10).await.unwrap(), body);
        assert_eq!(unpack(&headers("br"), Bytes::new(), 10).await.unwrap(), "");
        assert!(unpack(&headers("gzip"), body.clone(), 10).await.unwrap_err().contains("no gzip"));
        assert!(unpack(&headers("gzip"), gzip(b"{}").slice(..15), 10).await.unwrap_err().contains("no gzip"));
        assert!(unpack(&headers("br"), body.clone(), 10).await.unwrap_err().contains("\"br\", although"));
        assert!(unpack(&headers("gzip, gzip"), body, 10).await.is_err());
    }
}
