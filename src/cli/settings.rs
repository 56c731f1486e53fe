//! Settings: one table declares them all ([`table`]), every source is read by it, and the first
//! source that has a setting decides ([`effective`]). Each error names where the value was set.
//!
//! What comes out is what the work needs; nothing below this layer knows where a setting came from
//! or that there are options at all.

mod access_keys;
mod credentials;
mod effective;
mod error;
mod file;
mod file_table;
mod findings;
mod inspection;
mod invocation;
mod network;
mod option_group;
mod options;
mod origin;
mod path;
mod quantity;
mod rate;
mod retries;
mod secret_file;
mod server_table;
mod servers;
mod shown;
mod sources;
mod spec;
mod stores;
mod table;
mod table_names;
mod trust_table;
mod value;

pub(crate) use effective::Settings;
pub(crate) use error::SettingsError;
pub(crate) use findings::SettingsFindings;
pub(crate) use inspection::{InspectedSetting, SettingsInspection, inspect};
pub(crate) use invocation::absolute;
pub(crate) use option_group::OptionGroup;
pub(crate) use options::{CommonOptions, option_group};
pub(crate) use origin::Origin;
pub(crate) use server_table::SERVER_TABLE_HELP;
pub(crate) use servers::parse_servers;
pub(crate) use sources::early_progress;
pub(crate) use spec::SettingSpec;
pub(crate) use stores::StoreKind;
pub(crate) use table::SETTINGS;
pub(crate) use trust_table::{PRINCIPAL_TABLE_HELP, RULE_TABLE_HELP, TRUST_TABLE_HELP};
pub(crate) use value::{ProgressMode, SandboxMode, parse_bytes, parse_days, parse_period};
