//! Settings files in the documents are settings files: the program reads each `toml` block.

use super::blocks::all_blocks;
use crate::support::Sandbox;
use crate::support::sandbox::run;
use crate::support::tls::Authority;

#[test]
fn settings_files_are_read() {
    let sandbox = Sandbox::new();
    let (certificate, key) = Authority::new().sign("client");
    let mut count = 0;
    for block in all_blocks().iter().filter(|block| block.kind == "toml") {
        // The files that it names exist in the directory of the settings file.
        let text = block.text.replace("/etc/subst/", "");
        for name in text.split('"').skip(1).step_by(2) {
            let is_file = [".token", ".headers", ".pem", ".key"]
                .iter()
                .any(|ending| name.ends_with(ending));
            if is_file || name == "token" {
                let contents = match name.rsplit('.').next() {
                    Some("headers") => "Name: x\n".to_owned(),
                    Some("pem") => certificate.pem(),
                    Some("key") => key.serialize_pem(),
                    _ => "x\n".to_owned(),
                };
                sandbox.write_safely(name, &contents);
            }
        }
        sandbox.write_safely("config.toml", &text);
        let run = run(sandbox.bare(&["cache", "info"]));
        assert!(
            run.code == Some(0) && !run.stderr.contains("config.toml"),
            "{}: {}",
            block.place(),
            run.stderr
        );
        count += 1;
    }
    assert!(count > 2, "no settings files were found");
}
