//! The help of each command besides its arguments: the shared options it uses, examples, exit status.

mod entry;
mod mirror;

use super::exit::Exit;
use super::settings::OptionGroup;

pub(crate) use entry::CommandHelp;
use entry::{LOCAL_EXITS, example};
use mirror::{MIRROR, MIRROR_GC, MIRROR_VERIFY};

/// The options of commands about the lookup cache.
const CACHE_GROUPS: &[OptionGroup] = &[OptionGroup::Store, OptionGroup::Json, OptionGroup::General];

/// The help of every command.
pub(crate) const COMMANDS: &[CommandHelp] = &[
    CommandHelp {
        path: &[],
        groups: &[],
        examples: &[
            example(
                "subst query --closure /gnu/store/...-hello-2.12.2",
                "Show where an item and all that it refers to are available",
            ),
            example(
                "subst fetch --root DIR /gnu/store/...-hello-2.12.2",
                "Fetch them into a store of your own",
            ),
            example("subst help fetch", "Show all options of a command"),
        ],
        exits: Exit::ALL,
        notes: "When several of 1, 3, 4 and 5 apply, the exit status is the largest.\n\n\
            Settings are also read from /etc/subst/config.toml, $XDG_CONFIG_HOME/subst/config.toml \
            and SUBST_* variables; `subst config show` prints them all. SUBST_LOG and SUBST_LOG_FILE \
            control diagnostics.",
    },
    CommandHelp {
        path: &["fetch"],
        groups: OptionGroup::ALL,
        examples: &[
            example(
                "subst fetch /gnu/store/...-hello-2.12.2",
                "Fetch an item and all that it refers to into the system's store",
            ),
            example(
                "subst fetch --root DIR /gnu/store/...-hello-2.12.2",
                "The same for a store of your own, without privileges",
            ),
            example(
                "subst fetch --dry-run /gnu/store/...-hello-2.12.2",
                "Show what would be fetched",
            ),
            example(
                "subst fetch --output hello /gnu/store/...-hello-2.12.2",
                "Unpack one item to ./hello",
            ),
            example(
                "guix build --no-grafts --dry-run hello 2>&1 | grep -o '/gnu/store/[^ ]*' | \
                 grep -v '[.]drv$' | subst fetch -",
                "Read names from standard input",
            ),
        ],
        exits: Exit::ALL,
        notes: "",
    },
    CommandHelp {
        path: &["query"],
        groups: &[
            OptionGroup::Store,
            OptionGroup::Trust,
            OptionGroup::Servers,
            OptionGroup::Lookups,
            OptionGroup::Progress,
            OptionGroup::Json,
            OptionGroup::General,
        ],
        examples: &[
            example(
                "subst query --closure /gnu/store/...-hello-2.12.2",
                "Show where an item and all that it refers to are available",
            ),
            example(
                "subst query --closure --cache-miss-report /gnu/store/...-hello-2.12.2",
                "Report what would be built, and why",
            ),
        ],
        exits: Exit::ALL,
        notes: "",
    },
    CommandHelp {
        path: &["run"],
        groups: &[OptionGroup::Store, OptionGroup::General],
        examples: &[
            example(
                "subst run --root DIR /gnu/store/...-hello-2.12.2",
                "Run the program of an item that was fetched into a store of your own",
            ),
            example(
                "subst run --root DIR /gnu/store/...-coreutils-9.1 ls -- -l /tmp",
                "Run one of several programs, with arguments",
            ),
        ],
        exits: &[Exit::Done, Exit::NotAvailable, Exit::Usage, Exit::Local],
        notes: "The program takes the place of subst: its exit status is that of the command, and it gets \
            all signals. docs/guides/ci.md describes what to do where user namespaces are not allowed.",
    },
    CommandHelp {
        path: &["challenge"],
        groups: &[
            OptionGroup::Store,
            OptionGroup::Servers,
            OptionGroup::Lookups,
            OptionGroup::Progress,
            OptionGroup::Json,
            OptionGroup::General,
        ],
        examples: &[
            example(
                "subst challenge /gnu/store/...-hello-2.12.2",
                "Compare the build in the store with those of all servers",
            ),
            example(
                "subst challenge --diff /gnu/store/...-hello-2.12.2",
                "Name the files in which they differ",
            ),
            example(
                "subst challenge --all-valid",
                "Compare everything that was built on this machine",
            ),
        ],
        exits: Exit::ALL,
        notes: "0: all match. 1: an item is inconclusive: no server has it, or only one server and this \
            machine did not build it. 3: something differs, whatever else is found. Signatures are not verified.",
    },
    CommandHelp {
        path: &["endorse"],
        groups: &[
            OptionGroup::Store,
            OptionGroup::Progress,
            OptionGroup::Json,
            OptionGroup::General,
        ],
        examples: &[
            example(
                "subst endorse --key signing-key.sec --nars https://substitutes.example.org --to narinfos \
                 /gnu/store/...-hello-2.12.2",
                "Sign an item that this machine has built, and that a server has as well",
            ),
            example(
                "subst endorse --withdraw --to narinfos /gnu/store/...-hello-2.12.2",
                "Remove the signed narinfo of an item again",
            ),
        ],
        exits: Exit::ALL,
        notes: "Any web server can serve the directory. Its URL comes before that of the server with the nars in the \
            list of substitute servers, and its key is in DIR/signing-key.pub (DIR/public-key for Nix).",
    },
    MIRROR,
    MIRROR_VERIFY,
    MIRROR_GC,
    CommandHelp {
        path: &["substitute"],
        groups: &[
            OptionGroup::Trust,
            OptionGroup::Servers,
            OptionGroup::Lookups,
            OptionGroup::Downloads,
            OptionGroup::General,
        ],
        examples: &[example(
            "echo 'have /gnu/store/...-hello-2.12.2' | subst substitute --query",
            "Send a request as guix-daemon does",
        )],
        exits: LOCAL_EXITS,
        notes: "guix-daemon starts this command; docs/guides/guix-daemon.md describes how to set it up.",
    },
    CommandHelp {
        path: &["gc"],
        groups: CACHE_GROUPS,
        examples: &[
            example("subst gc --root DIR --dry-run", "Show what keeps each item"),
            example("subst gc --root DIR --max-size 2G", "Delete the oldest"),
        ],
        exits: &[Exit::Done, Exit::Usage, Exit::Local, Exit::Interrupted],
        notes: "For stores below --root only. `subst fetch --gc-root NAME` keeps an item.",
    },
    CommandHelp {
        path: &["roots"],
        groups: CACHE_GROUPS,
        examples: &[example(
            "subst roots --root DIR",
            "Show what each root keeps",
        )],
        exits: &[Exit::Done, Exit::NotAvailable, Exit::Usage, Exit::Local],
        notes: "",
    },
    CommandHelp {
        path: &["cache"],
        groups: CACHE_GROUPS,
        examples: &[
            example("subst cache info", "Show the size of the cache"),
            example(
                "subst cache flush --server https://ci.guix.gnu.org",
                "Ask a server again",
            ),
        ],
        exits: LOCAL_EXITS,
        notes: "",
    },
    CommandHelp {
        path: &["cache", "info"],
        groups: &[],
        examples: &[example("subst cache info --json", "Show numbers as JSON")],
        exits: LOCAL_EXITS,
        notes: "",
    },
    CommandHelp {
        path: &["cache", "list"],
        groups: &[],
        examples: &[example("subst cache list", "List all entries")],
        exits: LOCAL_EXITS,
        notes: "",
    },
    CommandHelp {
        path: &["cache", "flush"],
        groups: &[],
        examples: &[
            example("subst cache flush", "Remove all entries"),
            example(
                "subst cache flush --server https://ci.guix.gnu.org",
                "Remove the entries of one server",
            ),
            example(
                "subst cache flush /gnu/store/...-hello-2.12.2",
                "Remove the entries of one item",
            ),
        ],
        exits: LOCAL_EXITS,
        notes: "",
    },
    CommandHelp {
        path: &["cache", "prune"],
        groups: &[],
        examples: &[example("subst cache prune", "Remove what has expired")],
        exits: LOCAL_EXITS,
        notes: "",
    },
    CommandHelp {
        path: &["cache", "clear"],
        groups: &[],
        examples: &[example("subst cache clear", "Remove everything")],
        exits: LOCAL_EXITS,
        notes: "",
    },
    CommandHelp {
        path: &["servers"],
        groups: &[
            OptionGroup::Store,
            OptionGroup::Servers,
            OptionGroup::Json,
            OptionGroup::General,
        ],
        examples: &[
            example("subst servers", "Show the status of all servers in use"),
            example(
                "subst servers --substitute-urls https://substitutes.example.org",
                "Show the status of one server",
            ),
        ],
        exits: &[
            Exit::Done,
            Exit::Usage,
            Exit::Network,
            Exit::Local,
            Exit::Interrupted,
        ],
        notes: "",
    },
    CommandHelp {
        path: &["verify"],
        groups: OptionGroup::ALL,
        examples: &[
            example("subst verify --root DIR", "Verify all items of a store"),
            example(
                "subst verify --repair --root DIR",
                "Fetch what is damaged or missing again",
            ),
            example(
                "subst verify /gnu/store/...-hello-2.12.2",
                "Verify one item of the system's store",
            ),
        ],
        exits: Exit::ALL,
        notes: "The exit status is 3 when contents, attributes or trees are wrong, 5 when the database \
            is damaged or something cannot be read, and 1 when a named item is not valid. With --repair, faults that were repaired do not count.",
    },
    CommandHelp {
        path: &["authorize"],
        groups: &[
            OptionGroup::Store,
            OptionGroup::Trust,
            OptionGroup::Json,
            OptionGroup::General,
        ],
        examples: &[
            example(
                "subst authorize signing-key.pub",
                "Trust the key in a file, for the system's store",
            ),
            example(
                "curl https://substitutes.example.org/signing-key.pub | subst authorize --root DIR",
                "Trust a key from standard input, for a store of your own",
            ),
            example(
                "subst authorize https://substitutes.example.org",
                "Show the key of a server, and trust it if you agree",
            ),
            example("subst authorize --list", "List the trusted keys"),
            example(
                "subst authorize --remove 8D156F295D24B0D9",
                "Stop trusting a key",
            ),
        ],
        exits: &[
            Exit::Done,
            Exit::Usage,
            Exit::Refused,
            Exit::Network,
            Exit::Local,
        ],
        notes: "",
    },
    CommandHelp {
        path: &["config"],
        groups: OptionGroup::ALL,
        examples: &[
            example("subst config show", "Show where each setting was set"),
            example("subst config check", "Find all errors in settings"),
        ],
        exits: &[Exit::Done, Exit::Usage],
        notes: "",
    },
    CommandHelp {
        path: &["config", "show"],
        groups: &[],
        examples: &[
            example("subst config show", "Show every setting as a settings file"),
            example(
                "subst config show --json --jobs 8",
                "Show settings as JSON, with an option",
            ),
        ],
        exits: &[Exit::Done, Exit::Usage],
        notes: "",
    },
    CommandHelp {
        path: &["config", "check"],
        groups: &[],
        examples: &[
            example("subst config check", "Check the settings in use"),
            example(
                "subst config check --config new.toml",
                "Check a settings file before it is installed",
            ),
        ],
        exits: &[Exit::Done, Exit::Usage],
        notes: "",
    },
    CommandHelp {
        path: &["completions"],
        groups: &[],
        examples: &[
            example(
                "subst completions bash > ~/.local/share/bash-completion/completions/subst",
                "Install them for bash",
            ),
            example(
                "subst completions zsh > /usr/local/share/zsh/site-functions/_subst",
                "Install them for zsh",
            ),
            example(
                "subst completions fish > ~/.config/fish/completions/subst.fish",
                "Install them for fish",
            ),
        ],
        exits: &[Exit::Done, Exit::Usage],
        notes: "",
    },
];
