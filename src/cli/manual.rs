//! The manual pages: one for each command, from the definition of the command line, and one for
//! settings files, from the table of settings.

mod commands;
mod page;
mod settings_file;

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::cli::process::mode_of_caller_files;
use crate::no_follow;

use page::ManualPage;

/// Writes all pages to `directory`, which is created if need be. Links in it are replaced, not followed.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write_pages(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let opened = no_follow::open_directory(directory, directory)?;
    for page in pages() {
        let name = page.file_name();
        no_follow::replace_file(
            opened.as_fd(),
            name.as_ref(),
            page.to_roff().as_bytes(),
            mode_of_caller_files(),
        )?;
    }
    Ok(())
}

fn pages() -> Vec<ManualPage> {
    let mut pages = commands::pages();
    pages.push(settings_file::page());
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_with_the_name_of_a_page_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (target, pages) = (dir.path().join("precious"), dir.path().join("pages"));
        std::fs::write(&target, "precious").unwrap();
        std::fs::create_dir(&pages).unwrap();
        std::os::unix::fs::symlink(&target, pages.join("subst.1")).unwrap();

        write_pages(&pages).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
        let page = std::fs::read_to_string(pages.join("subst.1")).unwrap();
        assert!(page.contains(".TH"), "{page}");
    }

    #[test]
    fn every_command_has_a_page_and_every_reference_leads_to_one() {
        let pages = pages();
        let names: Vec<String> = pages.iter().map(ManualPage::file_name).collect();
        for name in [
            "subst.1",
            "subst-fetch.1",
            "subst-cache-flush.1",
            "subst.toml.5",
        ] {
            assert!(names.iter().any(|it| it == name), "{name}: {names:?}");
        }
        assert!(
            !names
                .iter()
                .any(|name| name.contains("help") || name.contains("-man"))
        );

        for page in &pages {
            let text = page.to_roff().replace("\\-", "-").replace("\\fR", "");
            let words = text.split(|c: char| c.is_whitespace() || c == ',');
            for word in words.filter(|word| word.starts_with("\\fBsubst")) {
                let Some((name, section)) = word.split_once('(') else {
                    continue;
                };
                let name = name.trim_start_matches("\\fB");
                let file = format!("{name}.{}", section.trim_end_matches(')'));
                assert!(names.contains(&file), "{file} in {}", page.file_name());
            }
        }
    }
}
