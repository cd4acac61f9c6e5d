//! The program as users meet it: `postern check` over good and bad files, word for word, and
//! `postern handover` with something that stands for a gateway.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const MINIMAL: &str = "[portal]\nurl = \"wss://portal.example.com\"\ntoken_file = \"token\"\n";

struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new(toml: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("gateway.toml"), toml).expect("writable");
        fs::write(directory.path().join("token"), ".s3cr3t\n").expect("writable");
        Self { directory }
    }

    fn check(&self, variables: &[(&str, &str)]) -> Answer {
        run(
            self.directory.path(),
            &["check", "--config", "gateway.toml"],
            variables,
        )
    }
}

struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(directory: &Path, words: &[&str], variables: &[(&str, &str)]) -> Answer {
    let program = env!("CARGO_BIN_EXE_postern");
    let output: Output = Command::new(program)
        .args(words)
        .current_dir(directory)
        .env_clear()
        // A backtrace would show here if errors had one.
        .env("RUST_BACKTRACE", "1")
        .envs(variables.iter().copied())
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    Answer {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

#[test]
fn check_shows_every_value_and_where_it_came_from() {
    let answer = Fixture::new(MINIMAL).check(&[
        ("POSTERN__TUNNEL__INTERFACE", "wan-gate"),
        ("RUST_LOG", "debug"),
    ]);
    let expected = "\
portal.url = \"wss://portal.example.com\"                       # gateway.toml:2 (restart)
portal.token_file = \"token\"                                   # gateway.toml:3 (restart)
# portal.token = (hidden)                                     # gateway.toml:3 (restart)
# portal.id is not set                                        # kept in id_file (restart)
portal.id_file = \"/var/lib/postern/gateway_id\"                # default (restart)
# portal.name is not set                                      # the host name (restart)
portal.generation = \"auto\"                                    # default (restart)
portal.max_outage = \"24h\"                                     # default
network.udp_port = 52625                                      # default (restart)
network.interfaces = []                                       # default
network.exclude_interfaces = [\"lo\", \"docker*\", \"br-*\", \"veth*\"]  # default
network.stun_servers = []                                     # default
network.receive_buffer_bytes = 16777216                       # default (restart)
network.send_buffer_bytes = 2097152                           # default (restart)
tunnel.interface = \"wan-gate\"                                 # env POSTERN__TUNNEL__INTERFACE (restart)
# tunnel.shards is not set # one for each core that the gateway may use, at most 8 (restart)
tunnel.masquerade = true                                      # default (restart)
tunnel.forwarding = true                                      # default (restart)
tunnel.egress_interfaces = []                                 # default (restart)
dns.servers = []                                              # default
dns.suffixes = []                                             # default
# dns.ca_file is not set # encrypted servers need a certificate of a public authority
dns.min_ttl = \"5s\"                                          # default
dns.max_ttl = \"1h\"                                          # default
dns.nat64 = false                                             # default
dns.last_known_good = \"24h\"                                 # default
dns.lookups_per_client = 16                                   # default
limits.clients = 10000                                        # default
limits.resources_per_client = 1024                            # default
limits.handshakes_per_second = 2000                           # default
limits.flows = 262144                                         # default
limits.flows_per_client = 16384                               # default
state.enabled = true                                          # default (restart)
state.file = \"/run/postern/gateway.state\"                   # default (restart)
state.handover = false                                        # default
state.max_age = \"5m\"                                        # default
admin.socket = \"/run/postern/admin.sock\" # default (restart)
admin.listen = [\"127.0.0.1:9599\"] # default (restart)
log.format = \"text\"                                           # default (restart)
log.filter = \"debug\"                                          # env RUST_LOG
# (restart): takes effect at the next start; all others when the file changes
";
    let squeezed = |text: &str| {
        let lines = text
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(squeezed(&answer.stdout), squeezed(expected));
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
}

#[test]
fn check_lists_all_problems_on_stderr_and_fails() {
    let fixture = Fixture::new(
        "[prtal]\n\
         url = \"wss://portal.example.com\"\n\
         [network]\n\
         udp_port = \"52625\"\n",
    );
    let answer = fixture.check(&[
        ("POSTERN__LOG__FROMAT", "json"),
        ("POSTERN__PORTAL__TOKEN", ".t"),
    ]);
    let expected = "\
gateway.toml:2:1: unknown key \"prtal.url\"; did you mean \"portal.url\"?
gateway.toml:4:12: network.udp_port: found \"52625\", expected a whole number from 0 to 65535; for example udp_port = 52625
POSTERN__LOG__FROMAT: unknown variable; did you mean \"POSTERN__LOG__FORMAT\"?
";
    assert_eq!(answer.stderr, expected);
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""));
}

#[test]
fn a_missing_file_is_one_clear_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for command in ["check", "gateway"] {
        let answer = run(directory.path(), &[command, "--config", "none.toml"], &[]);
        assert_eq!(
            answer.stderr,
            "none.toml: does not exist; name a readable configuration with --config \
             (config/gateway.toml in the source tree documents every key)\n"
        );
        assert_eq!(answer.code, Some(1));
    }
}

#[test]
fn a_token_in_the_file_is_refused_with_the_remedy_and_never_repeated() {
    let fixture =
        Fixture::new("[portal]\nurl = \"wss://portal.example.com\"\ntoken = \".s3cr3t\"\n");
    let answer = fixture.check(&[]);
    let expected = "gateway.toml:3:1: portal.token must not be in this file; put the token into a file of its own \
         (mode 0600) and name it with token_file, or set POSTERN__PORTAL__TOKEN\n";
    assert_eq!(answer.stderr, expected);
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""));
}

#[test]
fn the_secret_shows_nowhere_wherever_it_comes_from() {
    let with_file = Fixture::new(MINIMAL).check(&[]);
    let without = Fixture::new("[portal]\nurl = \"wss://portal.example.com\"\n");
    let with_variable = without.check(&[("POSTERN__PORTAL__TOKEN", ".s3cr3t")]);
    for answer in [with_file, with_variable] {
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        assert!(!answer.stdout.contains("s3cr3t") && !answer.stderr.contains("s3cr3t"));
    }
    // Not even when it is damaged.
    let damaged = without.check(&[("POSTERN__PORTAL__TOKEN", ".s3cr3t\u{fc}")]);
    assert_eq!(
        damaged.stderr,
        "POSTERN__PORTAL__TOKEN: holds characters that no token has; set it to the token, or unset it\n"
    );
}

#[test]
fn a_missing_token_names_the_three_ways_to_give_one() {
    let answer = Fixture::new("[portal]\nurl = \"wss://portal.example.com\"\n").check(&[]);
    let expected = "gateway.toml: there is no token: name a file with token_file = \"/etc/postern/token\" under [portal], \
         or set POSTERN__PORTAL__TOKEN, or pass it by systemd with LoadCredential=POSTERN_TOKEN:/etc/postern/token\n";
    assert_eq!(answer.stderr, expected);
    assert_eq!(answer.code, Some(1));
}

#[test]
fn what_looks_like_an_override_but_is_none_is_a_warning() {
    let answer = Fixture::new(MINIMAL).check(&[("POSTERN_NETWORK_UDP_PORT", "1")]);
    assert_eq!(
        answer.stderr,
        "warning: the environment variable POSTERN_NETWORK_UDP_PORT is not used; \
         did you mean POSTERN__NETWORK__UDP_PORT (two underscores)?\n"
    );
    assert_eq!(answer.code, Some(0));
}

#[test]
fn the_reference_configuration_lacks_only_a_token() {
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/config/gateway.toml");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let words = ["check", "--config", reference];
    let with_token = run(
        directory.path(),
        &words,
        &[("POSTERN__PORTAL__TOKEN", ".t")],
    );
    assert_eq!((with_token.code, with_token.stderr.as_str()), (Some(0), ""));
    let without = run(directory.path(), &words, &[]);
    assert!(
        without.stderr.contains("there is no token"),
        "{}",
        without.stderr
    );
}

#[test]
fn wrong_usage_is_explained_and_has_a_code_of_its_own() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let answer = run(directory.path(), &["chekc"], &[]);
    assert_eq!(answer.code, Some(2));
    assert!(answer.stderr.contains("'check'"), "{}", answer.stderr);
}

// ---- postern handover
// -----------------------------------------------------------------------------------

const STATE: &str = "[state]\nfile = \"gateway.state\"\n";

impl Fixture {
    fn hand_over(&self, timeout: &str) -> Answer {
        let words = ["handover", "--config", "gateway.toml", "--timeout", timeout];
        run(self.directory.path(), &words, &[])
    }

    /// A process that holds the lock of the state file, as a gateway does. It does nothing about
    /// signals but what `trap` says.
    fn stand_in(&self, trap: &str) -> StandIn {
        let script = format!("{trap} echo $$ >gateway.state.lock; {WAIT}");
        let words = [
            "flock",
            "--no-fork",
            "gateway.state.lock",
            "sh",
            "-c",
            &script,
        ];
        self.start(&words)
    }

    /// Starts a program that says when it is ready.
    fn start(&self, words: &[&str]) -> StandIn {
        let mut child = Command::new("sh")
            .args(["-c", "umask 077; exec \"$@\"", "sh"])
            .args(words)
            .current_dir(self.directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        let read = BufReader::new(stdout).read_line(&mut line);
        assert_eq!((read.expect("readable"), &*line), (6, "ready\n"));
        StandIn(child)
    }
}

/// Says that it is ready, and holds what it holds.
const WAIT: &str = "echo ready; exec sleep 60 >&-";

/// Killed when the test has ended, one way or the other.
struct StandIn(Child);

impl Drop for StandIn {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_handover_tells_the_gateway_and_waits_for_its_end() {
    let fixture = Fixture::new(STATE);
    let mut gateway = fixture.stand_in("");
    let answer = fixture.hand_over("20s");
    let expected = format!(
        "the gateway (process {}) has ended; the next one takes its clients over from gateway.state\n",
        gateway.0.id()
    );
    assert_eq!((answer.stdout, &*answer.stderr), (expected, ""));
    assert_eq!(answer.code, Some(0));
    let status = gateway.0.wait().expect("a child");
    let sigusr1 = 10;
    assert_eq!(status.signal(), Some(sigusr1));
}

#[test]
fn a_gateway_that_does_not_end_is_reported() {
    let fixture = Fixture::new(STATE);
    let mut gateway = fixture.stand_in("trap '' USR1;");
    let answer = fixture.hand_over("100ms");
    let pid = gateway.0.id();
    let expected = format!(
        "the gateway (process {pid}) was told to end but has not within 100ms; see its log, wait longer \
         with --timeout, or end it with `kill -9 {pid}`: the next gateway takes its clients over all the same\n"
    );
    assert_eq!((&*answer.stdout, answer.stderr), ("", expected));
    assert_eq!(answer.code, Some(1));
    let status = gateway.0.try_wait().expect("a child");
    assert_eq!(status, None, "it lives");
}

#[test]
fn a_lock_file_that_nobody_holds_gets_nobody_killed() {
    let fixture = Fixture::new(STATE);
    let names_itself = format!("echo $$ >gateway.state.lock; {WAIT}");
    let mut bystander = fixture.start(&["sh", "-c", &names_itself]);
    let answer = fixture.hand_over("100ms");
    let told = &answer.stderr;
    assert!(told.starts_with("no gateway is running"), "{told}");
    let status = bystander.0.try_wait().expect("a child");
    assert_eq!(status, None, "it lives");
}

/// As from outside a container, where the gateway's process has another id than it knows of.
#[test]
fn a_lock_that_a_process_of_another_namespace_holds_gets_nobody_killed() {
    let fixture = Fixture::new(STATE);
    // No PID namespace has this inode.
    let script = format!("exec 9>gateway.state.lock; flock 9; echo $$ 1 >&9; {WAIT}");
    let mut bystander = fixture.start(&["sh", "-c", &script]);
    let answer = fixture.hand_over("100ms");
    let expected = format!(
        "the gateway that holds the lock of gateway.state is not process {} here, but in a container; \
         run `postern handover` in there\n",
        bystander.0.id()
    );
    assert_eq!((answer.code, answer.stderr), (Some(1), expected));
    let status = bystander.0.try_wait().expect("a child");
    assert_eq!(status, None, "it lives");
}

#[test]
fn a_handover_without_a_gateway_or_without_a_state_is_explained() {
    let none = Fixture::new(STATE).hand_over("1s");
    assert_eq!(
        none.stderr,
        "no gateway is running with the state file gateway.state; \
         name the configuration that it was started with by --config\n"
    );
    assert_eq!((none.code, &*none.stdout), (Some(1), ""));
    let off = Fixture::new("[state]\nenabled = false\n").hand_over("1s");
    assert_eq!(
        off.stderr,
        "state.enabled is false: the next gateway could not take any clients over; \
         set it to true and restart the gateway, or stop it with SIGTERM\n"
    );
    assert_eq!(off.code, Some(1));
    let wrong = Fixture::new("[state]\nenabled = 1\n").hand_over("1s");
    assert_eq!(
        wrong.stderr,
        "gateway.toml:2:11: state.enabled: found the number 1, expected true or false; \
         for example enabled = true\n"
    );
    assert_eq!(wrong.code, Some(1));
    assert_eq!(Fixture::new(STATE).hand_over("soon").code, Some(2));
}
