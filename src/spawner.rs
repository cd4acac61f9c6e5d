//! The gateway's threads, and the sockets and TUN device that all instances of its actors share.
//!
//! A *shard* is a thread with the whole data path of its clients, with sockets and a TUN queue of
//! its own, so that nothing is shared and nothing is locked. *Control* has the portal and the name
//! lookups, which may block. *Admin* answers the operator, even if another thread is stuck.
//!
//! No actor owns sockets or device: each works on a handle, and what the kernel has queued waits
//! for the actor's successor.

use crate::actors::admin::{AdminActor, AdminSpec};
use crate::actors::connection::{ConnectionActor, ConnectionSpec};
use crate::actors::dns::{DnsActor, DnsReports, DnsSpec};
use crate::actors::nat_table::{self, NatSnapshot, NatTableActor, NatTableSpec};
use crate::actors::portal::{PortalActor, PortalSpec};
use crate::actors::supervisor::links::{DnsLinks, NatTableLinks, PortalLinks, TunLinks, UdpLinks};
use crate::actors::supervisor::spawner::{ActorHandle, Place, Spawner, Started};
use crate::actors::tun::{TunActor, TunSpec};
use crate::actors::udp::{ShardIdentity, UdpActor, UdpSpec};
use crate::admin::{AdminListeners, AdminState};
use crate::config::LiveSettings;
use crate::messages::operator::OperatorLinks;
use crate::messages::supervisor::{HealthNews, InstanceId, NatTableChanged, PortalNews};
use crate::metrics::Metrics;
use crate::metrics::lag::{self, EventLoop};
use crate::shell;
use crate::sockets::SocketGroup;
use crate::supervision::{DeathNotice, RunningInstance, launch};
use crate::system::interface::Interface;
use crate::tunnel::TunQueue;
use actix::prelude::*;
use futures_util::future::AbortHandle;
use postern_core::peer::GatewayKeys;
use postern_core::portal::PortalConfig;
use std::ffi::CString;
use std::io;
use std::sync::Arc;
use tun_rs::SyncDevice;

pub struct SpawnerSpec {
    pub keys: GatewayKeys,
    /// Bound sockets for as many shards as there are queues.
    pub sockets: SocketGroup,
    /// One TUN queue for each shard.
    pub queues: Vec<SyncDevice>,
    pub listeners: AdminListeners,
    /// The settings of all actors.
    pub settings: Arc<LiveSettings>,
    pub portal: PortalConfig,
    pub metrics: Arc<Metrics>,
}

/// The gateway's threads; see the module's documentation.
pub struct Threads {
    control: Thread,
    shards: Vec<Shard>,
    admin: Thread,
    listeners: AdminListeners,
    spec: Arc<ActorSettings>,
    sockets: SocketGroup,
}

/// A thread of the data path, and its queue of the TUN device.
struct Shard {
    thread: Thread,
    queue: Arc<SyncDevice>,
}

/// An event loop, and the instance that it polls.
struct Thread {
    arbiter: Arbiter,
    running: RunningInstance,
}

impl Thread {
    fn new(place: Place, metrics: &Arc<Metrics>) -> Self {
        let arbiter = Arbiter::new();
        let event_loop = match place {
            Place::Control => EventLoop::Control,
            Place::Shard(number) => EventLoop::Shard(number.into()),
            Place::Admin => EventLoop::Admin,
        };
        arbiter.spawn_fn(move || name_thread(place));
        arbiter.spawn(lag::measure(Arc::clone(metrics), event_loop));
        Self {
            arbiter,
            running: RunningInstance::default(),
        }
    }

    fn launch<A>(
        &self,
        instance: InstanceId,
        mailbox: usize,
        build: impl FnOnce() -> io::Result<A> + Send + 'static,
    ) -> (Addr<A>, AbortHandle)
    where
        A: Actor<Context = Context<A>>,
    {
        let handle = self.arbiter.handle();
        launch(&handle, self.running.mark(instance), mailbox, |_| build())
    }
}

/// Sets the name that `top -H` shows.
fn name_thread(place: Place) {
    let name = match place {
        Place::Control => "control".to_owned(),
        Place::Shard(number) => format!("shard-{number}"),
        Place::Admin => "admin".to_owned(),
    };
    let name = CString::new(name).expect("no NUL in it");
    // If it fails, the kernel shows the name of the program.
    let _ = nix::sys::prctl::set_name(&name);
}

/// Settings for new instances, shared by all threads. A reload replaces them.
#[derive(Clone)]
struct ActorSettings {
    keys: GatewayKeys,
    settings: Arc<LiveSettings>,
    portal: PortalConfig,
    metrics: Arc<Metrics>,
}

impl Threads {
    /// Starts the threads, without actors.
    pub fn new(spec: SpawnerSpec) -> Self {
        let shards = (0..).zip(spec.queues).map(|(number, queue)| Shard {
            thread: Thread::new(Place::Shard(number), &spec.metrics),
            queue: Arc::new(queue),
        });
        Self {
            control: Thread::new(Place::Control, &spec.metrics),
            shards: shards.collect(),
            admin: Thread::new(Place::Admin, &spec.metrics),
            listeners: spec.listeners,
            sockets: spec.sockets,
            spec: Arc::new(ActorSettings {
                keys: spec.keys,
                settings: spec.settings,
                portal: spec.portal,
                metrics: spec.metrics,
            }),
        }
    }

    /// # Panics
    /// If the gateway has no such shard.
    fn shard(&self, number: u8) -> &Shard {
        &self.shards[usize::from(number)]
    }

    fn thread(&self, place: Place) -> &Thread {
        match place {
            Place::Control => &self.control,
            Place::Shard(number) => &self.shard(number).thread,
            Place::Admin => &self.admin,
        }
    }
}

impl Spawner for Threads {
    fn tun(&self, shard: u8, death: DeathNotice, news: Recipient<HealthNews>) -> Started<TunLinks> {
        let Shard { thread, queue } = self.shard(shard);
        let (spec, queue) = (Arc::clone(&self.spec), Arc::clone(queue));
        let (addr, abort) = thread.launch(death.instance(), TunActor::MAILBOX, move || {
            Ok(TunActor::new(TunSpec {
                queue: TunQueue::new(queue)?,
                interface: Interface::new(&spec.settings.config.tunnel.interface)
                    .map_err(io::Error::other)?,
                news,
                metrics: spec.metrics.shard(shard.into()),
                death,
            }))
        });
        Started {
            links: TunLinks::from(&addr),
            handle: ActorHandle::of(&addr, abort),
        }
    }

    fn nat_table(
        &self,
        shard: u8,
        death: DeathNotice,
        snapshot: NatSnapshot,
        changed: Recipient<NatTableChanged>,
    ) -> Started<NatTableLinks> {
        let config = nat_table::shard_config(&self.spec.settings);
        let metrics = self.spec.metrics.shard(shard.into());
        let thread = &self.shard(shard).thread;
        let (addr, abort) = thread.launch(death.instance(), NatTableActor::MAILBOX, move || {
            Ok(NatTableActor::new(NatTableSpec {
                config,
                seed: shell::random_bytes()?,
                snapshot,
                changed,
                metrics,
                death,
            }))
        });
        Started {
            links: NatTableLinks::from(&addr),
            handle: ActorHandle::of(&addr, abort),
        }
    }

    fn udp(&self, shard: u8, death: DeathNotice) -> Started<UdpLinks> {
        let spec = Arc::clone(&self.spec);
        let sockets = self.sockets.member(shard);
        let thread = &self.shard(shard).thread;
        let (addr, abort) = thread.launch(death.instance(), UdpActor::MAILBOX, move || {
            let sockets = sockets?;
            let identity = ShardIdentity {
                shard,
                keys: spec.keys.clone(),
                metrics: spec.metrics.shard(shard.into()),
            };
            let spec = UdpSpec::new(sockets, identity, &spec.settings, death)?;
            Ok(UdpActor::new(spec))
        });
        Started {
            links: UdpLinks::from(&addr),
            handle: ActorHandle::of(&addr, abort),
        }
    }

    fn dns(&self, death: DeathNotice, news: Recipient<HealthNews>) -> Started<DnsLinks> {
        let spec = Arc::clone(&self.spec);
        let (addr, abort) = self
            .control
            .launch(death.instance(), DnsActor::MAILBOX, move || {
                let settings = &spec.settings;
                Ok(DnsActor::new(DnsSpec::new(
                    &settings.config.dns,
                    rustls::ClientConfig::clone(&settings.dns_trust),
                    DnsReports {
                        metrics: Arc::clone(&spec.metrics),
                        news,
                    },
                    death,
                )))
            });
        Started {
            links: DnsLinks::from(&addr),
            handle: ActorHandle::of(&addr, abort),
        }
    }

    fn portal(&self, death: DeathNotice, news: Recipient<PortalNews>) -> Started<PortalLinks> {
        let spec = Arc::clone(&self.spec);
        let (addr, abort) =
            self.control
                .launch(death.instance(), PortalActor::MAILBOX, move || {
                    Ok(PortalActor::new(PortalSpec {
                        config: PortalConfig {
                            max_outage: spec.settings.config.portal.max_outage,
                            ..spec.portal.clone()
                        },
                        seed: shell::random_bytes()?,
                        news,
                        metrics: Arc::clone(&spec.metrics),
                        death,
                    }))
                });
        Started {
            links: PortalLinks::from(&addr),
            handle: ActorHandle::of(&addr, abort),
        }
    }

    fn admin(&self, death: DeathNotice, supervisor: OperatorLinks) -> ActorHandle {
        let listeners = self.listeners.try_clone();
        let metrics = Arc::clone(&self.spec.metrics);
        let (addr, abort) = self
            .admin
            .launch(death.instance(), AdminActor::MAILBOX, move || {
                Ok(AdminActor::new(AdminSpec {
                    listeners: listeners?,
                    state: AdminState {
                        supervisor,
                        metrics,
                    },
                    death,
                }))
            });
        ActorHandle::of(&addr, abort)
    }

    fn connection(&self, spec: ConnectionSpec) -> (Addr<ConnectionActor>, AbortHandle) {
        let instance = spec.death.instance();
        let mailbox = ConnectionActor::MAILBOX;
        let thread = &self.shard(spec.config.index.shard()).thread;
        thread.launch(instance, mailbox, || Ok(ConnectionActor::new(spec)))
    }

    fn take_over(&mut self, settings: &Arc<LiveSettings>) {
        let spec = Arc::make_mut(&mut self.spec);
        spec.settings = Arc::clone(settings);
    }

    fn busy_with(&self, place: Place) -> Option<InstanceId> {
        self.thread(place).running.instance()
    }

    fn replace_thread(&mut self, place: Place) {
        let fresh = Thread::new(place, &self.spec.metrics);
        let stuck = match place {
            Place::Control => std::mem::replace(&mut self.control, fresh),
            Place::Shard(number) => {
                let shard = &mut self.shards[usize::from(number)];
                std::mem::replace(&mut shard.thread, fresh)
            }
            Place::Admin => std::mem::replace(&mut self.admin, fresh),
        };
        stuck.arbiter.stop();
    }
}
