//! What a reload makes of real files.

use super::check::check;
use super::reloader::{Look, Reloaded, Reloader};
use crate::config::{self, Environment};
use crate::messages::reload::ReloadOutcome;
use std::fs;
use std::path::Path;
use std::sync::Arc;

const MINIMAL: &str = "[portal]\nurl = \"ws://h:1\"\ntoken_file = \"token\"\n";

struct Fixture {
    folder: tempfile::TempDir,
    reloader: Reloader,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("token"), ".t").expect("written");
        let path = folder.path().join("gateway.toml");
        fs::write(&path, MINIMAL).expect("written");
        let environment = || Environment::new(std::iter::empty::<(String, String)>());
        let loaded = config::load(&path, &environment()).expect("valid");
        let settings = Arc::new(check(loaded.config).expect("good"));
        let reloader = Reloader::new(path, environment(), settings, loaded.sources);
        Self { folder, reloader }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, more: &str) {
        write(&self.path("gateway.toml"), &format!("{MINIMAL}{more}"));
    }

    /// Looks until nothing changes any more.
    fn settle(&mut self) -> Option<Reloaded> {
        match [self.reloader.look(), self.reloader.look()] {
            [Look::Changing, Look::Changed] => Some(self.reloader.reload()),
            [Look::Same, Look::Same] => None,
            other => panic!("{other:?}"),
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
}

fn applied(changed: &[&'static str], needs_restart: &[&'static str]) -> ReloadOutcome {
    ReloadOutcome::Applied {
        changed: changed.to_vec(),
        needs_restart: needs_restart.to_vec(),
    }
}

#[test]
fn what_changes_is_taken_over_once_and_what_needs_a_restart_is_named_each_time() {
    let mut fixture = Fixture::new();
    assert!(fixture.settle().is_none());
    fixture.write("[limits]\nclients = 7\n[state]\nhandover = true\n[log]\nformat = \"json\"\n");
    let reloaded = fixture.settle().expect("changed");
    let restart = ["log.format"];
    assert_eq!(
        reloaded.outcome,
        applied(&["limits.clients", "state.handover"], &restart)
    );
    let told = reloaded.settings.expect("for the actors");
    let (before, after) = (&told.before.config, &told.after.config);
    assert_eq!((before.state.handover, after.state.handover), (false, true));
    assert_eq!(before.log, after.log);
    assert_eq!(after.limits.clients, 7);
    assert!(Arc::ptr_eq(&told.before.dns_trust, &told.after.dns_trust));
    let mut others = before.clone();
    others.limits.clients = after.limits.clients;
    others.state.handover = after.state.handover;
    assert_eq!(others, *after, "nothing else changes");
    assert!(fixture.settle().is_none());
    let asked = fixture.reloader.reload();
    assert_eq!(asked.outcome, applied(&[], &restart), "still");
    assert!(asked.settings.is_none());
    fixture.write("# a remark\n");
    let back = fixture.settle().expect("changed").outcome;
    assert_eq!(back, applied(&["limits.clients", "state.handover"], &[]));
    fixture.write("# another\n");
    let same = fixture.settle().expect("changed").outcome;
    assert_eq!(same, ReloadOutcome::Unchanged);
}

#[test]
fn a_wrong_file_changes_nothing_and_is_refused_once() {
    let mut fixture = Fixture::new();
    fixture.write("[limits]\nclients = 0\nclient = 1\n");
    let refused = fixture.settle().expect("changed");
    let ReloadOutcome::Refused { problems } = refused.outcome else {
        panic!("{:?}", refused.outcome);
    };
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("gateway.toml:5:11: limits.clients"));
    assert!(problems[1].contains("did you mean \"limits.clients\"?"));
    assert!(refused.settings.is_none());
    assert!(fixture.settle().is_none(), "it was said why");
    let asked = fixture.reloader.reload().outcome;
    assert!(matches!(asked, ReloadOutcome::Refused { .. }));
    fixture.write("[limits]\nclients = 5\n");
    let reloaded = fixture.settle().expect("changed").outcome;
    assert_eq!(reloaded, applied(&["limits.clients"], &[]));
}

/// Half of a file may well be a configuration: one that means something else.
#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let mut fixture = Fixture::new();
    fixture.write("[dns]\nservers = [\"10.0.0.53\"]\n");
    fixture.settle().expect("changed");
    for half in ["", MINIMAL] {
        write(&fixture.path("gateway.toml"), half);
        assert_eq!(fixture.reloader.look(), Look::Changing, "{half:?}");
    }
    fixture.write("[dns]\nservers = [\"10.0.0.53\"]\n");
    assert_eq!(fixture.reloader.look(), Look::Same);
}

#[test]
fn a_file_that_is_gone_keeps_the_configuration() {
    let mut fixture = Fixture::new();
    fs::rename(fixture.path("gateway.toml"), fixture.path("away")).expect("renamed");
    let refused = fixture.settle().expect("changed").outcome;
    let ReloadOutcome::Refused { problems } = refused else {
        panic!("{refused:?}");
    };
    assert!(problems[0].contains("does not exist"), "{problems:?}");
    assert!(fixture.settle().is_none());
    fs::rename(fixture.path("away"), fixture.path("gateway.toml")).expect("renamed");
    let back = fixture.settle().expect("changed").outcome;
    assert_eq!(back, ReloadOutcome::Unchanged);
}

/// docs/lessons.md 34: a reload must not skip checks.
#[test]
fn a_reload_checks_what_a_start_checks() {
    let mut fixture = Fixture::new();
    for (more, why) in [
        ("[dns]\nca_file = \"missing.pem\"\n", "missing.pem"),
        ("[dns]\nca_file = \"token\"\n", "no certificate in it"),
        ("[dns]\nmin_ttl = \"2h\"\n", "longer than dns.max_ttl"),
        ("[tunnel]\ninterface = \"a b\"\n", "tunnel.interface"),
    ] {
        fixture.write(more);
        let outcome = fixture.settle().expect("changed").outcome;
        let ReloadOutcome::Refused { problems } = outcome else {
            panic!("{more}: {outcome:?}");
        };
        assert!(problems[0].contains(why), "{problems:?}");
    }
    write(&fixture.path("token"), "");
    fixture.write("");
    let outcome = fixture.settle().expect("changed").outcome;
    assert!(matches!(outcome, ReloadOutcome::Refused { .. }));
}

#[test]
fn the_content_of_the_files_that_it_names_counts() {
    let mut fixture = Fixture::new();
    let certificate = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]);
        made.expect("a certificate").cert.pem()
    };
    write(&fixture.path("ca.pem"), &certificate("one.example"));
    fixture.write("[dns]\nca_file = \"ca.pem\"\n");
    let named = fixture.settle().expect("changed").outcome;
    assert_eq!(named, applied(&["dns.ca_file"], &[]));
    write(&fixture.path("ca.pem"), &certificate("two.example"));
    let renewed = fixture.settle().expect("changed");
    assert_eq!(renewed.outcome, applied(&["dns.ca_file"], &[]));
    let told = renewed.settings.expect("for the actors");
    assert_eq!(told.before.config, told.after.config);
    assert!(!Arc::ptr_eq(&told.before.dns_trust, &told.after.dns_trust));
    write(&fixture.path("token"), ".other");
    let rotated = fixture.settle().expect("changed").outcome;
    assert_eq!(rotated, applied(&[], &["portal.token"]));
}
