//! Two publishers with different builds of one item: when the nar of the first is not to be had,
//! the second build is used, with the references that its own narinfo names.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::daemon::Helper;
use crate::support::fixture::flip;
use crate::support::publisher::{self, Publisher, command, contents, installed, name};
use crate::support::sandbox::run;
use crate::support::{Reply, Sandbox, Server, listing};

const ITEM: char = '1';
const SHARED: char = '2';
const NEW: char = '3';

/// What is wrong with the first publisher's nar.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Missing,
    Cut,
    Corrupt,
}

const ALL: [Damage; 3] = [Damage::Missing, Damage::Cut, Damage::Corrupt];

/// Publishers in the user's order, all trusted.
struct Scene {
    sandbox: Sandbox,
    publishers: Vec<Publisher>,
}

impl Scene {
    /// The item refers to what `references` says, publisher by publisher.
    fn new(references: &[&[char]]) -> Self {
        let sandbox = Sandbox::new();
        let mut publishers = Vec::new();
        for (seed, references) in (1..).zip(references) {
            let publisher = Publisher::new(&sandbox, &format!("server-{seed}"), seed);
            let names: Vec<String> = references.iter().map(|digit| name(*digit)).collect();
            publisher.publish_file(ITEM, &format!("build {seed}"), &names.join(" "));
            for digit in *references {
                publisher.publish_file(*digit, "a reference", "");
            }
            publishers.push(publisher);
        }
        Publisher::trust(&sandbox, &publishers.iter().collect::<Vec<_>>());
        Self {
            sandbox,
            publishers,
        }
    }

    /// Starts the servers, of which all but the last have a damaged nar.
    fn serve(&self, damage: Damage) -> (Vec<Server>, String) {
        let last = self.publishers.len() - 1;
        for publisher in &self.publishers[..last] {
            match damage {
                Damage::Missing => std::fs::remove_file(publisher.nar(ITEM)).unwrap(),
                Damage::Corrupt => flip(&publisher.nar(ITEM), 99),
                Damage::Cut => {}
            }
        }
        let serve = |(number, publisher): (usize, &Publisher)| {
            let directory = publisher.dir.clone();
            Server::start(move |request| {
                let reply = Reply::file(&directory, request);
                let is_cut = matches!(damage, Damage::Cut) && number < last;
                let is_nar = request.path == format!("/{ITEM}.nar");
                if is_cut && is_nar {
                    reply.cut_at(50)
                } else {
                    reply
                }
            })
        };
        let servers: Vec<Server> = self.publishers.iter().enumerate().map(serve).collect();
        let urls: Vec<String> = servers.iter().map(Server::url).collect();
        (servers, urls.join(" "))
    }

    fn rows(&self) -> Vec<String> {
        listing::rows(&self.sandbox.root().join("var/guix/db/db.sqlite"))
    }

    /// The last publisher's build is fetched and registered with its own references.
    #[track_caller]
    fn uses_the_last(&self, damage: Damage, references: &[char]) {
        let (_servers, urls) = self.serve(damage);
        let item = format!("/gnu/store/{}", name(ITEM));
        let ended = run(command(&self.sandbox, &urls, &["fetch", &item]));
        let ended = ended.exits(0).prints(&format!("{item}\n"));
        let build = format!("build {}", self.publishers.len());
        assert_eq!(contents(&self.sandbox, &item), build, "{damage:?}");
        let nar = std::fs::read(self.publishers.last().unwrap().nar(ITEM)).unwrap();
        let hash = HEXLOWER.encode(&Sha256::digest(nar));
        let rows = self.rows();
        let row = rows.iter().position(|row| row.starts_with(&item)).unwrap();
        assert!(rows[row].contains(&hash), "{hash} is not in {rows:?}");
        let own = rows[row + 1..]
            .iter()
            .take_while(|row| row.starts_with('\t'));
        let expected: Vec<String> = references
            .iter()
            .map(|digit| format!("\t/gnu/store/{}", name(*digit)))
            .collect();
        assert_eq!(own.cloned().collect::<Vec<_>>(), expected, "{damage:?}");
        for digit in references {
            let path = format!("/gnu/store/{}", name(*digit));
            assert_eq!(contents(&self.sandbox, &path), "a reference");
        }
        let items = rows.iter().filter(|row| row.starts_with('/')).count();
        ended.says(&format!("{items} item"));
    }
}

#[test]
fn a_second_build_with_the_same_references_is_fetched() {
    for damage in ALL {
        Scene::new(&[&[SHARED], &[SHARED]]).uses_the_last(damage, &[SHARED]);
    }
}

#[test]
fn a_second_build_with_other_references_is_fetched_after_them() {
    for damage in ALL {
        Scene::new(&[&[SHARED], &[NEW, SHARED]]).uses_the_last(damage, &[SHARED, NEW]);
        Scene::new(&[&[], &[NEW]]).uses_the_last(damage, &[NEW]);
        Scene::new(&[&[SHARED], &[]]).uses_the_last(damage, &[]);
    }
}

#[test]
fn a_third_build_is_fetched() {
    for damage in ALL {
        Scene::new(&[&[], &[SHARED], &[NEW]]).uses_the_last(damage, &[NEW]);
        Scene::new(&[&[], &[], &[]]).uses_the_last(damage, &[]);
    }
}

/// The second build's references cannot be had; the third one has none.
#[test]
fn a_build_without_its_references_is_skipped() {
    let scene = Scene::new(&[&[], &[NEW], &[]]);
    std::fs::remove_file(scene.publishers[1].narinfo(NEW)).unwrap();
    scene.uses_the_last(Damage::Missing, &[]);
}

/// What cannot be had of a build's reference.
#[derive(Debug, Clone, Copy)]
enum Absent {
    NarInfo,
    Nar,
}

/// A scene in which only the last publisher's build has references that can be had: every build
/// before it refers to an item of its own, and what `absent` says of that one is missing.
fn scene_without_references(absent: &[Absent]) -> Scene {
    let own = ['5', '6', '7', '8'].map(|digit| [digit]);
    let mut references: Vec<&[char]> = own[..absent.len()]
        .iter()
        .map(<[char; 1]>::as_slice)
        .collect();
    references.push(&[]);
    let scene = Scene::new(&references);

    for ((publisher, own), absent) in scene.publishers.iter().zip(references).zip(absent) {
        let file = match absent {
            Absent::NarInfo => publisher.narinfo(own[0]),
            Absent::Nar => publisher.nar(own[0]),
        };
        std::fs::remove_file(file).unwrap();
    }
    scene
}

/// Any number of builds whose references cannot be had is skipped, whether that is known when the
/// fetch is planned or turns out when a reference is downloaded; the item may be downloaded then.
#[test]
fn builds_whose_references_cannot_be_had_are_skipped() {
    use Absent::{Nar, NarInfo};

    for absent in [
        &[NarInfo][..],
        &[Nar],
        &[NarInfo, NarInfo],
        &[Nar, Nar],
        &[Nar, NarInfo, Nar],
        &[NarInfo, Nar, NarInfo, Nar],
    ] {
        for mode in [
            &["fetch"][..],
            &["fetch", "--keep-going"],
            &["fetch", "-j1"],
        ] {
            let scene = scene_without_references(absent);
            let urls: Vec<String> = scene.publishers.iter().map(Publisher::url).collect();
            let item = format!("/gnu/store/{}", name(ITEM));
            let ended = run(command(
                &scene.sandbox,
                &urls.join(" "),
                &[mode, &[&*item]].concat(),
            ));
            ended.exits(0).prints(&format!("{item}\n"));

            let build = format!("build {}", scene.publishers.len());
            assert_eq!(
                contents(&scene.sandbox, &item),
                build,
                "{absent:?} {mode:?}"
            );
            let rows = scene.rows();
            assert_eq!(rows.iter().filter(|row| row.starts_with('/')).count(), 1);
            assert!(!rows.iter().any(|row| row.starts_with('\t')), "{rows:?}");
        }
    }
}

/// What refers to the item keeps its build and comes after the one that the item has in the end.
#[test]
fn referrers_of_an_item_without_its_references_are_fetched() {
    for absent in [Absent::NarInfo, Absent::Nar] {
        let scene = scene_without_references(&[absent, absent]);
        let top = scene.publishers[0].publish_file('4', "top", &name(ITEM));
        let urls: Vec<String> = scene.publishers.iter().map(Publisher::url).collect();
        run(command(&scene.sandbox, &urls.join(" "), &["fetch", &top]))
            .exits(0)
            .prints(&format!("{top}\n"));
        let item = format!("/gnu/store/{}", name(ITEM));
        assert_eq!(contents(&scene.sandbox, &item), "build 3", "{absent:?}");
    }
}

/// A reference that was requested as well is reported, though the item has another build.
#[test]
fn a_requested_reference_that_cannot_be_had_fails_the_fetch() {
    for absent in [Absent::NarInfo, Absent::Nar] {
        let scene = scene_without_references(&[absent]);
        let (item, reference) = (name(ITEM), name('5'));
        let [item, reference] = [item, reference].map(|name| format!("/gnu/store/{name}"));
        let urls: Vec<String> = scene.publishers.iter().map(Publisher::url).collect();
        let arguments = ["fetch", "--keep-going", &item, &reference];
        let ended = run(command(&scene.sandbox, &urls.join(" "), &arguments));
        assert!(matches!(ended.code, Some(1..=4)), "{ended:?}");
        ended.prints(&format!("{item}\n")).says(&reference);
        assert_eq!(contents(&scene.sandbox, &item), "build 2");
    }
}

/// When no build has its references, the reason names them all.
#[test]
fn when_no_build_has_its_references_all_are_named() {
    for absent in [Absent::NarInfo, Absent::Nar] {
        let scene = scene_without_references(&[absent, absent]);
        std::fs::remove_file(scene.publishers[2].narinfo(ITEM)).unwrap();
        let item = format!("/gnu/store/{}", name(ITEM));
        let urls: Vec<String> = scene.publishers.iter().map(Publisher::url).collect();
        let ended = run(command(&scene.sandbox, &urls.join(" "), &["fetch", &item]));
        assert!(matches!(ended.code, Some(1..=4)), "{ended:?}");
        ended.prints("").says(&name('5')).says(&name('6'));
        assert!(!installed(&scene.sandbox, &item).exists());
    }
}

/// What refers to the item waits for its second build, and is not downloaded twice.
#[test]
fn referrers_are_registered_after_the_second_build_of_their_reference() {
    let scene = Scene::new(&[&[], &[NEW]]);
    let top = scene.publishers[0].publish_file('4', "top", &name(ITEM));
    let (servers, urls) = scene.serve(Damage::Missing);
    run(command(&scene.sandbox, &urls, &["fetch", &top]))
        .exits(0)
        .prints(&format!("{top}\n"));
    assert_eq!(
        scene
            .rows()
            .iter()
            .filter(|row| row.starts_with('/'))
            .count(),
        3
    );
    assert_eq!(servers[0].requests_for("/4.nar"), 1);
    assert_eq!(
        contents(&scene.sandbox, &format!("/gnu/store/{}", name(ITEM))),
        "build 2"
    );
}

#[test]
fn a_single_tree_comes_from_any_build() {
    for damage in ALL {
        for references in [&[SHARED][..], &[]] {
            let scene = Scene::new(&[&[SHARED], references]);
            let (_servers, urls) = scene.serve(damage);
            let item = format!("/gnu/store/{}", name(ITEM));
            let arguments = ["fetch", "--output", "tree", &item];
            run(command(&scene.sandbox, &urls, &arguments)).exits(0);
            assert_eq!(publisher::read(&scene.sandbox.path("tree")), "build 2");
        }
    }
}

/// guix-daemon registers the references of the earlier reply: the helper uses another
/// build only when it has the same.
#[test]
fn the_helper_uses_another_build_only_with_the_same_references() {
    for damage in ALL {
        let cases: [(&[&[char]], bool); 3] = [
            (&[&[SHARED], &[SHARED]], true),
            (&[&[SHARED], &[NEW]], false),
            (&[&[SHARED], &[NEW], &[SHARED]], true),
        ];
        for (references, is_taken) in cases {
            let scene = Scene::new(references);
            let (_servers, urls) = scene.serve(damage);
            let mut helper = Helper::start(&scene.sandbox, &urls, "--substitute", "");
            let (item, tree) = (
                format!("/gnu/store/{}", name(ITEM)),
                scene.sandbox.path("tree"),
            );
            // Asked again, it answers the same.
            for _ in 0..2 {
                let reply = helper.substitute(&item, &tree);
                if is_taken {
                    let hash = scene.publishers.last().unwrap().nar_hash(ITEM);
                    assert!(
                        reply.starts_with(&format!("success sha256:{hash}")),
                        "{reply}"
                    );
                    let build = format!("build {}", references.len());
                    assert_eq!(publisher::read(&tree), build);
                } else {
                    let expected = match damage {
                        Damage::Corrupt => "hash-mismatch ",
                        Damage::Missing | Damage::Cut => "not-found",
                    };
                    assert!(reply.starts_with(expected), "{damage:?}: {reply}");
                    assert!(!tree.exists());
                }
            }
            helper.end();
        }
    }
}

/// Every attempt is reported, those of a server together.
#[test]
fn when_every_build_fails_all_attempts_are_reported() {
    for references in [&[SHARED][..], &[NEW]] {
        let scene = Scene::new(&[&[SHARED], references]);
        for publisher in &scene.publishers {
            std::fs::remove_file(publisher.nar(ITEM)).unwrap();
        }
        let servers: Vec<Server> = scene
            .publishers
            .iter()
            .map(|it| Server::of(it.dir.clone()))
            .collect();
        let urls = format!("{} {}", servers[0].url(), servers[1].url());
        let item = format!("/gnu/store/{}", name(ITEM));
        let ended = run(command(&scene.sandbox, &urls, &["fetch", &item])).exits(4);
        assert!(!installed(&scene.sandbox, &item).exists());
        let lines: Vec<&str> = ended.stderr.lines().collect();
        let told = lines
            .iter()
            .position(|line| line.contains("every download failed"))
            .unwrap();
        for (line, server) in lines[told + 1..].iter().zip(&servers) {
            assert!(
                line.contains(&format!("{}/{ITEM}.nar: ", server.url())),
                "{}",
                ended.stderr
            );
        }
    }
}

/// Replaces the downloads of a narinfo.
fn offer(publisher: &Publisher, downloads: &str) {
    let nar = std::fs::read(publisher.nar(ITEM)).unwrap();
    publisher.describe(ITEM, &nar, nar.len() as u64, "", downloads);
}

#[test]
fn a_narinfo_without_a_usable_download_does_not_hide_the_next_server() {
    let unusable = [
        (
            "URL: 1.nar\nCompression: lrzip\n",
            "compression `lrzip` is not supported",
        ),
        ("URL: 1.nar\n", "no compression method"),
        (
            "URL: file:///etc/passwd\nCompression: none\n",
            "URL is not allowed",
        ),
        ("", "no download"),
    ];
    for (downloads, why) in unusable {
        let scene = Scene::new(&[&[], &[], &[NEW]]);
        offer(&scene.publishers[0], downloads);
        offer(&scene.publishers[1], downloads);
        let servers: Vec<Server> = scene
            .publishers
            .iter()
            .map(|it| Server::of(it.dir.clone()))
            .collect();
        let urls: Vec<String> = servers.iter().map(Server::url).collect();
        let item = format!("/gnu/store/{}", name(ITEM));
        run(command(&scene.sandbox, &urls.join(" "), &["fetch", &item])).exits(0);
        assert_eq!(contents(&scene.sandbox, &item), "build 3");

        let mut helper = Helper::start(&scene.sandbox, &urls.join(" "), "--query", "");
        assert_eq!(
            helper.info(&item),
            Some(vec![format!("/gnu/store/{}", name(NEW))])
        );
        helper.end();

        let fetch = run(command(
            &scene.sandbox,
            &urls[0],
            &["fetch", "--output", "tree", &item],
        ));
        fetch.exits(3).says(why);
        // What is valid is not refused.
        scene.sandbox.remove_root();
        let query = |arguments: &[&str]| {
            let ended = run(command(&scene.sandbox, &urls[0], arguments)).exits(3);
            // A report breaks its lines at blanks.
            let text = format!("{} {}", ended.stdout, ended.stderr);
            let words: Vec<&str> = text.split_whitespace().collect();
            assert!(words.join(" ").contains(why), "{ended:?}");
        };
        query(&["query", &item]);
        query(&["query", "--cache-miss-report", &item]);
        query(&["query", "--json", &item]);
        query(&["query", "--json", "--cache-miss-report", &item]);
    }
}

/// The narinfo that counts names no usable download; an unsigned one of the same build does.
#[test]
fn a_narinfo_without_a_usable_download_authorizes_another_mirror_s_nar() {
    let scene = Scene::new(&[&[], &[]]);
    let mirror = &scene.publishers[1];
    std::fs::copy(scene.publishers[0].nar(ITEM), mirror.nar(ITEM)).unwrap();
    offer(mirror, "URL: 1.nar\nCompression: none\n");
    offer(&scene.publishers[0], "URL: 1.nar\nCompression: lrzip\n");
    Publisher::trust(&scene.sandbox, &[&scene.publishers[0]]);
    let item = format!("/gnu/store/{}", name(ITEM));
    let urls = format!("{} {}", scene.publishers[0].url(), mirror.url());
    run(command(&scene.sandbox, &urls, &["fetch", &item])).exits(0);
    assert_eq!(contents(&scene.sandbox, &item), "build 1");
}
