//! Content addresses and cache keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Part of every key made by [`KeyHasher`]; raise it when the meaning of any keyed field changes.
pub const KEY_VERSION: u32 = 4;

/// `sha256:<64 hex digits>` of some bytes, uncompressed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: expected `sha256:` and 64 lower-case hex digits")]
pub struct DigestError(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes.as_ref()).into())
    }

    /// Wraps an already computed SHA-256.
    pub const fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(s: &str) -> Result<Self, DigestError> {
        let error = || DigestError(s.to_owned());
        let digits = s.strip_prefix("sha256:").ok_or_else(error)?;
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(error());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| error())?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl schemars::JsonSchema for Digest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^sha256:[0-9a-f]{64}$",
            "description": "SHA-256 of some bytes, uncompressed.",
        })
    }
}

/// Hashes a sequence of fields into a key. Every field is length-prefixed, so no two different sequences collide by
/// concatenation, and the sequence opens with a domain and [`KEY_VERSION`].
#[derive(Clone)]
pub struct KeyHasher(Sha256);

impl KeyHasher {
    /// Starts a key of the kind `domain`.
    pub fn new(domain: &str) -> Self {
        Self(Sha256::new()).field(domain).field(KEY_VERSION.to_le_bytes())
    }

    /// Adds one field.
    #[must_use]
    pub fn field(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a list: its length, then each element as a field.
    #[must_use]
    pub fn list<T: AsRef<[u8]>>(self, items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>) -> Self {
        let items = items.into_iter();
        let start = self.field((items.len() as u64).to_le_bytes());
        items.fold(start, Self::field)
    }

    /// The key.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_text_round_trips_and_refuses_other_texts() {
        let d = Digest::of(b"abc");
        assert_eq!(d.to_string(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(d.to_string().parse(), Ok(d));
        for bad in ["", "sha256:", "md5:00", "sha256:zz", &d.to_string().to_uppercase(), &d.to_string()[..70]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_depend_on_field_borders_order_and_domain() {
        let key = |domain, fields: &[&str]| fields.iter().fold(KeyHasher::new(domain), KeyHasher::field).finish();
        let base = key("build", &["ab", "c"]);
        assert_eq!(base, key("build", &["ab", "c"]));
        for other in [key("build", &["a", "bc"]), key("build", &["c", "ab"]), key("link", &["ab", "c"]), key("build", &["abc"])] {
            assert_ne!(base, other);
        }
        let list = |items: &[&str]| KeyHasher::new("x").list(items.iter().map(|s| s.as_bytes())).field("z").finish();
        assert_ne!(list(&["a"]), list(&["a", "z"]));
    }
}
