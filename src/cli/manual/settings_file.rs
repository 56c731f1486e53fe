//! The page of settings files.

use roff::{bold, italic, roman};

use crate::cli::settings::{
    PRINCIPAL_TABLE_HELP, RULE_TABLE_HELP, SERVER_TABLE_HELP, SETTINGS, SettingSpec,
    TRUST_TABLE_HELP,
};

use super::page::ManualPage;

/// A settings file that shows each form of a value.
const EXAMPLE: &str = "\
substitute-urls = [\"https://substitutes.example.org\"]
jobs = 8
stall-timeout = \"30s\"
limit-rate = \"5M\"
discover = true

[[server]]
url = \"https://substitutes.example.org\"
connect-timeout = \"2s\"
token-file = \"token\"

[trust]
need = 2

[[trust.principal]]
name = \"ci\"
keys = [\"guix:8D156F295D24B0D9\"]

[[trust.principal]]
name = \"bordeaux\"
keys = [\"guix:7D602902D3A2DBB8\"]
expires = 2030-12-31

[[trust.rule]]
match = \"linux-libre-*\"
need = 1";

/// The page `subst.toml(5)`.
pub(super) fn page() -> ManualPage {
    let mut page = ManualPage::new("subst.toml", "5", "settings files of subst");
    page.section("DESCRIPTION");
    page.text(
        "`subst` reads settings from TOML files: the system's, `/etc/subst/config.toml`, and the \
         user's, `$XDG_CONFIG_HOME/subst/config.toml` (`~/.config` if the variable is not set). A \
         setting is taken from the first of these that has it: an option, an environment variable, \
         the user's file, the system's file, the default. `--config FILE` or `SUBST_CONFIG` replaces \
         both files.",
    );
    page.paragraph();
    page.text(
        "A list is an array, or a text separated by blanks. A duration is a text with a unit \
         (`300ms`, `5s`, `2m`, `1h`), or a number of seconds. A size is a text with a binary unit \
         (`500K`, `5M`, `2G`), or a number of bytes. A switch is `true` or `false`. A path is \
         relative to the directory of the file, and `~/` at its beginning is the home directory. An unknown name \
         or an invalid value is an error. `subst config check` reports all errors, and `subst config \
         show` shows where each setting was set.",
    );
    page.paragraph();
    page.text(
        "A file that other users may change is ignored, with a warning, unless `--config` or \
         `SUBST_CONFIG` names it.",
    );

    page.section("SETTINGS");
    for (row, _) in SETTINGS {
        add_setting(&mut page, row);
    }

    page.section("[[server]] TABLES");
    page.text(
        "Each of these tables is about one server, and everything below its URL. It does not add the \
         server to `substitute-urls`. The user's tables replace the system's.",
    );
    for (name, help) in SERVER_TABLE_HELP {
        page.term(vec![bold(*name)]);
        page.text(help);
    }

    add_trust_table(&mut page);
    page.section("EXAMPLES");
    page.code(EXAMPLE);
    page.see_also(&["subst.1".to_owned(), "subst-config.1".to_owned()]);
    page
}

fn add_trust_table(page: &mut ManualPage) {
    page.section("[trust] TABLE");
    page.text(
        "It says how many principals have to agree about an item before it is used, and who they are. A \
         principal has one vote, with a valid signature of one of its keys that is authorized. The user's \
         table replaces the system's.",
    );
    for (list, help) in [
        ("", TRUST_TABLE_HELP),
        ("principal.", PRINCIPAL_TABLE_HELP),
        ("rule.", RULE_TABLE_HELP),
    ] {
        for (name, help) in help {
            page.term(vec![roman(list), bold(*name)]);
            page.text(help);
        }
    }
}

fn add_setting(page: &mut ManualPage, row: &SettingSpec) {
    let mut term = vec![bold(row.key)];
    if !row.value_name.is_empty() {
        term.extend([roman(" = "), italic(row.value_name)]);
    }
    page.term(term);

    page.text(&format!("{}. {}", row.help, row.details));
    let default = match (row.default, row.default_note) {
        (Some(default), "") => format!("`{default}`"),
        (_, note) => note.to_owned(),
    };
    let mut origins = vec![format!("Default: {default}.")];
    if let Some(option) = row.option {
        origins.push(format!("Option: `{option}`."));
    }
    if let Some(variable) = row.variable {
        origins.push(format!("Variable: `{variable}`."));
    }
    page.text(&origins.join(" "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_setting_and_a_valid_example() {
        let text = page().to_roff().replace("\\-", "-");
        for (row, _) in SETTINGS {
            assert!(
                text.contains(&format!("\\fB{}\\fR", row.key)),
                "{}",
                row.key
            );
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let example = EXAMPLE.replace("token-file = \"token\"", "");
        std::fs::write(file.path(), example).unwrap();
        let variables = [("SUBST_CONFIG", file.path().to_str().unwrap())];
        let environment = crate::cli::env::Environment::with(variables);
        let inspection = crate::cli::settings::inspect(&Default::default(), &environment);
        assert!(
            inspection.findings.errors.is_empty(),
            "{:?}",
            inspection.findings
        );
    }
}
