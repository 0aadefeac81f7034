//! Where a handler fetches data that is not in the request.

use gatefeed_core::{answer::Failure, blob::Link};
use url::Url;

/// The URL of a link; `base` is where `gatefeed run --listen` is reached.
pub(super) fn url(link: &Link, base: Option<&Url>) -> Result<String, Failure> {
    match (link, base) {
        (Link::Absolute(url), _) => Ok(url.clone()),
        (Link::Relative(rest), Some(base)) => {
            let mut base = base.clone();
            base.set_query(None);
            base.set_fragment(None);
            Ok(format!("{}/{rest}", base.as_str().trim_end_matches('/')))
        }
        (Link::Relative(_), None) => Err(Failure::delayed(
            "its data lies in a folder, and a link to it leads to --listen: start `gatefeed run` with --listen, or \
             without --blob-links",
            None,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_folder_leads_below_the_base() {
        let relative = Link::Relative("v1/blobs/a?b=c".into());
        let of = |base: &str| url(&relative, Some(&base.parse().unwrap())).unwrap();
        assert_eq!(of("http://h:8080"), "http://h:8080/v1/blobs/a?b=c");
        assert_eq!(of("https://h/queue/?x=1"), "https://h/queue/v1/blobs/a?b=c");
        assert!(url(&relative, None).unwrap_err().message.contains("--listen"));
        let absolute = Link::Absolute("https://bucket/x".into());
        assert_eq!(url(&absolute, None).unwrap(), "https://bucket/x");
    }
}
