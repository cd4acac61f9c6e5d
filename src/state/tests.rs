//! Tests of the state file on a memory file system.

use super::file::MAX_STATE_BYTES;
use super::lock::LockHolder;
use super::{StateError, StateFile, identity_key, lock_holder};
use postern_core::UnixTime;
use postern_core::grant::{AccessRequest, AnnouncedName};
use postern_core::grant::{Resource, ResourceKind, TunnelAddresses};
use postern_core::ids::{ClientId, ResourceId};
use postern_core::ledger::{ImageError, Ledger, LedgerLimits, SavedState};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;
use zeroize::Zeroizing;

const NOW: UnixTime = UnixTime(1_700_000_000);
const MAX_AGE: Duration = Duration::from_secs(300);
const NO_PATIENCE: Duration = Duration::ZERO;

/// A directory in memory and the path of the state file in it.
struct Fixture {
    directory: TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("postern-state-")
            .tempdir_in("/dev/shm")
            .expect("these tests need a tmpfs at /dev/shm");
        let path = directory.path().join("gateway.state");
        Self { directory, path }
    }

    fn open(&self) -> Result<StateFile, StateError> {
        StateFile::open(&self.path, key("token"), NO_PATIENCE)
    }

    fn opened(&self) -> StateFile {
        self.open().expect("these tests need a tmpfs at /dev/shm")
    }

    /// With a saved state that no process holds.
    fn saved() -> Self {
        let fixture = Self::new();
        fixture.opened().save(&state()).expect("there is room");
        fixture
    }
}

fn key(token: &str) -> [u8; 32] {
    identity_key("wss://portal.lab.example", "gateway", token)
}

fn state() -> SavedState {
    let mut ledger = Ledger::new(LedgerLimits::default());
    ledger.record_access(&AccessRequest {
        reply_ref: String::new(),
        client: ClientId(Uuid::from_u128(1)),
        tunnel: Some(TunnelAddresses {
            ipv4: [100, 64, 0, 1].into(),
            ipv6: [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 1].into(),
        }),
        resource: Resource {
            id: ResourceId(Uuid::from_u128(2)),
            name: "all of the lab".into(),
            kind: ResourceKind::Dns("*.lab.example".into()),
            filters: Vec::new(),
        },
        expires_at: None,
        announced: Some(AnnouncedName {
            domain: "app.lab.example".into(),
            proxy_ips: vec![[100, 96, 0, 1].into()],
        }),
    });
    SavedState {
        saved_at: NOW,
        gateway_key: Zeroizing::new([1; 32]),
        ice_secret: Zeroizing::new([2; 32]),
        udp_port: 51820,
        taken_over_at: None,
        ledger,
    }
}

fn load(file: &StateFile) -> Result<Option<SavedState>, StateError> {
    file.load(NOW, MAX_AGE, LedgerLimits::default())
}

/// The one line that an operator reads.
fn complaint<T>(result: Result<T, StateError>) -> String {
    let line = result.err().expect("an error").to_string();
    assert!(!line.contains('\n') && line.contains("state"), "{line}");
    line
}

fn mode(path: &Path) -> u32 {
    let metadata = path.metadata().expect("it is there");
    metadata.permissions().mode() & 0o7777
}

#[test]
fn a_saved_state_is_loaded() {
    let fixture = Fixture::new();
    let mut file = fixture.opened();
    assert!(load(&file).expect("no file is no error").is_none());
    file.save(&state()).expect("there is room");
    file.save(&state()).expect("a second time");
    drop(file);
    let loaded = load(&fixture.opened()).expect("a state").expect("a file");
    assert_eq!(loaded.gateway_key, state().gateway_key);
    assert_eq!(loaded.udp_port, 51820);
    assert!(loaded.ledger.clients().eq(state().ledger.clients()));
}

#[test]
fn no_other_user_may_read_it() {
    let fixture = Fixture::new();
    let path = fixture
        .directory
        .path()
        .join("postern/deeper/gateway.state");
    let mut file = StateFile::open(&path, key("token"), NO_PATIENCE).expect("a tmpfs");
    file.save(&state()).expect("there is room");
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&path.with_extension("state.lock")), 0o600);
    let directory = path.parent().expect("a directory");
    assert_eq!(mode(directory), 0o700);
    assert_eq!(mode(directory.parent().expect("a directory")), 0o700);
}

#[test]
fn another_file_system_is_refused_and_left_as_it_is() {
    // Of all file systems that are none in memory, the one that is everywhere.
    let path = Path::new("/proc/postern/gateway.state");
    let line = complaint(StateFile::open(path, key("token"), NO_PATIENCE));
    assert!(
        line.contains("/proc is not on a memory file system"),
        "{line}"
    );
    assert!(!path.parent().expect("a directory").exists());
}

#[test]
fn a_directory_where_others_may_replace_files_is_refused() {
    let fixture = Fixture::new();
    let everyones = Permissions::from_mode(0o777);
    fs::set_permissions(fixture.directory.path(), everyones).expect("it is ours");
    assert!(complaint(fixture.open()).contains("others may replace files"));
    let sticky = Permissions::from_mode(0o1777);
    fs::set_permissions(fixture.directory.path(), sticky).expect("it is ours");
    fixture.opened();
}

#[test]
fn a_symbolic_link_is_refused_and_never_followed() {
    let fixture = Fixture::saved();
    let elsewhere = fixture.directory.path().join("elsewhere");
    fs::rename(&fixture.path, &elsewhere).expect("it is ours");
    symlink(&elsewhere, &fixture.path).expect("a link");
    assert!(complaint(fixture.open()).contains("symbolic link"));
    fs::remove_file(&fixture.path).expect("it is ours");
    let mut file = fixture.opened();
    for suffix in ["state", "state.new"] {
        symlink(&elsewhere, fixture.path.with_extension(suffix)).expect("a link");
    }
    assert!(complaint(load(&file)).contains("symbolic link"));
    let before = fs::read(&elsewhere).expect("a file");
    let later = SavedState {
        saved_at: UnixTime(NOW.0 + 1),
        ..state()
    };
    file.save(&later).expect("links are replaced");
    assert_eq!(fs::read(&elsewhere).expect("a file"), before);
    assert!(load(&file).expect("a state").is_some());
}

#[test]
fn a_lock_that_is_a_symbolic_link_is_refused() {
    let fixture = Fixture::new();
    let elsewhere = fixture.directory.path().join("elsewhere");
    symlink(&elsewhere, fixture.path.with_extension("state.lock")).expect("a link");
    assert!(complaint(fixture.open()).contains("symbolic link"));
    assert!(!elsewhere.exists());
}

#[test]
fn a_file_that_others_may_read_is_refused() {
    let fixture = Fixture::saved();
    for mode in [0o640, 0o604, 0o620, 0o602] {
        fs::set_permissions(&fixture.path, Permissions::from_mode(mode)).expect("it is ours");
        assert!(complaint(fixture.open()).contains("0600"), "{mode:o}");
    }
}

#[test]
fn a_file_of_another_user_is_refused() {
    let fixture = Fixture::saved();
    if std::os::unix::fs::chown(&fixture.path, Some(12_345), None).is_err() {
        // Only root can give files away; then only root can be given one.
        assert!(!nix::unistd::geteuid().is_root());
        return;
    }
    assert!(complaint(fixture.open()).contains("another user"));
}

#[test]
fn a_pipe_is_refused() {
    let fixture = Fixture::new();
    nix::unistd::mkfifo(&fixture.path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    assert!(
        fixture
            .path
            .metadata()
            .expect("it is there")
            .file_type()
            .is_fifo()
    );
    assert!(complaint(fixture.open()).contains("no regular file"));
}

#[test]
fn any_damaged_byte_is_detected() {
    let fixture = Fixture::saved();
    let file = fixture.opened();
    let whole = fs::read(&fixture.path).expect("a file");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] = !damaged[at];
        fs::write(&fixture.path, &damaged).expect("it is ours");
        assert!(complaint(load(&file)).contains("ignored"), "byte {at}");
    }
    for length in 0..whole.len() {
        fs::write(&fixture.path, &whole[..length]).expect("it is ours");
        assert!(complaint(load(&file)).contains("cut off"), "{length} bytes");
    }
    fs::write(&fixture.path, &whole).expect("it is ours");
    assert!(load(&file).is_ok());
}

#[test]
fn the_state_of_another_gateway_is_reported() {
    let fixture = Fixture::saved();
    let other = StateFile::open(&fixture.path, key("another token"), NO_PATIENCE);
    let line = complaint(load(&other.expect("a tmpfs")));
    assert!(line.contains("belongs to another gateway"), "{line}");
    assert!(!line.contains("token\""), "{line}");
}

#[test]
fn a_stale_state_is_ignored() {
    let fixture = Fixture::saved();
    let file = fixture.opened();
    let at = |now| file.load(UnixTime(now), MAX_AGE, LedgerLimits::default());
    for fresh in [NOW.0 - 60, NOW.0, NOW.0 + 300] {
        assert!(at(fresh).expect("fresh").is_some(), "{fresh}");
    }
    assert!(complaint(at(NOW.0 + 301)).contains("5m 1s old, and at most 5m is allowed"));
    assert!(complaint(at(NOW.0 - 61)).contains("1m 1s in the future"));
}

#[test]
fn a_file_beyond_the_limit_is_not_read() {
    let fixture = Fixture::saved();
    let sparse = fs::OpenOptions::new().write(true).open(&fixture.path);
    let length = MAX_STATE_BYTES as u64 + 1;
    sparse
        .and_then(|file| file.set_len(length))
        .expect("a sparse file");
    let refused = load(&fixture.opened());
    let source = ImageError::TooLarge {
        bytes: MAX_STATE_BYTES + 1,
        limit: MAX_STATE_BYTES,
    };
    assert!(matches!(refused, Err(StateError::Unusable { source: it, .. }) if it == source));
}

#[test]
fn an_incomplete_save_does_not_prevent_the_next_one() {
    let fixture = Fixture::saved();
    let mut file = fixture.opened();
    fs::write(fixture.path.with_extension("state.new"), "half").expect("it is ours");
    file.save(&state()).expect("there is room");
    assert!(load(&file).expect("a state").is_some());
    assert!(!fixture.path.with_extension("state.new").exists());
}

#[test]
fn a_removed_state_does_not_exist() {
    let fixture = Fixture::saved();
    let mut file = fixture.opened();
    file.remove().expect("it is ours");
    file.remove().expect("nothing is no error");
    assert!(load(&file).expect("no error").is_none());
    assert!(!fixture.path.exists());
}

#[test]
fn one_process_holds_it_at_a_time() {
    let fixture = Fixture::new();
    assert_eq!(lock_holder(&fixture.path).expect("no file"), None);
    let file = fixture.opened();
    let holder = || lock_holder(&fixture.path).expect("a lock");
    let ours = std::process::id();
    assert!(complaint(fixture.open()).ends_with(&format!("in use by process {ours}")));
    let held_by = holder().expect("it is held");
    assert_eq!(held_by.pid.as_raw_pid().cast_unsigned(), ours);
    assert!(held_by.is_of_this_namespace());
    drop(file);
    assert_eq!(holder(), None);
    fixture.opened();
}

#[test]
fn a_process_of_another_pid_namespace_is_told_apart() {
    let fixture = Fixture::new();
    let _file = fixture.opened();
    for (text, is_ours) in [("7 1\n", false), ("7\n", true), ("7 x\n", true)] {
        fs::write(fixture.path.with_extension("state.lock"), text).expect("it is ours");
        let holder = lock_holder(&fixture.path).expect("a lock").expect("held");
        assert_eq!(holder.pid.as_raw_pid(), 7);
        assert_eq!(holder.is_of_this_namespace(), is_ours, "{text:?}");
    }
}

/// A process that holds the lock until its input ends, as one that was killed with the pid still in
/// the file.
#[test]
fn the_lock_of_a_process_that_ends_is_taken_over() {
    let fixture = Fixture::new();
    let lock = fixture.path.with_extension("state.lock");
    fs::write(&lock, "4242\n").expect("it is ours");
    fs::set_permissions(&lock, Permissions::from_mode(0o600)).expect("it is ours");
    let mut holder = Command::new("flock")
        .args(["--no-fork", "--exclusive"])
        .arg(&lock)
        .args(["sh", "-c", "echo held; read -r end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("flock of util-linux");
    let mut line = String::new();
    let output = holder.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert_eq!(line, "held\n");
    assert!(complaint(fixture.open()).ends_with("in use by process 4242"));
    let pid = |it: LockHolder| it.pid.as_raw_pid();
    let held_by = lock_holder(&fixture.path).expect("a lock").map(pid);
    assert_eq!(held_by, Some(4242));
    let path = fixture.path.clone();
    let patient = std::thread::spawn(move || {
        StateFile::open(&path, key("token"), Duration::from_secs(60)).map(drop)
    });
    let mut input = holder.stdin.take().expect("a pipe");
    input.write_all(b"end\n").expect("it reads");
    holder.wait().expect("it ends");
    patient.join().expect("no panic").expect("the lock is free");
    assert_eq!(lock_holder(&fixture.path).expect("a lock"), None);
}

#[test]
fn a_lock_never_names_a_group_of_processes() {
    let fixture = Fixture::new();
    let _file = fixture.opened();
    for text in ["\n", "0\n", "-1\n", "12x\n", "99999999999\n", "12"] {
        fs::write(fixture.path.with_extension("state.lock"), text).expect("it is ours");
        let line = complaint(lock_holder(&fixture.path));
        assert!(
            line.ends_with("in use by another process"),
            "{text:?}: {line}"
        );
    }
}
