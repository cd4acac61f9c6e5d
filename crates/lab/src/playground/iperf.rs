//! iperf3 from one namespace to another, one run at a time.
//!
//! Counts received bytes, not sent ones. Does not rely on iperf3's own timing: the server serves
//! one test and is killed when it outlives it, the client has a limit.

use super::{Playground, Role};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

/// iperf3's default port, which the policy has to permit.
const PORT: &str = "5201";
/// How long connecting and exchanging the results may take beyond the load itself.
const GRACE: Duration = Duration::from_secs(10);
/// How long a server may take to listen, and to end after its test.
const SERVER_LIMIT: Duration = Duration::from_secs(5);

/// Direction of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the resource.
    Upload,
    /// From the resource to the client.
    Download,
}

/// Parameters of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub direction: Direction,
    /// Number of concurrent TCP connections.
    pub streams: u8,
}

impl Load {
    /// All measured loads, in the order in which they alternate.
    pub const ALL: [Self; 4] = [
        Self::new(Direction::Upload, 1),
        Self::new(Direction::Download, 1),
        Self::new(Direction::Upload, 4),
        Self::new(Direction::Download, 4),
    ];

    const fn new(direction: Direction, streams: u8) -> Self {
        Self { direction, streams }
    }

    /// Name in the benchmark's table.
    pub fn name(self) -> String {
        let direction = match self.direction {
            Direction::Upload => "upload",
            Direction::Download => "download",
        };
        match self.streams {
            1 => format!("{direction}, 1 stream"),
            streams => format!("{direction}, {streams} streams"),
        }
    }
}

/// Data that one run transferred.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// Received payload in bytes.
    pub bytes: u64,
    /// Received payload per second of the receiver's time.
    pub bits_per_second: f64,
    /// Number of retransmitted TCP segments.
    pub retransmits: u64,
    /// The sender's congestion control, as the kernel names it.
    pub congestion: String,
}

/// The two ends of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Namespace of the client's end.
    pub from: Role,
    /// Address under which the client reaches the server.
    pub to: IpAddr,
    /// Address that the server listens on.
    pub server: IpAddr,
}

/// Runs a load from `role` to `address` at the resource, for `seconds`.
pub fn run(
    playground: &Playground,
    role: Role,
    address: IpAddr,
    load: Load,
    seconds: u32,
) -> Result<Transfer> {
    let endpoints = Endpoints {
        from: role,
        to: address,
        server: address,
    };
    run_between(playground, endpoints, load, seconds)
}

/// As [`run`], where the client may reach the server under another address.
pub fn run_between(
    playground: &Playground,
    endpoints: Endpoints,
    load: Load,
    seconds: u32,
) -> Result<Transfer> {
    let mut command = playground.command(Role::Resource, "iperf3");
    command.args(["--server", "--one-off", "--forceflush", "--port", PORT]);
    command.args(["--bind", &endpoints.server.to_string()]);
    // Concurrent loads have servers with different addresses.
    let name = format!("iperf3-server-{}", endpoints.server);
    let mut server = playground.spawn(&name, command)?;
    let interrupt = playground.interrupt();
    // The server would take a probing connection for its one test.
    interrupt.until_ok("iperf3 to listen", SERVER_LIMIT, || {
        if let Some(status) = server.ended()? {
            let tail = server.log_tail(5);
            bail!("the iperf3 server ended with {status}: {tail}");
        }
        Ok(server.log().contains("Server listening").then_some(()))
    })?;
    let limit = Duration::from_secs(seconds.into()) + GRACE;
    let client = client(playground, endpoints, load, seconds);
    let output = playground.run(client, limit)?;
    let transfer = parse(&String::from_utf8_lossy(&output.stdout))?;
    server.wait_end(SERVER_LIMIT)?;
    Ok(transfer)
}

/// Command of the client's end, without interim reports (`-i 0`): its output stays short.
fn client(playground: &Playground, endpoints: Endpoints, load: Load, seconds: u32) -> Command {
    let mut command = playground.command(endpoints.from, "iperf3");
    command.args(["--json", "-i", "0", "--connect-timeout", "5000"]);
    command.args(["--client", &endpoints.to.to_string(), "--port", PORT]);
    command.args(["--time", &seconds.to_string()]);
    command.args(["--parallel", &load.streams.to_string()]);
    if load.direction == Direction::Download {
        command.arg("--reverse");
    }
    command
}

/// Parses the client's output of `iperf3 --json`.
fn parse(output: &str) -> Result<Transfer> {
    let output: Value = serde_json::from_str(output).context("iperf3 told no JSON")?;
    if let Some(error) = output["error"].as_str() {
        bail!("iperf3 failed: {error}");
    }
    let end = &output["end"];
    let received = &end["sum_received"];
    let bytes = received["bytes"].as_u64().unwrap_or_default();
    let bits_per_second = received["bits_per_second"].as_f64().unwrap_or_default();
    if bytes == 0 || bits_per_second <= 0.0 {
        bail!("iperf3 tells of nothing received: {end}");
    }
    let retransmits = end["sum_sent"]["retransmits"].as_u64();
    let congestion = end["sender_tcp_congestion"].as_str();
    Ok(Transfer {
        bytes,
        bits_per_second,
        retransmits: retransmits.context("iperf3 tells of no retransmits")?,
        congestion: congestion.unwrap_or("unknown").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The end of a download with two streams, as iperf 3.12 writes it, without unused fields.
    const DOWNLOAD: &str = r#"{
        "start": {"version": "iperf 3.12", "test_start": {"num_streams": 2, "reverse": 1}},
        "intervals": [{"sum": {"bytes": 2286026752, "bits_per_second": 18287810701.769577}}],
        "end": {
            "streams": [
                {"sender": {"bytes": 1153433600, "retransmits": 0},
                 "receiver": {"bytes": 1152253952}},
                {"sender": {"bytes": 1135083520, "retransmits": 4},
                 "receiver": {"bytes": 1133772800}}
            ],
            "sum_sent": {"seconds": 1.003358, "bytes": 2288517120,
                         "bits_per_second": 18246863990.719166, "retransmits": 4, "sender": false},
            "sum_received": {"seconds": 1.000022, "bytes": 2286026752,
                             "bits_per_second": 18287811684.14295, "sender": false},
            "cpu_utilization_percent": {"host_total": 39.98, "remote_total": 46.01},
            "sender_tcp_congestion": "bbr", "receiver_tcp_congestion": "cubic"
        }
    }"#;

    #[test]
    fn received_bytes_count_over_all_streams() {
        let expected = Transfer {
            bytes: 2_286_026_752,
            bits_per_second: 18_287_811_684.142_95,
            retransmits: 4,
            congestion: "bbr".to_owned(),
        };
        assert_eq!(parse(DOWNLOAD).expect("whole"), expected);
    }

    #[test]
    fn a_failure_contains_iperfs_words() {
        let output = r#"{"start": {"connected": []}, "intervals": [], "end": {},
                       "error": "unable to connect to server: Connection refused"}"#;
        let error = parse(output).expect_err("failed").to_string();
        assert!(error.contains("Connection refused"), "{error}");
    }

    #[test]
    fn a_run_that_moved_nothing_is_an_error() {
        let moved_nothing = DOWNLOAD.replace("2286026752", "0");
        for output in [moved_nothing.as_str(), r#"{"end": {}}"#, "{}", "[]"] {
            let error = parse(output).expect_err("nothing moved").to_string();
            assert!(error.contains("nothing received"), "{error}");
        }
    }

    #[test]
    fn output_that_is_no_json_is_an_error() {
        for output in ["", "iperf3: error", &DOWNLOAD[..200]] {
            let error = parse(output).expect_err("no JSON").to_string();
            assert!(error.contains("no JSON"), "{error}");
        }
    }

    #[test]
    fn loads_are_named_for_the_table() {
        let names = Load::ALL.map(Load::name);
        assert_eq!(names[0], "upload, 1 stream");
        assert_eq!(names[3], "download, 4 streams");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            let _read_or_refused = parse(&text);
        }

        #[test]
        fn any_end_is_parsed_or_refused(
            bytes in any::<i64>(), rate in any::<f64>(), again in any::<i64>(),
        ) {
            let output = serde_json::json!({"end": {
                "sum_sent": {"retransmits": again},
                "sum_received": {"bytes": bytes, "bits_per_second": rate},
            }});
            if let Ok(transfer) = parse(&output.to_string()) {
                prop_assert!(transfer.bytes > 0 && transfer.bits_per_second > 0.0);
            }
        }
    }
}
