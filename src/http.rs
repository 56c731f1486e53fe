//! Layer 3: requests to substitute servers.
//!
//! The program is synchronous; everything asynchronous is in here, on a runtime that the
//! [`Client`] owns, and comes out through queues. Two kinds of traffic, two transports:
//! - *Lookups* (`lookup`), thousands of small responses: [`Client::lookups`], over pipelined
//!   connections of our own. HTTP libraries wait for each response, which costs a round trip per item.
//! - *Nars* (`download`), few and large: [`Client::nar`], over an ordinary HTTP/1.1 client.
//!
//! What writes to a bucket of an object store (`objects`) uses the latter as well: [`Client::bucket`].
//!
//! What servers answer is passed on as it is; nothing here decides what is trusted. Nothing here
//! reads the environment either: proxies and certificates arrive in [`Options`].
//!
//! Diagnostics (`tracing`): a span for each server and each connection, events for every request, response,
//! retry, redirect and fallback. They never contain credentials.

mod client;
mod content_encoding;
mod credentials;
mod download;
mod error;
mod limit;
mod lines;
mod lookup;
mod net;
mod objects;
mod options;
mod patience;
mod proxies;
mod queue;
mod rate;
mod retry;
mod s3;

pub(crate) use client::Client;
pub(crate) use credentials::{ClientIdentity, Credentials, ServerCredentials};
pub(crate) use download::body::NarBody;
pub(crate) use download::nar::{BodyStatus, NarRequest, RangeSupport};
pub(crate) use error::{
    BucketError, HttpError, HttpErrorClass, HttpErrorKind, Outage, is_shortage,
};
pub(crate) use limit::{LimitHours, RateLimit};
pub(crate) use lines::{LineRate, whole_bytes};
pub(crate) use lookup::cache_info::CacheInfoResponse;
pub(crate) use lookup::client::Lookups;
pub(crate) use lookup::events::{
    CacheInfoText, LookupEvent, LookupEvents, NarInfoAnswer, ServerProperty,
};
pub(crate) use objects::bucket::Bucket;
pub(crate) use objects::callbacks::{RetryObserver, SendPermit};
pub(crate) use objects::listing::ListedObject;
pub(crate) use objects::multipart::{FilePart, UploadedPart};
pub(crate) use objects::object_put::{ObjectPut, PutCondition, PutOutcome};
pub(crate) use objects::part_sender::PartSender;
pub(crate) use options::{
    CertificatePath, Options, PipeliningSupport, ServerSpec, Timeouts, TlsVerification,
};
pub(crate) use patience::{FIRST_WAIT, QUICK_RETRIES, RetryLimits, backoff};
pub(crate) use proxies::{NoProxy, Proxies};
pub(crate) use queue::Queued;
#[cfg(test)]
pub(crate) use rate::MinimumRate;
pub(crate) use rate::RateDemand;
pub(crate) use retry::RetryPolicy;
pub(crate) use s3::body_hash::BodyHash;
pub(crate) use s3::key_response::{is_usable as is_usable_key, unix_time};
pub(crate) use s3::key_source::{AccessKey, AccessKeySource, ContainerToken, WebIdentity};
pub(crate) use s3::keys::AccessKeys;
pub(crate) use s3::signer::BucketSigner;

#[cfg(fuzzing)]
pub(crate) use lookup::check_responses;
#[cfg(fuzzing)]
pub(crate) use objects::listing::check_list;
#[cfg(fuzzing)]
pub(crate) use s3::key_response::check_key_response;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
