//! The objects of a bucket, for what writes to it: lists, whole objects, and large ones in parts.
//!
//! `bucket` is what other layers use; `request` sends one signed request, again and again while the object store is in
//! passing trouble, and `gate` limits how many are under way. `listing` reads the lists, and
//! `multipart` sends large objects in parts.

pub(in crate::http) mod bucket;
mod gate;
pub(in crate::http) mod listing;
pub(in crate::http) mod multipart;
pub(in crate::http) mod request;
mod upload_body;
