//! DnsActor: looks names up.
//!
//! Owns: the resolver. Receives: `ResolveName`. Emits: `NameResolution` to whoever asked.
//! When its mailbox is full: senders wait. On death: the process ends.

use crate::messages::dns::{NameAnswered, ResolveName};
use crate::shell::{DeathNotice, tell};
use actix::prelude::*;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use postern_core::names::{AddressFamily, NameAnswer, NameFailure, ResolvedAddresses};
use std::net::IpAddr;
use std::time::Duration;

/// Where the upstream servers are taken from.
pub enum Upstreams {
    /// `/etc/resolv.conf`, read when a lookup finds no resolver yet: a host may boot without a
    /// network (lesson 21).
    System,
    /// These.
    Given(ResolverConfig),
}

/// See the module's documentation.
pub struct DnsActor {
    upstreams: Upstreams,
    resolver: Option<TokioResolver>,
    _death: DeathNotice,
}

impl DnsActor {
    /// Resolves through `upstreams`.
    #[must_use]
    pub fn new(upstreams: Upstreams, death: DeathNotice) -> Self {
        Self {
            upstreams,
            resolver: None,
            _death: death,
        }
    }

    fn resolver(&mut self) -> Option<TokioResolver> {
        if self.resolver.is_none() {
            self.resolver = build(&self.upstreams)
                .inspect_err(
                    |error| tracing::warn!(%error, "no resolver; is /etc/resolv.conf readable?"),
                )
                .ok();
        }
        self.resolver.clone()
    }
}

impl Actor for DnsActor {
    type Context = Context<Self>;
}

impl Handler<ResolveName> for DnsActor {
    type Result = ();

    fn handle(&mut self, question: ResolveName, ctx: &mut Context<Self>) {
        let resolver = self.resolver();
        let lookup = async move {
            let outcome = match resolver {
                Some(resolver) => look_up(&resolver, question.name.as_str()).await,
                None => Err(NameFailure::Network),
            };
            let Some(reply_to) = question.reply_to else {
                return;
            };
            for family in AddressFamily::ALL {
                let outcome = outcome.clone().and_then(|mut ips| {
                    ips.retain(|ip| AddressFamily::of(*ip) == family);
                    ips.sort_unstable();
                    let ttl = Duration::from_secs(5);
                    (!ips.is_empty())
                        .then_some(ResolvedAddresses { ips, ttl })
                        .ok_or(NameFailure::NoData)
                });
                let name = question.name.clone();
                let answer = NameAnswer {
                    name,
                    family,
                    outcome,
                };
                tell(&reply_to, NameAnswered(answer));
            }
        };
        ctx.spawn(lookup.into_actor(self));
    }
}

fn build(upstreams: &Upstreams) -> Result<TokioResolver, NetError> {
    let mut builder = match upstreams {
        Upstreams::System => TokioResolver::builder_tokio()?,
        Upstreams::Given(config) => {
            TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
        }
    };
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

async fn look_up(resolver: &TokioResolver, name: &str) -> Result<Vec<IpAddr>, NameFailure> {
    // The trailing dot keeps the host's search domains out: the name is complete.
    let found = resolver.lookup_ip(format!("{name}.")).await;
    found
        .map(|addresses| addresses.iter().collect())
        .map_err(|error| classify(&error))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the resolver's errors are many and grow; whatever is not an answer is the network's fault"
)]
fn classify(error: &NetError) -> NameFailure {
    match error {
        NetError::Timeout => NameFailure::Timeout,
        NetError::Dns(DnsError::NoRecordsFound(negative)) => match negative.response_code {
            ResponseCode::NXDomain => NameFailure::NoSuchName,
            ResponseCode::NoError => NameFailure::NoData,
            _ => NameFailure::ServerFailure,
        },
        NetError::Dns(_) => NameFailure::ServerFailure,
        _ => NameFailure::Network,
    }
}
