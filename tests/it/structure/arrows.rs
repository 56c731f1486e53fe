//! The arrows between files: which file uses something of which other file.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{Imports, Segments, declared_modules, imports, paths};
use super::source::SourceFile;

/// A use of one file's item by another file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrow {
    pub(super) from: String,
    /// The file in which the item is declared, whatever re-exports are on the way.
    pub(super) to: String,
    /// The item by the path that `from` uses: `crate::store::Guard`.
    pub(super) item: String,
    /// Files whose re-exports the path goes through.
    pub(super) through: Vec<String>,
}

struct Module {
    file: String,
    path: Segments,
    children: BTreeSet<String>,
    imports: Imports,
    /// Paths outside `use` declarations.
    paths: Vec<Segments>,
}

/// All modules of a crate, by their paths.
struct ModuleTree(BTreeMap<Segments, Module>);

/// Where the path of an item leads.
struct Target {
    /// The module that declares the item.
    module: Segments,
    /// The modules whose re-exports are on the way.
    through: Vec<Segments>,
    /// How many segments of the path name the item; those behind it name what it has.
    length: usize,
}

/// The longest chain of re-exports that is followed.
const REEXPORTS_MAX: usize = 8;

impl ModuleTree {
    fn new(files: &[SourceFile]) -> Self {
        let modules = files.iter().filter(|file| file.path != "main.rs");
        Self(
            modules
                .map(|file| (file.module(), read_module(file)))
                .collect(),
        )
    }

    /// `path` as used in `module`, from the top of the crate; `None` if it is not of this crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Segments> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([&module.path, rest].concat()),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let depth = module.path.len().checked_sub(ups)?;
                Some([&module.path[..depth], &path[ups..]].concat())
            }
            name if module.children.contains(name) => Some([&module.path, path].concat()),
            name => {
                let imported = module.imports.names.get(name)?;
                if imported.first() == Some(first) {
                    return None; // An external crate.
                }
                Some([self.absolute(module, imported)?, rest.to_vec()].concat())
            }
        }
    }

    /// Follows the absolute path `path` through modules and re-exports to an item; `None` if it
    /// names a module or leads to another crate.
    fn resolve(&self, path: &[String], reexports: usize) -> Option<Target> {
        let mut at: Segments = Vec::new();
        for (depth, name) in path.iter().enumerate() {
            let module = self.0.get(&at)?;
            if module.children.contains(name) {
                at.push(name.clone());
                continue;
            }

            let length = depth + 1;
            let Some(reexported) = self.reexported(module, name, reexports) else {
                let through = Vec::new();
                return Some(Target {
                    module: at,
                    through,
                    length,
                });
            };
            let onward = [reexported?, path[length..].to_vec()].concat();
            let mut target = self.resolve(&onward, reexports + 1)?;
            target.through.push(at);
            target.length = length;
            return Some(target);
        }
        None
    }

    /// What `name` stands for if `module` imports it: a path, or `None` for another crate's item.
    fn reexported(
        &self,
        module: &Module,
        name: &str,
        reexports: usize,
    ) -> Option<Option<Segments>> {
        if reexports == REEXPORTS_MAX {
            return None;
        }
        if let Some(imported) = module.imports.names.get(name) {
            return Some(self.absolute(module, imported));
        }

        let globs = module.imports.globs.iter();
        let mut globs = globs.filter_map(|glob| self.absolute(module, glob));
        let glob = globs.find(|glob| self.declares(glob, name))?;
        Some(Some([glob, vec![name.to_owned()]].concat()))
    }

    fn declares(&self, module: &[String], name: &str) -> bool {
        let Some(module) = self.0.get(module) else {
            return false;
        };
        module.children.contains(name) || module.imports.names.contains_key(name)
    }

    fn file(&self, module: &[String]) -> String {
        self.0
            .get(module)
            .map(|module| module.file.clone())
            .unwrap_or_default()
    }

    fn arrows_of(&self, module: &Module) -> BTreeSet<Arrow> {
        let imported = module.imports.names.values();
        let used = imported.chain(&module.paths);
        let mut arrows: BTreeSet<Arrow> = used
            .filter_map(|path| self.absolute(module, path))
            .filter_map(|path| self.arrow(module, &path))
            .collect();

        // What a glob takes is not known by name.
        let globs = module
            .imports
            .globs
            .iter()
            .filter_map(|glob| self.absolute(module, glob));
        arrows.extend(globs.filter_map(|path| {
            let item = [path, vec!["*".to_owned()]].concat();
            self.arrow(module, &item)
        }));
        arrows
    }

    fn arrow(&self, module: &Module, path: &[String]) -> Option<Arrow> {
        let target = self.resolve(path, 0)?;
        let to = self.file(&target.module);
        let through: Vec<String> = target
            .through
            .iter()
            .map(|module| self.file(module))
            .collect();

        let is_own = to == module.file && through.iter().all(|file| *file == module.file);
        (!is_own).then(|| Arrow {
            from: module.file.clone(),
            to,
            item: format!("crate::{}", path[..target.length].join("::")),
            through,
        })
    }
}

fn read_module(file: &SourceFile) -> Module {
    let (imports, rest) = imports(&file.code);
    Module {
        file: file.path.clone(),
        path: file.module(),
        children: declared_modules(&rest).into_iter().collect(),
        paths: paths(&rest),
        imports,
    }
}

/// All arrows between `files`.
pub(super) fn arrows(files: &[SourceFile]) -> BTreeSet<Arrow> {
    let tree = ModuleTree::new(files);
    tree.0
        .values()
        .flat_map(|module| tree.arrows_of(module))
        .collect()
}

#[cfg(test)]
pub(super) fn planted(files: &[(&str, &str)]) -> Vec<SourceFile> {
    files
        .iter()
        .map(|(path, text)| SourceFile::new(path, text))
        .collect()
}

#[test]
fn arrows_lead_to_the_file_that_declares_the_item() {
    let files = planted(&[
        ("lib.rs", "mod http;\nmod store;\n"),
        (
            "http.rs",
            "mod nar;\nmod socks;\npub(crate) use nar::Body;\n",
        ),
        (
            "http/nar.rs",
            "use super::socks;\npub(crate) struct Body;\nfn a() { socks::connect(); }\n",
        ),
        (
            "http/socks.rs",
            "use std::io;\npub(super) fn connect() { io::empty(); }\n",
        ),
        (
            "store.rs",
            "use crate::http::Body;\nfn a(b: Body) -> crate::http::nar::Size { self::c() }\n",
        ),
    ]);
    let found: Vec<String> = arrows(&files)
        .iter()
        .map(|arrow| {
            format!(
                "{} -> {}: {} {:?}",
                arrow.from, arrow.to, arrow.item, arrow.through
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "http.rs -> http/nar.rs: crate::http::nar::Body []",
            "http/nar.rs -> http/socks.rs: crate::http::socks::connect []",
            "store.rs -> http/nar.rs: crate::http::Body [\"http.rs\"]",
            "store.rs -> http/nar.rs: crate::http::nar::Size []",
        ]
    );
}
