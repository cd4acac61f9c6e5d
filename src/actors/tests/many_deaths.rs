//! Ten thousand deaths of connections leak nothing.

use super::in_virtual_time;
use super::samples::{client, open_for};
use super::scene::Scene;
use std::time::Duration;

const CLIENTS: u8 = 250;
/// As many deaths as a client may have within [`ROUND`].
const DEATHS_IN_A_ROUND: u64 = 2;
const ROUND: Duration = Duration::from_secs(31);
const DEATHS: u64 = 10_000;

#[test]
#[expect(clippy::print_stdout, reason = "the figures are worth a look")]
fn memory_is_flat_over_ten_thousand_deaths_and_rebuilds() {
    in_virtual_time(async {
        let mut scene = Scene::with(|spec| {
            spec.max_clients = CLIENTS.into();
            spec.handshakes_per_second = 100_000;
        });
        for number in 1..=CLIENTS {
            scene.connect(open_for(number, 1)).await;
            // Its successors start handshakes in vain.
            scene.use_path_of(client(number));
        }
        let mut deaths = 0;
        let mut early = 0;
        while deaths < DEATHS {
            for _ in 0..DEATHS_IN_A_ROUND {
                for number in 1..=CLIENTS {
                    scene.spawner.kill_connection(client(number));
                }
                tokio::time::sleep(Duration::from_millis(60)).await;
                assert_eq!(scene.spawner.started().len(), usize::from(CLIENTS));
                deaths += u64::from(CLIENTS);
                scene.forget();
            }
            tokio::time::sleep(ROUND).await;
            scene.forget();
            if deaths == 1000 {
                early = resident_bytes();
            }
        }
        let late = resident_bytes();
        let died = scene.deaths_of_connections();
        assert_eq!(died, DEATHS);
        println!("resident after 1,000 deaths: {early} bytes, after {DEATHS}: {late} bytes");
        assert!(late * 10 <= early * 11, "{early} bytes, later {late}");
    });
}

impl Scene {
    fn deaths_of_connections(&self) -> u64 {
        let mut all = self.metrics.actors();
        let found = all.find(|(kind, _)| *kind == "connection");
        found.expect("a kind").1.deaths.get()
    }
}

/// Field 2 of proc_pid_statm(5).
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split_ascii_whitespace().nth(1).expect("seven fields");
    pages.parse::<usize>().expect("a number") * 4096
}
