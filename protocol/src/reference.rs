use std::fmt;
use std::str::FromStr;

use crate::{Digest, Target};

/// Which version of a model is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The newest version.
    Latest,
    /// `@v3`.
    Version(u32),
    /// `@prod`.
    Tag(String),
    /// `@sha256:…`: the digest of a version's index.
    Digest(Digest),
}

/// `name`, `name@v3`, `name@prod` or `name@sha256:…`, each with an optional `/target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The model's name.
    pub name: String,
    /// Which version.
    pub selector: Selector,
    /// Which variant, if not the best that the host can run.
    pub target: Option<Target>,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a reference: {reason}; expected NAME[@vN|@TAG|@sha256:HEX][/TARGET]")]
pub struct ReferenceError {
    text: String,
    reason: String,
}

impl Reference {
    /// Whether `name` can name a model: 1 to 128 of `a-z 0-9 . _ -`, opening with a letter or digit.
    pub fn is_name(name: &str) -> bool {
        (1..=128).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
            && name.as_bytes()[0].is_ascii_alphanumeric()
    }

    /// Whether `tag` can be a tag: a name that does not read as a version.
    pub fn is_tag(tag: &str) -> bool {
        Self::is_name(tag) && !tag.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |reason: String| ReferenceError { text: text.to_owned(), reason };
        let (rest, target) = match text.split_once('/') {
            Some((rest, t)) => (rest, Some(t.parse::<Target>().map_err(|e| fail(e.to_string()))?)),
            None => (text, None),
        };
        let (name, selector) = match rest.split_once('@') {
            None => (rest, Selector::Latest),
            Some((name, s)) if s.starts_with("sha256:") => {
                (name, Selector::Digest(s.parse().map_err(|e: crate::DigestError| fail(e.to_string()))?))
            }
            Some((name, s)) if Self::is_tag(s) => (name, Selector::Tag(s.to_owned())),
            Some((name, s)) => {
                let n = s.strip_prefix('v').and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                (name, Selector::Version(n.ok_or_else(|| fail(format!("`{s}` is neither a version, a tag nor a digest")))?))
            }
        };
        if !Self::is_name(name) {
            return Err(fail(format!("`{name}` is not a model name (a-z, 0-9, `.`, `_`, `-`; at most 128)")));
        }
        Ok(Self { name: name.to_owned(), selector, target })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.selector {
            Selector::Latest => {}
            Selector::Version(n) => write!(f, "@v{n}")?,
            Selector::Tag(t) => write!(f, "@{t}")?,
            Selector::Digest(d) => write!(f, "@{d}")?,
        }
        self.target.map_or(Ok(()), |t| write!(f, "/{t}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_round_trip() {
        let digest = Digest::of(b"x").to_string();
        for text in
            ["resnet18", "resnet18@v3", "a.b_c-d@prod", "m@v3/cpu-x86_64-v3", &format!("m@{digest}/cuda-sm_90"), "m@v", "m@v2x"]
        {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_references_say_what_is_wrong() {
        for (text, reason) in [
            ("", "not a model name"),
            ("Resnet", "not a model name"),
            ("../x", "not a target"),
            ("m@v0", "neither a version"),
            ("m@v99999999999", "neither a version"),
            ("m@sha256:12", "not a digest"),
            ("m@v1/gpu", "not a target"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
