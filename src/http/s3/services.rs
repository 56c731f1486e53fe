//! The services that provide access keys: the token service of AWS (web identity), the endpoint of a container,
//! and the metadata service of the machine. What they answer is limited in size and time.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder};
use rustix::fs::OFlags;
use url::Url;

use super::key_response;
use super::key_source::{AccessKey, AccessKeyError, AccessKeySource, ContainerToken, WebIdentity};
use super::keys::AccessKeys;
use super::signer::BucketSigner;
use crate::format::s3_location::encoded_parameter;
use crate::format::secret::Secret;
use crate::http::error::{BucketError, HttpErrorKind};
use crate::http::net::library_client::{self, body_failure};
use crate::http::net::runtime::ConnectionSetup;
use crate::http::net::timeout::timeout;
use crate::http::options::{Options, Timeouts};

/// Makes sure that `signer` has a valid key, if there is any.
///
/// # Errors
/// The service does not provide one.
pub(in crate::http) async fn prepare(
    signer: &BucketSigner,
    setup: &ConnectionSetup,
    options: &Options,
) -> Result<(), HttpErrorKind> {
    let renewed = renew(signer.keys(), signer.now(), setup, options).await;
    renewed.map_err(|error| {
        let error = BucketError::NoAccessKeys(Arc::new(error));
        HttpErrorKind::Bucket(Box::new(error))
    })
}

async fn renew(
    keys: &AccessKeys,
    now: u64,
    setup: &ConnectionSetup,
    options: &Options,
) -> Result<(), AccessKeyError> {
    if keys.is_ready(now)? {
        return Ok(());
    }

    // Another task may have requested one meanwhile.
    let _reserved = keys.reserve().await;
    if keys.is_ready(now)? {
        return Ok(());
    }
    keys.set(request_key(keys.source(), setup, options).await, now)
}

/// Requests a key from `source`; none: it has none, and requests are not signed.
async fn request_key(
    source: &AccessKeySource,
    setup: &ConnectionSetup,
    options: &Options,
) -> Result<Option<AccessKey>, AccessKeyError> {
    match source {
        AccessKeySource::Anonymous => Ok(None),
        AccessKeySource::Fixed(key) => Ok(Some(key.clone())),
        AccessKeySource::WebIdentity(identity) => {
            web_identity_key(identity, setup, options).await.map(Some)
        }
        AccessKeySource::Container { url, token } => {
            container_key(url, token, setup, options).await.map(Some)
        }
        AccessKeySource::InstanceMetadata { endpoint } => {
            instance_key(endpoint, setup, options).await
        }
    }
}

/// Exchanges the token in a file for a key.
async fn web_identity_key(
    identity: &WebIdentity,
    setup: &ConnectionSetup,
    options: &Options,
) -> Result<AccessKey, AccessKeyError> {
    const SERVICE: &str = "the token service";
    let token = read_token(&identity.token_file)?;
    let parameters = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", &identity.role),
        ("RoleSessionName", &identity.session_name),
        ("WebIdentityToken", token.expose()),
    ];
    let parameters = parameters.map(|(name, value)| format!("{name}={}", encoded_parameter(value)));

    let client = setup.http_client(&identity.endpoint, SERVICE_TIMEOUT, options);
    let client = client.map_err(|error| unavailable(SERVICE, error.kind().clone()))?;
    let request = client
        .post(identity.endpoint.clone())
        .header("content-type", "application/x-www-form-urlencoded")
        .body(parameters.join("&"));
    let (status, body) = exchange(SERVICE, request, SERVICE_TIMEOUT).await?;
    let key = key_response::of_token_service(status, &body);
    key.map_err(|cause| AccessKeyError::Response {
        service: SERVICE,
        cause,
    })
}

/// Requests a key from the endpoint of a container.
async fn container_key(
    url: &Url,
    token: &ContainerToken,
    setup: &ConnectionSetup,
    options: &Options,
) -> Result<AccessKey, AccessKeyError> {
    const SERVICE: &str = "the service for containers";
    let mut request = direct_client(SERVICE, setup, options)?.get(url.clone());
    let token = match token {
        ContainerToken::Absent => None,
        ContainerToken::Fixed(token) => Some(token.clone()),
        ContainerToken::File(path) => Some(read_token(path)?),
    };
    if let Some(token) = token {
        request = request.header("authorization", token.expose());
    }
    let (status, body) = exchange(SERVICE, request, SERVICE_TIMEOUT).await?;
    let key = key_response::of_metadata(status, &body);
    key.map_err(|cause| AccessKeyError::Response {
        service: SERVICE,
        cause,
    })
}

/// Requests a key from the metadata service, if there is one and the machine has a role.
async fn instance_key(
    endpoint: &Url,
    setup: &ConnectionSetup,
    options: &Options,
) -> Result<Option<AccessKey>, AccessKeyError> {
    const SERVICE: &str = "the metadata service of the machine";
    const TOKEN_LIFETIME: &str = "21600";
    let client = direct_client(SERVICE, setup, options)?;
    let [token_url, roles_url] = ["api/token", "meta-data/iam/security-credentials/"]
        .map(|path| with_path(endpoint, &format!("/latest/{path}")));

    let request = client
        .put(token_url)
        .header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_LIFETIME);
    let Ok((200, token)) = exchange(SERVICE, request, METADATA_TIMEOUT).await else {
        return Ok(None);
    };
    let Ok(token) = String::from_utf8(token) else {
        return Ok(None);
    };

    let request = with_metadata_token(&client, roles_url.clone(), token.trim());
    let (status, roles) = exchange(SERVICE, request, METADATA_TIMEOUT).await?;
    let roles = String::from_utf8_lossy(&roles);
    let role = roles.lines().next().unwrap_or_default().trim();
    if status == 404 || role.is_empty() {
        return Ok(None);
    }

    let role_url = with_path(
        endpoint,
        &format!("{}{}", roles_url.path(), encoded_parameter(role)),
    );
    let request = with_metadata_token(&client, role_url, token.trim());
    let (status, body) = exchange(SERVICE, request, METADATA_TIMEOUT).await?;
    let key = key_response::of_metadata(status, &body);
    key.map(Some).map_err(|cause| AccessKeyError::Response {
        service: SERVICE,
        cause,
    })
}

fn with_metadata_token(client: &Client, url: Url, token: &str) -> RequestBuilder {
    client.get(url).header("x-aws-ec2-metadata-token", token)
}

fn with_path(endpoint: &Url, path: &str) -> Url {
    let mut url = endpoint.clone();
    url.set_path(path);
    url
}

/// A client that uses no proxy: the services of a machine answer to it alone.
fn direct_client(
    service: &'static str,
    setup: &ConnectionSetup,
    options: &Options,
) -> Result<Client, AccessKeyError> {
    let tls = setup.tls(options);
    let tls = tls.map_err(|error| unavailable(service, error.kind().clone()))?;
    let client = library_client::direct(options, tls);
    client.map_err(|error| unavailable(service, error.kind().clone()))
}

/// Sends `request`; the status and the body of the response.
async fn exchange(
    service: &'static str,
    request: RequestBuilder,
    limit: Duration,
) -> Result<(u16, Vec<u8>), AccessKeyError> {
    let timeouts = Timeouts {
        connect: limit,
        stall: limit,
    };
    let exchange = async {
        let response = request.send().await;
        let mut response = response.map_err(|error| library_client::failure(error, timeouts))?;
        let mut body = Vec::new();
        while let Some(bytes) = response
            .chunk()
            .await
            .map_err(|error| body_failure(error, timeouts))?
        {
            if body.len() + bytes.len() > RESPONSE_MAX_BYTES {
                return Err(HttpErrorKind::TooLarge {
                    limit_bytes: RESPONSE_MAX_BYTES as u64,
                });
            }
            body.extend_from_slice(&bytes);
        }
        Ok((response.status().as_u16(), body))
    };
    let outcome = timeout(limit, exchange).await;
    let outcome = outcome.unwrap_or(Err(HttpErrorKind::Stalled(limit)));
    outcome.map_err(|kind| unavailable(service, kind))
}

fn unavailable(service: &'static str, kind: HttpErrorKind) -> AccessKeyError {
    AccessKeyError::Service {
        service,
        cause: Arc::new(kind),
    }
}

/// Reads the token in a file, without what is around it.
fn read_token(path: &Path) -> Result<Secret, AccessKeyError> {
    let text = read_small_file(path).map_err(|cause| AccessKeyError::TokenFile {
        path: path.to_owned(),
        cause: Arc::new(cause),
    })?;
    Ok(Secret::new(text.trim()))
}

/// The text in a file. Others made it, so that it may be anything; nothing else goes on meanwhile.
fn read_small_file(path: &Path) -> io::Result<String> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }

    let mut text = String::new();
    file.take(RESPONSE_MAX_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    if text.len() > RESPONSE_MAX_BYTES {
        return Err(io::Error::other("it is too large for a token"));
    }
    Ok(text)
}

/// What a service may take to answer.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the metadata service may take: on most machines there is none.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest response of a service, and the largest file of a token.
const RESPONSE_MAX_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_in_small_files() {
        let dir = tempfile::tempdir().unwrap();
        let [token, large, fifo] = ["token", "large", "fifo"].map(|name| dir.path().join(name));
        std::fs::write(&token, " a b\n").unwrap();
        assert_eq!(read_token(&token).unwrap(), Secret::new("a b"));

        std::fs::write(&large, vec![b'x'; RESPONSE_MAX_BYTES + 1]).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        for path in [&large, &fifo, &dir.path().join("absent"), dir.path()] {
            read_token(path).unwrap_err();
        }
    }
}
