//! Access keys in the responses of services. Pure.

use serde::Deserialize;

use super::key_source::{AccessKey, KeyResponseError};
use super::xml::element;
use crate::format::escape::clip;
use crate::format::secret::Secret;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetadataKey {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

/// The key in a response of a metadata service, or of one for containers.
pub(super) fn of_metadata(status: u16, body: &[u8]) -> Result<AccessKey, KeyResponseError> {
    if status != 200 {
        let code = String::new();
        return Err(KeyResponseError::Status { status, code });
    }
    let key: MetadataKey = serde_json::from_slice(body).map_err(|_| KeyResponseError::Malformed)?;
    checked(AccessKey {
        id: key.access_key_id,
        secret: Secret::new(key.secret_access_key),
        session_token: key.token.filter(|it| !it.is_empty()).map(Secret::new),
        expires: key.expiration.as_deref().and_then(unix_time),
    })
}

/// The key in a response of the token service.
pub(super) fn of_token_service(status: u16, body: &[u8]) -> Result<AccessKey, KeyResponseError> {
    let text = String::from_utf8_lossy(body);
    if status != 200 {
        let code = element(&text, "Code").unwrap_or_default();
        let code = clip(&code, CODE_MAX_BYTES).to_owned();
        return Err(KeyResponseError::Status { status, code });
    }
    let [id, secret, token] = ["AccessKeyId", "SecretAccessKey", "SessionToken"]
        .map(|name| element(&text, name).ok_or(KeyResponseError::Malformed));
    checked(AccessKey {
        id: id?,
        secret: Secret::new(secret?),
        session_token: Some(Secret::new(token?)),
        expires: element(&text, "Expiration").as_deref().and_then(unix_time),
    })
}

/// `key` if its parts can be header fields.
fn checked(key: AccessKey) -> Result<AccessKey, KeyResponseError> {
    if is_usable(&key) {
        Ok(key)
    } else {
        Err(KeyResponseError::Malformed)
    }
}

/// Whether the parts of `key` can be sent in header fields.
#[must_use]
pub(crate) fn is_usable(key: &AccessKey) -> bool {
    let token = key.session_token.as_ref();
    is_word(&key.id)
        && !key.id.contains([',', '/'])
        && is_word(key.secret.expose())
        && token.is_none_or(|token| is_word(token.expose()))
}

/// Whether `text` has one character or more, and all of them can be seen.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A time such as `2026-11-27T12:00:05Z`, in seconds since 1970.
#[must_use]
pub(crate) fn unix_time(text: &str) -> Option<u64> {
    let (date, time) = text.trim().split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let time = time
        .strip_suffix('Z')
        .or_else(|| time.strip_suffix("+00:00"))?;
    let (time, _) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let is_valid = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !is_valid {
        return None;
    }

    // The algorithm of Howard Hinnant's `days_from_civil`: years begin in March, in eras of 400 years.
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// What is kept of the code of an error.
const CODE_MAX_BYTES: usize = 64;

/// A usable key in any body can be sent in a header field.
#[cfg(fuzzing)]
pub(crate) fn check_key_response(body: &[u8]) {
    for key in [of_metadata(200, body), of_token_service(200, body)] {
        if let Ok(key) = key {
            assert!(is_usable(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"x\">\n<Credentials>\
        <SessionToken>a&amp;lt;=</SessionToken><SecretAccessKey>s/x</SecretAccessKey>\
        <Expiration>2026-11-27T12:00:05Z</Expiration><AccessKeyId>ASIA</AccessKeyId>\
        </Credentials></AssumeRoleWithWebIdentityResponse>";

    #[test]
    fn keys_of_the_token_service() {
        let key = of_token_service(200, XML.as_bytes()).unwrap();
        assert_eq!((key.id.as_str(), key.secret.expose()), ("ASIA", "s/x"));
        assert_eq!(key.session_token, Some(Secret::new("a&lt;=")));
        assert_eq!(key.expires, Some(1_795_780_805));
        let error = of_token_service(403, b"<Error><Code>AccessDenied</Code></Error>");
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "it answered with status 403 (AccessDenied)");
        for xml in [
            "",
            "<html>",
            &XML.replace("ASIA", "AS\r\nIA"),
            &XML.replace("s/x", ""),
        ] {
            let error = of_token_service(200, xml.as_bytes()).unwrap_err();
            assert_eq!(error, KeyResponseError::Malformed, "{xml}");
        }
    }

    #[test]
    fn keys_of_metadata_services() {
        let json = br#"{"Code":"Success","AccessKeyId":"A","SecretAccessKey":"s","Token":"t",
            "Expiration":"2026-11-27T12:00:05Z"}"#;
        let key = of_metadata(200, json).unwrap();
        assert_eq!((key.id.as_str(), key.expires), ("A", Some(1_795_780_805)));
        assert!(of_metadata(200, b"{}").is_err());
        assert!(of_metadata(500, json).is_err());
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2026-11-27T12:00:05.123Z", Some(1_795_780_805)),
            ("2026-11-27T12:00:05+00:00", Some(1_795_780_805)),
            ("2026-13-27T12:00:05Z", None),
            ("2026-11-27", None),
            ("99999999999-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(unix_time(text), expected, "{text}");
        }
    }
}
