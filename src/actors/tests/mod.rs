//! Tests of the actors together: messages, deaths and restarts.
//!
//! They test wiring and supervision only; the cores' decisions are tested in the cores. Each test
//! runs on one arbiter in virtual time, where no test waits: the clock jumps to the next timer as
//! soon as all actors are idle.

mod connection;
mod cut_off;
mod diagnosis;
mod dns;
mod dns_responder;
mod dns_transports;
mod fault;
mod full_mailboxes;
mod link;
mod many_deaths;
mod metrics;
mod name_server;
mod nat_table;
mod operator;
mod portal;
mod probe;
mod reload;
mod revival;
mod samples;
mod scene;
mod seen;
mod service_manager;
mod shards;
mod spawner;
mod supervision;
mod supervisor;
mod takeover;
mod udp;
mod watchdog;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message, Recipient, System, SystemRunner};
use std::future::Future;
use std::time::Duration;

/// Runs a test on an arbiter of its own, in virtual time.
fn in_virtual_time<F: Future>(test: F) -> F::Output {
    virtual_system().block_on(test)
}

/// As [`in_virtual_time`], until the actors stop the system; returns its exit code.
fn until_exit(test: impl Future<Output = ()>) -> i32 {
    let system = virtual_system();
    let stopped = system.stop_future();
    system.block_on(async {
        test.await;
        let stopped = tokio::time::timeout(PATIENCE, stopped).await;
        let code = stopped.expect("stopped within two seconds");
        code.expect("an exit code")
    })
}

/// Sends, also to a full mailbox.
#[expect(
    clippy::disallowed_methods,
    reason = "a test says what happens, however much waits"
)]
fn tell<M>(to: &Recipient<M>, message: M)
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    to.do_send(message);
}

/// As [`tell`], for an address.
fn tell_addr<A, M>(to: &Addr<A>, message: M)
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    tell(&to.clone().recipient(), message);
}

fn virtual_system() -> SystemRunner {
    System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("an event loop")
    })
}

/// The limit of a shutdown; all else happens immediately.
const PATIENCE: Duration = Duration::from_secs(2);
