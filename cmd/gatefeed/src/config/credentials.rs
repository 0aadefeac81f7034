//! What gives access to targets and signs for them: read from where the configuration says it is.

use bytes::Bytes;
use gatefeed_engine::dispatch::{Access, HttpOptions, Signer};

use super::{
    file::{Handling, HeaderText},
    findings::Findings,
    secret::{Secrets, Source},
};

/// Reads them, and tells what cannot be read.
pub(super) struct Credentials {
    secrets: Secrets,
}

/// What has been read of one level.
#[derive(Default)]
pub(super) struct Read {
    signer: Option<Signer>,
    access: Access,
    ca: Option<Bytes>,
}

impl Read {
    pub(super) fn enter(self, options: HttpOptions) -> HttpOptions {
        let Self { signer, access, ca } = self;
        HttpOptions { signer, access, ca, ..options }
    }
}

impl Credentials {
    pub(super) fn new(secrets: Secrets) -> Self {
        Self { secrets }
    }

    pub(super) fn read(&mut self, handling: &Handling, found: &mut Findings) -> Read {
        let mut teller = Teller { handling, found };
        let signer = self.signer(&mut teller);
        let access = self.access(&mut teller);
        Read { signer, access, ca: self.authorities(&mut teller) }
    }

    fn signer(&mut self, teller: &mut Teller<'_>) -> Option<Signer> {
        let source = teller.handling.signing.as_ref()?;
        let signer = self.secrets.text(source).and_then(|text| said(Signer::parse(&text)));
        teller.or_tell(source.key("signing_secret_file", "signing_secret_env"), "the signing secret", signer)
    }

    fn access(&mut self, teller: &mut Teller<'_>) -> Access {
        let keys = &teller.handling.access;
        let mut access = Access::default();
        if let Some(source) = &keys.bearer {
            let entered = self.secrets.text(source).and_then(|token| said(access.clone().bearer(&token)));
            let key = source.key("bearer_file", "bearer_env");
            access = teller.or_tell(key, "the bearer token", entered).unwrap_or(access);
        }
        // One beside a bearer token was told when the file was read.
        if let Some(source) = keys.basic.as_ref().filter(|_| keys.bearer.is_none()) {
            let entered = self.secrets.text(source).and_then(|text| said(access.clone().basic(&text)));
            let key = source.key("basic_file", "basic_env");
            access = teller.or_tell(key, "the basic credential", entered).unwrap_or(access);
        }
        for (name, text) in &keys.headers {
            let text = match text {
                HeaderText::Plain(text) => Ok(text.clone()),
                HeaderText::Secret(source) => self.secrets.text(source).map(|text| text.trim().to_owned()),
            };
            let entered = text.and_then(|text| said(access.clone().header(name, &text)));
            access = teller.or_tell(&format!("headers.{name}"), name, entered).unwrap_or(access);
        }
        access
    }

    fn authorities(&mut self, teller: &mut Teller<'_>) -> Option<Bytes> {
        let source = Source::File(teller.handling.ca_file.clone()?);
        let read = self.secrets.bytes(&source).map(Bytes::from);
        teller.or_tell("ca_file", "the certificate authorities", read)
    }
}

/// Tells what is wrong with a level.
struct Teller<'t> {
    handling: &'t Handling,
    found: &'t mut Findings,
}

impl Teller<'_> {
    /// `what` it is, for those who have not written the key.
    fn or_tell<T>(&mut self, key: &str, what: &str, read: Result<T, String>) -> Option<T> {
        let is_written = self.handling.origins.of(key).is_some_and(|origin| origin.place.is_some());
        let shown = if is_written { key } else { what };
        read.map_err(|why| self.found.at_key(self.handling, key, format!("{shown}: {why}"))).ok()
    }
}

fn said<T, E: ToString>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}
