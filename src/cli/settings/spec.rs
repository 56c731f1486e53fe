//! What the table of settings has in each row.

use super::option_group::OptionGroup;

/// A row of the table: everything about a setting but its type.
#[derive(Debug)]
pub(crate) struct SettingSpec {
    /// Its name in settings files.
    pub(crate) key: &'static str,
    /// Its long option, such as `--jobs`.
    pub(crate) option: Option<&'static str>,
    /// Its short option, such as `j`.
    pub(crate) short: Option<char>,
    /// What stands for the option's value in help; nothing for a flag.
    pub(crate) value_name: &'static str,
    /// Its environment variable.
    pub(crate) variable: Option<&'static str>,
    /// The variable of other programs that counts when `variable` is not set.
    pub(crate) other_variable: Option<&'static str>,
    /// Its value when nothing sets it, as the option or the variable would be written.
    pub(crate) default: Option<&'static str>,
    /// What long help and the documentation say of the default, when the value does not say it.
    pub(crate) default_note: &'static str,
    /// What its option is about.
    pub(crate) group: OptionGroup,
    /// One line of help.
    pub(crate) help: &'static str,
    /// What long help and the documentation say besides, in full sentences.
    pub(crate) details: &'static str,
}

impl SettingSpec {
    /// A setting that cannot be set; rows are made from it.
    pub(crate) const EMPTY: Self = Self {
        key: "",
        option: None,
        short: None,
        value_name: "",
        variable: None,
        other_variable: None,
        default: None,
        default_note: "",
        group: OptionGroup::General,
        help: "",
        details: "",
    };

    /// The help of the option, with default and variable in brackets.
    pub(crate) fn option_help(&self) -> String {
        let mut text = self.help.to_owned();
        if let Some(default) = self.default {
            text.push_str(&format!(" [default: {default}]"));
        }
        if let Some(variable) = self.variable {
            text.push_str(&format!(" [env: {variable}]"));
        }
        text
    }

    /// The same with the details.
    pub(crate) fn long_option_help(&self) -> String {
        let mut paragraphs = vec![self.help.to_owned()];
        if !self.details.is_empty() {
            paragraphs.push(self.details.to_owned());
        }
        let default = match self.default_note {
            "" => self.default.unwrap_or_default(),
            note => note,
        };
        let variable = self.variable.unwrap_or_default();
        paragraphs.push(format!("[default: {default}]\n[env: {variable}]"));
        paragraphs.join("\n\n")
    }
}
