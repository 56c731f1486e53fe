//! `file:` servers.

use url::Url;

use crate::format::server_url::ServerUrl;
use crate::http::error::HttpErrorKind;
use crate::http::testing::*;
use crate::http::*;

fn directory() -> (tempfile::TempDir, ServerSpec) {
    let directory = tempfile::tempdir().unwrap();
    let url = Url::from_directory_path(directory.path()).unwrap();
    let spec = ServerSpec::new(ServerUrl::parse(url.as_str()).unwrap());
    (directory, spec)
}

#[test]
fn lookups_in_a_directory() {
    let (directory, spec) = directory();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("nix-cache-info", "StoreDir: /gnu/store\n");
    for n in 0..100 {
        write(
            &format!("{}.narinfo", item(n)),
            &narinfo_text(item(n).as_str()),
        );
    }
    write(&format!("{}.narinfo", item(200)), &"x".repeat(10 << 20));
    std::fs::create_dir(directory.path().join(format!("{}.narinfo", item(201)))).unwrap();
    let mut requested = items(100);
    requested.extend([item(150), item(200), item(201)]);
    let results = look_up(quick(), spec, &requested);
    (0..100).for_each(|n| results.assert_found(item(n)));
    for n in [150, 201] {
        let missing = NarInfoAnswer::Missing {
            status: 0,
            max_age: None,
        };
        assert_eq!(results.answers[&item(n)].as_ref().unwrap(), &missing);
    }
    assert_eq!(results.error(item(200)).class(), HttpErrorClass::Refused);
    let info = results.cache_infos[0].as_ref().unwrap().as_ref().unwrap();
    assert_eq!(info.text, "StoreDir: /gnu/store\n");
}

#[test]
fn nars_in_a_directory() {
    let (directory, spec) = directory();
    let content: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    std::fs::write(directory.path().join("nar"), &content).unwrap();
    let client = Client::new(quick()).unwrap();
    let url = spec.url.nar_url("nar").unwrap();
    let read = |range| {
        let mut body = client
            .nar(NarRequest {
                range,
                ..NarRequest::new(url.clone())
            })
            .unwrap();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next_chunk().unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        assert_eq!(body.content_length(), Some(bytes.len() as u64));
        (body.status(), bytes)
    };
    assert_eq!(read(None), (BodyStatus::Full, content.clone()));
    let whole = 1_000_000;
    for (start, end) in [(5, Some(9)), (999_999, None)] {
        let status = BodyStatus::Partial {
            start: start as u64,
            total: Some(whole as u64),
        };
        let expected = (status, content[start..end.unwrap_or(whole)].to_vec());
        let range = (start as u64, end.map(|end| end as u64));
        assert_eq!(read(Some(range)), expected);
    }
    let beyond = NarRequest {
        range: Some((1_000_001, None)),
        ..NarRequest::new(url.clone())
    };
    assert!(client.nar(beyond).is_err());
    let absent = client
        .nar(NarRequest::new(spec.url.nar_url("absent").unwrap()))
        .unwrap_err();
    assert_eq!(absent.class(), HttpErrorClass::Absent);
    assert_eq!(client.probe(&url).unwrap().length, Some(1_000_000));
}

#[test]
fn a_file_that_shrinks_is_truncated() {
    let (directory, spec) = directory();
    let path = directory.path().join("nar");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let client = Client::new(quick()).unwrap();
    let mut body = client
        .nar(NarRequest::new(spec.url.nar_url("nar").unwrap()))
        .unwrap();
    assert!(body.next_chunk().unwrap().is_some());
    std::fs::write(&path, b"").unwrap();
    let error = body.next_chunk().unwrap_err();
    assert!(matches!(error.kind(), HttpErrorKind::Truncated { .. }));
}
