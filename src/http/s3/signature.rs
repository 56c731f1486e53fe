//! Signature Version 4 of AWS, in header fields. Pure.
//!
//! Path and query are signed as `format::s3_location` writes them, and must be sent like that.
//! See <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use ring::hmac;

use crate::format::secret::Secret;
use crate::format::sha256::Sha256;

/// The hash of no bytes: that of requests without a body.
pub(super) const EMPTY_SHA256: &str =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A time as it is signed, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SigningTime {
    unix_seconds: u64,
}

impl SigningTime {
    pub(super) fn new(unix_seconds: u64) -> Self {
        Self { unix_seconds }
    }

    /// Days since 1970-01-01.
    pub(super) fn day(self) -> u64 {
        self.unix_seconds / 86_400
    }

    /// Such as `20130524T000000Z`.
    pub(super) fn text(self) -> String {
        let seconds = self.unix_seconds % 86_400;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("{}T{hour:02}{minute:02}{second:02}Z", self.date())
    }

    /// Such as `20130524`.
    fn date(self) -> String {
        // The algorithm of Howard Hinnant's `civil_from_days`: years begin in March, in eras of 400 years.
        let days = self.day() + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        format!("{year:04}{month:02}{day:02}")
    }
}

/// The key for one day and region, derived from a secret key.
pub(super) struct DerivedKey {
    key: hmac::Key,
    /// Such as `20130524/us-east-1/s3/aws4_request`.
    scope: String,
    day: u64,
    region: String,
}

impl DerivedKey {
    pub(super) fn derive(secret: &Secret, time: SigningTime, region: &str) -> Self {
        let date = time.date();
        let first = format!("AWS4{}", secret.expose());
        let parts = [date.as_str(), region, SERVICE, TERMINATOR];
        let key = parts.iter().fold(hmac_key(first.as_bytes()), |key, part| {
            hmac_key(hmac::sign(&key, part.as_bytes()).as_ref())
        });
        Self {
            key,
            scope: format!("{date}/{region}/{SERVICE}/{TERMINATOR}"),
            day: time.day(),
            region: region.to_owned(),
        }
    }

    /// Whether it is for requests at `time` in `region`.
    pub(super) fn is_for(&self, time: SigningTime, region: &str) -> bool {
        self.day == time.day() && self.region == region
    }
}

fn hmac_key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

/// What is signed of a request.
pub(super) struct CanonicalRequest<'a> {
    pub(super) method: &'a str,
    /// Encoded as it is sent.
    pub(super) path: &'a str,
    /// Encoded and sorted as it is sent.
    pub(super) query: &'a str,
    /// The fields to sign: their names in lower case, sorted, and their values without blanks around
    /// them.
    pub(super) fields: &'a [(&'a str, &'a str)],
    /// The SHA-256 of the body in hexadecimal digits.
    pub(super) body_sha256: &'a str,
}

impl CanonicalRequest<'_> {
    /// The value of `Authorization` for this request.
    pub(super) fn authorization(
        &self,
        key: &DerivedKey,
        key_id: &str,
        time: SigningTime,
    ) -> String {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let signature = self.signature(key, time, &names);
        let scope = &key.scope;
        format!(
            "{ALGORITHM} Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
    }

    fn signature(&self, key: &DerivedKey, time: SigningTime, names: &str) -> String {
        let mut request = format!("{}\n{}\n{}\n", self.method, self.path, self.query);
        for (name, value) in self.fields {
            // Writing to a text cannot fail.
            let _ = writeln!(request, "{name}:{value}");
        }
        let _ = write!(request, "\n{names}\n{}", self.body_sha256);

        let mut digest = Sha256::new();
        digest.update(request.as_bytes());
        let digest = HEXLOWER.encode(&digest.finish());
        let to_sign = format!("{ALGORITHM}\n{}\n{}\n{digest}", time.text(), key.scope);
        HEXLOWER.encode(hmac::sign(&key.key, to_sign.as_bytes()).as_ref())
    }
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "s3";
const TERMINATOR: &str = "aws4_request";

#[cfg(test)]
mod tests {
    use super::*;

    /// 2013-05-24 00:00:00, the time of the examples in the documentation of AWS.
    const TIME: SigningTime = SigningTime {
        unix_seconds: 1_369_353_600,
    };
    const HOST: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");
    const EMPTY: (&str, &str) = ("x-amz-content-sha256", EMPTY_SHA256);
    const DATE: (&str, &str) = ("x-amz-date", "20130524T000000Z");

    fn key() -> DerivedKey {
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        DerivedKey::derive(&secret, TIME, "us-east-1")
    }

    #[test]
    fn signatures_equal_those_in_the_documentation() {
        let put_sha256 = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let table = [
            (
                CanonicalRequest {
                    method: "GET",
                    path: "/test.txt",
                    query: "",
                    fields: &[HOST, ("range", "bytes=0-9"), EMPTY, DATE],
                    body_sha256: EMPTY_SHA256,
                },
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                CanonicalRequest {
                    method: "PUT",
                    path: "/test%24file.text",
                    query: "",
                    fields: &[
                        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                        HOST,
                        ("x-amz-content-sha256", put_sha256),
                        DATE,
                        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                    ],
                    body_sha256: put_sha256,
                },
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                CanonicalRequest {
                    method: "GET",
                    path: "/",
                    query: "max-keys=2&prefix=J",
                    fields: &[HOST, EMPTY, DATE],
                    body_sha256: EMPTY_SHA256,
                },
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
            (
                CanonicalRequest {
                    method: "GET",
                    path: "/",
                    query: "lifecycle=",
                    fields: &[HOST, EMPTY, DATE],
                    body_sha256: EMPTY_SHA256,
                },
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
        ];
        for (request, signature) in table {
            let authorization = request.authorization(&key(), "AKIAIOSFODNN7EXAMPLE", TIME);
            let begin = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/\
                         aws4_request, SignedHeaders=";
            assert!(authorization.starts_with(begin), "{authorization}");
            let expected = format!(", Signature={signature}");
            assert!(authorization.ends_with(&expected), "{authorization}");
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (unix_seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_369_353_600, "20130524T000000Z"),
            (1_795_780_805, "20261127T120005Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(SigningTime::new(unix_seconds).text(), text);
        }
    }

    #[test]
    fn a_key_is_for_one_day_and_region() {
        let key = key();
        assert!(key.is_for(SigningTime::new(1_369_353_600 + 86_399), "us-east-1"));
        assert!(!key.is_for(SigningTime::new(1_369_353_600 + 86_400), "us-east-1"));
        assert!(!key.is_for(TIME, "eu-west-1"));
    }
}
