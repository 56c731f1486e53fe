//! What the table of settings has in each row.

/// A row of the table: everything about a setting but its type.
#[derive(Debug)]
pub(super) struct SettingSpec {
    /// Its name in settings files.
    pub(super) key: &'static str,
    /// Its long option, such as `--jobs`.
    pub(super) option: Option<&'static str>,
    /// Its short option, such as `j`.
    pub(super) short: Option<char>,
    /// What stands for the option's value in help; nothing for a flag.
    pub(super) value_name: &'static str,
    /// Its environment variable.
    pub(super) variable: Option<&'static str>,
    /// The variable of other programs that counts when `variable` is not set.
    pub(super) other_variable: Option<&'static str>,
    /// Its value when nothing sets it, as the option or the variable would be written.
    pub(super) default: Option<&'static str>,
    /// What long help and the documentation say of the default, when the value does not say it.
    pub(super) default_note: &'static str,
    /// One line of help.
    pub(super) help: &'static str,
    /// What long help and the documentation say besides, in full sentences.
    pub(super) details: &'static str,
}

impl SettingSpec {
    /// A setting that cannot be set; rows are made from it.
    pub(super) const EMPTY: Self = Self {
        key: "",
        option: None,
        short: None,
        value_name: "",
        variable: None,
        other_variable: None,
        default: None,
        default_note: "",
        help: "",
        details: "",
    };

    /// The help of the option, with default and variable in brackets.
    pub(super) fn option_help(&self) -> String {
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
    pub(super) fn long_option_help(&self) -> String {
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
