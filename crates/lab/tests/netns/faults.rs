//! A portal that sends nonsense.

use crate::{Trial, WEB};
use postern_lab::playground::lab::{GATEWAY, count};

const NONSENSE: [&str; 10] = [
    "",
    "not json",
    r#"[1,2,"gateway","init",{}]"#,
    r#"{"topic":"gateway""#,
    r#"{"topic":"gateway","event":7,"payload":{},"ref":null}"#,
    r#"{"topic":"gateway","event":"no_such_event","payload":{},"ref":null}"#,
    r#"{"topic":"elsewhere","event":"init","payload":{},"ref":null}"#,
    r#"{"topic":"gateway","event":"init","payload":{"interface":5},"ref":null}"#,
    r#"{"topic":"gateway","event":"create_authorization","payload":{"ref":"x"},"ref":null}"#,
    r#"{"topic":"gateway","event":"reject_access","payload":{"client_id":"x"},"ref":{}}"#,
];

#[test]
fn malformed_pushes_keep_the_connection() {
    let mut trial = Trial::start();
    trial.expect_page(WEB[0]);
    for text in NONSENSE {
        trial
            .control()
            .push_text(GATEWAY, text)
            .expect("the portal sends it");
    }
    // A new authorization passes the same connection, behind all of that.
    trial.expect_page(WEB[1]);
    assert!(
        trial
            .gateway()
            .expect("runs")
            .ended()
            .expect("is known")
            .is_none()
    );
    assert_eq!(
        count(&trial.gateway_milestones(), "joined"),
        1,
        "it had to rejoin"
    );
}
