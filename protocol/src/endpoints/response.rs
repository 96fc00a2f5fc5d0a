//! What an answer consists of.

use serde::Serialize;

use super::request::ZstdFrames;
use super::schema::Schema;

/// The answer that is not an error: a JSON value, or one of the forms in this module.
pub trait Response {
    /// Its schema, where it is JSON; `()` where not.
    type Json: Schema;
    /// The statuses that it comes with.
    const STATUSES: &'static [u16] = &[200];
    /// The media types of its body; none without a body.
    const MEDIA: &'static [&'static str];
}

impl<T: Serialize + Schema> Response for T {
    type Json = T;
    const MEDIA: &'static [&'static str] = &["application/json"];
}

/// Something was stored that was not there, or is there already; the JSON body is `null`.
#[derive(Debug, Clone, Copy)]
pub struct Created;

impl Response for Created {
    type Json = ();
    const STATUSES: &'static [u16] = &[201];
    const MEDIA: &'static [&'static str] = &["application/json"];
}

/// Headers alone.
#[derive(Debug, Clone, Copy)]
pub struct Headers;

impl Response for Headers {
    type Json = ();
    const MEDIA: &'static [&'static str] = &[];
}

/// All of the frames, or the range that was asked for.
impl Response for ZstdFrames {
    type Json = ();
    const STATUSES: &'static [u16] = &[200, 206];
    const MEDIA: &'static [&'static str] = &["application/zstd"];
}

/// Bytes of any kind.
#[derive(Debug, Clone, Copy)]
pub struct Octets;

impl Response for Octets {
    type Json = ();
    const MEDIA: &'static [&'static str] = &["application/octet-stream"];
}

/// An image index or an image manifest of OCI.
#[derive(Debug, Clone, Copy)]
pub struct OciManifest;

impl Response for OciManifest {
    type Json = ();
    const MEDIA: &'static [&'static str] = &[crate::INDEX_TYPE, crate::MANIFEST_TYPE];
}
