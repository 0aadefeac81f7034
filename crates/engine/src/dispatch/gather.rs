//! The body of an item that gathers: its data and what came before it, or where to fetch that.

use gatefeed_core::{
    answer::Failure,
    gather::{Gather, data_fields},
    id::JSON,
    item::Data,
};
use tokio::sync::Semaphore;
use url::Url;

use super::http::HttpOptions;
use crate::processor::Delivery;

/// Bytes of gathered bodies that are in memory at a time, about.
const MEMORY_MAX: usize = 256 << 20;

/// As many bodies as fit into the memory for them, at least one.
pub(super) fn room(options: &HttpOptions) -> Semaphore {
    Semaphore::new((MEMORY_MAX / options.gather_max.max(1)).clamp(1, Semaphore::MAX_PERMITS))
}

/// Gives a delivery that gathers the body that its handler gets; all others stay as they are.
pub(super) async fn prepare(mut delivery: Delivery, options: &HttpOptions) -> Result<Delivery, Failure> {
    let Some(gathering) = delivery.gathering.take() else { return Ok(delivery) };
    let data = Data { bytes: delivery.data.clone(), content_type: delivery.content_type.to_string() };
    let gathered = gathering.body(&data, options.gather_max).await;
    let gathered = gathered.map_err(|error| Failure::delayed(format!("cannot gather: {error}"), None))?;
    delivery.data = match gathered {
        Some(body) => body,
        None => {
            let url = url(options, &delivery.partition, gathering.gather())?;
            format!("{{{},\"gathered_url\":{}}}", data_fields(&data), quoted(&url)).into()
        }
    };
    delivery.content_type = JSON.into();
    Ok(delivery)
}

/// Where `gatefeed run --listen` serves what is gathered.
fn url(options: &HttpOptions, partition: &str, gather: Gather) -> Result<String, Failure> {
    let max = options.gather_max;
    let nowhere = || {
        Failure::new(format!(
            "what it gathers has more than {max} bytes (--gather-max): start `gatefeed run` with --listen, so that \
             the handler can fetch it, or with a larger --gather-max"
        ))
    };
    let mut url = options.gather_url.clone().ok_or_else(nowhere)?;
    let gate = gather.gate.to_string();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["v1", "partitions", partition, "gathered", &gate]);
    }
    url.query_pairs_mut().clear().append_pair("status", gather.status.as_str());
    Ok(url.into())
}

fn quoted(url: &str) -> String {
    // A URL has neither quotes nor backslashes nor control characters.
    format!("\"{url}\"")
}

/// Whether handlers can be sent to this URL.
pub(super) fn check_url(url: Option<&Url>) -> Result<(), String> {
    match url {
        Some(url) if url.cannot_be_a_base() => Err(format!("{url} is no base of other URLs")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::gather::Ended;

    fn url_of(base: &str, partition: &str) -> String {
        let options = HttpOptions { gather_url: Some(base.parse().unwrap()), ..HttpOptions::default() };
        url(&options, partition, Gather { gate: 7, status: Ended::Any }).unwrap()
    }

    #[test]
    fn a_partitions_name_is_one_segment_of_the_path() {
        assert_eq!(url_of("http://h:8080", "p"), "http://h:8080/v1/partitions/p/gathered/7?status=any");
        assert_eq!(
            url_of("https://h/queue/?x=1", "a/b ü?#%\"\\"),
            "https://h/queue/v1/partitions/a%2Fb%20%C3%BC%3F%23%25%22%5C/gathered/7?status=any"
        );
    }
}
