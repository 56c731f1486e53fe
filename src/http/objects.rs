//! The objects of a bucket, for what writes to it: lists, whole objects, and large ones in parts.
//!
//! `bucket` is what other layers use, with an `object_put` for each object to be written; `request` sends one signed
//! request, again and again while the object store is in passing trouble, which `response` recognizes, and `gate` limits
//! how many are under way; `callbacks` has what they call on their way. `listing` reads the lists, and `multipart` has the requests for large objects in parts, which
//! `part_sender` sends in the background.

pub(in crate::http) mod bucket;
pub(in crate::http) mod callbacks;
mod gate;
pub(in crate::http) mod listing;
pub(in crate::http) mod multipart;
pub(in crate::http) mod object_put;
pub(in crate::http) mod part_sender;
pub(in crate::http) mod request;
mod response;
mod upload_body;
