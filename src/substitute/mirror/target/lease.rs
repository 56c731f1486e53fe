//! One writer at a time in a bucket, on any object store: no conditional writes are needed.
//!
//! A writer puts a claim, `subst/writers/ID`, and then lists all claims. If there is another one that was renewed a
//! short while ago, it removes its own and gives way. Lists show what was put before, so of two writers at least one
//! sees the other. A claim counts for [`LEASE_SECONDS`] by the clock of the object store, and is renewed as long as its
//! process lives. A process that could not renew it in time writes nothing more, even if it can renew it later.
//!
//! What was sent before that may still arrive later. It does no harm: objects are whole, and their names and contents
//! belong together. What is sent later could undo what another writer has done meanwhile. No object is written or
//! removed, and no request repeated, once the claim may not count.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::debug;

use super::error::TargetError;
use crate::http::{Bucket, HttpErrorKind, ListedObject, ObjectPut, PutOutcome, SendPermit};
use crate::sync::{lock, wait_for};

/// For how long a claim counts after it was put.
const LEASE_SECONDS: u64 = 150;
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(25);
/// For how long its process may write, counted from before it was put.
const USABLE_SECONDS: u64 = 100;
/// Two that give way to each other try again so often, if the other claim is not older than this.
const ATTEMPTS: u32 = 3;
const NEW_SECONDS: u64 = 10;

/// The claims of all writers.
pub(super) const CLAIMS: &str = "subst/writers/";

/// The right to write, as long as it is renewed. Dropped, it is given back.
pub(super) struct WriterLease {
    claim: Arc<Claim>,
    renewal: Option<JoinHandle<()>>,
}

struct Claim {
    bucket: Bucket,
    key: String,
    /// Tells the claim of this process from that of another one with the same identity, such as on a copied machine.
    content: String,
    /// Until when its process may write, in seconds of [`now`].
    usable_until: AtomicU64,
    /// Another writer has been seen, or may have come and gone.
    is_lost: AtomicBool,
    /// A request was not sent, since the claim was too old. What it was for is not done, even if the claim was renewed later.
    was_refused: AtomicBool,
    /// Whether the object store may have the claim. If it refused it, what is there is of another process with the same id.
    may_be_there: AtomicBool,
    is_ended: Mutex<bool>,
    ended: Condvar,
}

/// What the claims of others say.
enum OtherWriter {
    None,
    /// The seconds since it has put its claim.
    Alive(u64),
}

impl WriterLease {
    /// Waits until this process may write to `bucket`, as the writer `id`.
    ///
    /// # Errors
    /// Another process writes to it, or the bucket cannot be read or written.
    pub(super) fn acquire(bucket: &Arc<Bucket>, id: &str) -> Result<Self, TargetError> {
        // Where this fails, the claim is withdrawn.
        let mut lease = Self {
            claim: Arc::new(Claim::new(bucket, id)),
            renewal: None,
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let start = now();
            let OtherWriter::Alive(seconds) = lease.claim.put()? else {
                lease.claim.use_from(start);
                // That may have taken too long.
                match lease.claim.is_usable() || attempts == ATTEMPTS {
                    true => break,
                    false => continue,
                }
            };
            if attempts == ATTEMPTS || seconds > NEW_SECONDS {
                return Err(TargetError::LeaseHeld {
                    mirror: bucket.server().as_str().to_owned(),
                    seconds,
                });
            }
            lease.claim.withdraw();
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..2000)));
        }

        let renewed = Arc::clone(&lease.claim);
        let thread = Builder::new().name("mirror-lease".to_owned());
        let renewal = thread.spawn(move || renewed.keep_renewing());
        let failure = TargetError::of("renew", lease.claim.key.clone());
        lease.renewal = Some(renewal.map_err(failure)?);
        Ok(lease)
    }

    /// Checks that this process may still write.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn check(&self) -> Result<(), TargetError> {
        match self.claim.may_write() {
            true => Ok(()),
            false => Err(TargetError::LeaseLost(
                self.claim.bucket.server().as_str().to_owned(),
            )),
        }
    }

    /// Lets requests be sent only as long as this process may write, also those that are repeated: what is removed later
    /// might be what the next writer relies on.
    pub(super) fn permit(&self) -> SendPermit {
        let claim = Arc::clone(&self.claim);
        SendPermit::new(move || {
            let may_write = claim.may_write();
            claim.was_refused.fetch_or(!may_write, Ordering::Relaxed);
            may_write
        })
    }
}

#[cfg(test)]
impl WriterLease {
    /// A claim that is not renewed.
    pub(super) fn unrenewed(bucket: &Bucket) -> Self {
        Self {
            claim: Arc::new(Claim::new(bucket, "id")),
            renewal: None,
        }
    }

    /// Notes that another writer was seen, or not any more.
    pub(super) fn set_lost(&self, is_lost: bool) {
        self.claim.is_lost.store(is_lost, Ordering::Relaxed);
    }
}

impl Drop for WriterLease {
    fn drop(&mut self) {
        *lock(&self.claim.is_ended) = true;
        self.claim.ended.notify_all();
        self.claim.bucket.end_requests();
        if let Some(renewal) = self.renewal.take() {
            // The thread itself has reported its panic.
            let _ = renewal.join();
        }
        let is_own = self.claim.may_be_there.load(Ordering::Relaxed);
        if is_own && !self.claim.is_lost.load(Ordering::Relaxed) {
            self.claim.withdraw();
        }
    }
}

impl Claim {
    fn new(bucket: &Bucket, id: &str) -> Self {
        Self {
            // Over a slow line, uploads may take longer than a claim counts.
            bucket: bucket.with_own_gate(),
            key: format!("{CLAIMS}{id}"),
            content: format!("{:032x}\n", fastrand::u128(..)),
            usable_until: AtomicU64::new(now() + USABLE_SECONDS),
            is_lost: AtomicBool::new(false),
            was_refused: AtomicBool::new(false),
            may_be_there: AtomicBool::new(false),
            is_ended: Mutex::new(false),
            ended: Condvar::new(),
        }
    }

    fn may_write(&self) -> bool {
        let is_given_up = &[&self.is_lost, &self.was_refused];
        self.is_usable() && !is_given_up.iter().any(|it| it.load(Ordering::Relaxed))
    }

    fn is_usable(&self) -> bool {
        now() < self.usable_until.load(Ordering::Relaxed)
    }

    fn use_from(&self, start: u64) {
        let until = start + USABLE_SECONDS;
        self.usable_until.store(until, Ordering::Relaxed);
    }

    /// Puts the claim, and looks for those of others. Those that do not count any more are removed.
    fn put(&self) -> Result<OtherWriter, TargetError> {
        let failure = TargetError::of_bucket("write", &self.key);
        let put = ObjectPut::bytes(&self.key, self.content.clone().into_bytes(), "text/plain");
        let own = self.bucket.put_all(&[put], None);
        let is_refused =
            matches!(&own, Err(error) if matches!(error.kind(), HttpErrorKind::Bucket(_)));
        self.may_be_there.fetch_or(!is_refused, Ordering::Relaxed);
        let own = own.map_err(failure)?;
        let listed = self.bucket.list(CLAIMS);
        let listed = listed.map_err(TargetError::of_bucket("list", CLAIMS))?;

        let mine = listed.iter().find(|claim| claim.key == self.key);
        let is_same = match (own.first(), mine) {
            (Some(PutOutcome::Written(Some(etag))), Some(mine)) => {
                mine.etag.as_ref().is_none_or(|it| it == etag)
            }
            (_, Some(_)) => true,
            (_, None) => false,
        };
        if !is_same {
            return Ok(OtherWriter::Alive(0));
        }
        let time = mine.and_then(|mine| mine.modified);
        let others = listed.iter().filter(|claim| claim.key != self.key);
        let (expired, alive): (Vec<_>, Vec<_>) = others.partition(|it| is_expired(it, time));
        if let Some(youngest) = alive.iter().map(|other| age(other, time)).min() {
            return Ok(OtherWriter::Alive(youngest));
        }
        let expired: Vec<String> = expired.into_iter().map(|claim| claim.key.clone()).collect();
        if let Err(error) = self.bucket.remove_all(&expired, None) {
            debug!(%error, "expired claims are not removed");
        }
        Ok(OtherWriter::None)
    }

    fn keep_renewing(&self) {
        let mut is_ended = lock(&self.is_ended);
        while !*is_ended {
            is_ended = wait_for(&self.ended, is_ended, RENEWAL);
            if *is_ended {
                return;
            }
            drop(is_ended);
            if !self.renew() {
                return self.is_lost.store(true, Ordering::Relaxed);
            }
            is_ended = lock(&self.is_ended);
        }
    }

    /// Puts the claim again; whether it may still count. Once it might not, another writer may have come and gone that
    /// no list shows any more, and what this process knows of the bucket may be wrong for good.
    fn renew(&self) -> bool {
        let start = now();
        if !self.is_usable() {
            return false;
        }
        match self.put() {
            Ok(OtherWriter::None) => {
                let was_usable = self.is_usable();
                if was_usable {
                    self.use_from(start);
                }
                was_usable
            }
            Ok(OtherWriter::Alive(_)) => false,
            // As long as it counts, the next attempt is in time.
            Err(error) => {
                debug!(%error, "the claim is not renewed");
                true
            }
        }
    }

    /// Removes the claim. If that fails, it expires.
    fn withdraw(&self) {
        // The requests of this one may have ended.
        let bucket = self.bucket.with_own_gate();
        if let Err(error) = bucket.remove_all(std::slice::from_ref(&self.key), None) {
            debug!(%error, "the claim is not removed");
        }
    }
}

/// Seconds from when `claim` was put to `time`.
fn age(claim: &ListedObject, time: Option<u64>) -> u64 {
    match (claim.modified, time) {
        (Some(modified), Some(time)) => time.saturating_sub(modified),
        _ => 0,
    }
}

/// Whether `claim` does not count any more at `time`. Without times it does.
fn is_expired(claim: &ListedObject, time: Option<u64>) -> bool {
    age(claim, time) > LEASE_SECONDS
}

/// Seconds, also those in which this machine sleeps.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.try_into().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;
    use crate::http::testing::bucket;

    /// A store that answers nothing, and a claim to its bucket.
    fn silent() -> (TcpListener, WriterLease) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let lease = WriterLease::unrenewed(&bucket(&url));
        (listener, lease)
    }

    #[test]
    fn a_claim_is_given_up_soon_although_the_store_does_not_answer() {
        let (store, mut lease) = silent();
        let claim = Arc::clone(&lease.claim);
        lease.renewal = Some(std::thread::spawn(move || drop(claim.put())));
        let _under_way = store.accept().unwrap();
        let (sender, dropped) = mpsc::channel();
        std::thread::spawn(move || {
            drop(lease);
            sender.send(()).unwrap();
        });
        // A request is repeated for longer.
        dropped.recv_timeout(Duration::from_secs(30)).unwrap();
    }

    /// A claim to the bucket of a store that has it and no other one. `observe` is told of each request.
    fn alone(observe: impl Fn(&Claim, &str) + Send + 'static) -> WriterLease {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let lease = WriterLease::unrenewed(&bucket(&url));
        let claim = Arc::downgrade(&lease.claim);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let (mut head, mut line) = (String::new(), String::new());
                while line != "\r\n" {
                    line.clear();
                    stream.read_line(&mut line).unwrap();
                    head.push_str(&line.to_ascii_lowercase());
                }
                let length = head
                    .lines()
                    .find_map(|it| it.strip_prefix("content-length: "));
                let mut body = vec![0; length.map_or(0, |it| it.parse().unwrap())];
                stream.read_exact(&mut body).unwrap();
                if let Some(claim) = claim.upgrade() {
                    observe(&claim, &head);
                }
                let list = "<Contents><Key>subst/writers/id</Key><Size>1</Size></Contents>";
                let list = format!("<ListBucketResult>{list}</ListBucketResult>");
                let length = list.len();
                let head = format!("Connection: close\r\nContent-Length: {length}\r\n\r\n");
                let answer = format!("HTTP/1.1 200 OK\r\n{head}{list}");
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        lease
    }

    #[test]
    fn a_claim_is_renewed_as_long_as_it_may_be_used() {
        let lease = alone(|_, _| {});
        let until = now() + USABLE_SECONDS / 2;
        lease.claim.usable_until.store(until, Ordering::Relaxed);
        assert!(lease.claim.renew());
        assert!(lease.claim.usable_until.load(Ordering::Relaxed) > until);
        lease.check().unwrap();
    }

    #[test]
    fn a_claim_that_may_have_lapsed_is_not_renewed() {
        let lease = alone(|_, request| assert!(!request.starts_with("put"), "{request}"));
        lease.claim.usable_until.store(now(), Ordering::Relaxed);
        assert!(!lease.claim.renew());
        lease.check().unwrap_err();
        lease.set_lost(true);
    }

    #[test]
    fn a_claim_that_may_have_lapsed_while_it_was_put_again_does_not_count() {
        // As if the machine slept, or the store did not answer.
        let lease = alone(|claim, _| claim.usable_until.store(now(), Ordering::Relaxed));
        assert!(!lease.claim.renew());
        lease.check().unwrap_err();
        lease.set_lost(true);
    }

    #[test]
    fn after_a_refused_request_nothing_is_written_even_if_the_claim_counts_again() {
        let (_store, lease) = silent();
        lease.set_lost(true);
        let keys = ["x".to_owned()];
        let removed = lease.claim.bucket.remove_all(&keys, Some(&lease.permit()));
        assert!(removed.is_err());
        lease.set_lost(false);
        assert!(matches!(lease.check(), Err(TargetError::LeaseLost(_))));
        // It is not withdrawn.
        lease.set_lost(true);
    }
}
