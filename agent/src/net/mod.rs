//! What connects machines: addresses ([`plan`]), TAP devices, routes and neighbours ([`Net`]), the firewall
//! ([`firewall`]).
//!
//! What comes in: plans and the complete set of guests. What may be touched: devices named `vmtap*`, proxy neighbours
//! on the uplink, a route for the IPv6 pool, the forwarding switches, the nftables tables named `crn` and `crn-limits`.

mod announce;
mod conntrack;
pub mod firewall;
mod monitor;
pub mod nft;
pub mod plan;
mod sysctl;
mod tap;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressScope};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags};
use rtnetlink::packet_route::route::{RouteAttribute, RouteType};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use rustix::io::Errno;
use tokio::sync::Notify;

use self::monitor::Monitor;
use self::nft::{Nft, NftError};

pub use firewall::{Forward, Guest, Limits, MAX_MEGABITS, Transport};
pub use plan::{IPV4_PREFIX, IPV6_PREFIX, Kind, Plan, PlanError, Pools};
pub use sysctl::SysctlError;

/// The kernel's own bound for a device without a smaller one, for uplinks that report none.
const DEFAULT_MTU: u16 = 1500;
/// The metric of a route that every other one goes before.
const LAST_RESORT: u32 = u32::MAX;

/// The host's network, open for work. Clones share one netlink socket.
#[derive(Debug, Clone)]
pub struct Net {
    handle: Handle,
    pools: Pools,
    limits: Limits,
    uplink: String,
    uplink_index: u32,
    /// The uplink's hardware address; `None` where there is none (a tunnel).
    uplink_mac: Option<[u8; 6]>,
    mtu: u16,
    nft: Arc<Nft>,
    disturbed: Arc<Notify>,
}

/// What went wrong with the host's network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused something.
    #[error("cannot {action} {what}")]
    Netlink {
        /// What was attempted.
        action: &'static str,
        /// On what.
        what: String,
        /// Why not.
        #[source]
        source: rtnetlink::Error,
    },
    /// No interface is configured and there is no default route to tell.
    #[error("no default route: name the interface in network.interface")]
    NoUplink,
    /// The uplink's name could be read as something else in the firewall's rules.
    #[error("the interface {0:?} cannot be used: expected letters, digits, dots, dashes")]
    Uplink(String),
    /// A switch could not be set.
    #[error("cannot prepare the host for forwarding")]
    Sysctl(#[from] SysctlError),
    /// No TAP device.
    #[error("cannot make the TAP device {tap}")]
    Tap {
        /// Its name.
        tap: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The firewall's transaction was refused; the old rules stand.
    #[error("cannot replace the firewall's tables")]
    Firewall(#[source] NftError),
    /// The connections of a machine that is gone are still tracked.
    #[error("cannot forget the connections of {address}")]
    Connections {
        /// Whose.
        address: IpAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The thread that does the blocking part is gone: the agent is shutting down.
    #[error("the runtime is shutting down")]
    Shutdown(#[from] tokio::task::JoinError),
}

impl Net {
    /// Finds the uplink (`interface`, or the default route's), switches forwarding on, and begins to watch over the
    /// firewall. Each guest may use what `limits` says.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn open(
        interface: Option<&str>,
        pools: Pools,
        limits: Limits,
    ) -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetError::Socket)?;
        tokio::spawn(connection);
        let uplink_index = match interface {
            Some(name) => index_of(&handle, name)
                .await?
                .ok_or_else(|| no_such_link(name))?,
            None => default_route(&handle).await?.ok_or(NetError::NoUplink)?,
        };
        let link = handle
            .link()
            .get()
            .match_index(uplink_index)
            .execute()
            .try_next()
            .await;
        let link = link
            .map_err(failed("read", "the uplink"))?
            .ok_or(NetError::NoUplink)?;
        let (mut uplink, mut mtu, mut uplink_mac) = (String::new(), DEFAULT_MTU, None);
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => uplink = name,
                LinkAttribute::Mtu(bytes) => mtu = u16::try_from(bytes).unwrap_or(u16::MAX),
                LinkAttribute::Address(bytes) => uplink_mac = bytes.try_into().ok(),
                _ => {}
            }
        }
        if !firewall::is_plain_name(&uplink) {
            return Err(NetError::Uplink(uplink));
        }
        let name = uplink.clone();
        tokio::task::spawn_blocking(move || sysctl::forward(&name)).await??;
        let (nft, disturbed) = (Arc::<Nft>::default(), Arc::<Notify>::default());
        let monitor = Monitor::open().map_err(NetError::Socket)?;
        monitor
            .watch(Arc::clone(&nft), &disturbed)
            .map_err(NetError::Socket)?;
        let net = Self {
            handle,
            pools,
            limits,
            uplink,
            uplink_index,
            uplink_mac,
            mtu,
            nft,
            disturbed,
        };
        net.end_pool().await?;
        Ok(net)
    }

    /// What is in the IPv6 pool and no machine's ends here. Where the pool is routed to this host, its router and the
    /// default route would otherwise send such packets to and fro until their hops are used up; where the pool is the
    /// uplink's own network, that network's route goes before this one.
    async fn end_pool(&self) -> Result<(), NetError> {
        let (pool, prefix) = self.pools.ipv6();
        let route = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(pool, prefix)
            .kind(RouteType::Unreachable)
            .priority(LAST_RESORT)
            .build();
        match self.handle.route().add(route).execute().await {
            Err(error) if has_errno(&error, &[Errno::EXIST]) => Ok(()),
            other => other.map_err(failed("route", format!("{pool}/{prefix}"))),
        }
    }

    /// The uplink's name.
    #[must_use]
    pub fn uplink(&self) -> &str {
        &self.uplink
    }

    /// The uplink's MTU in bytes, which is every guest's.
    #[must_use]
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Where machines' addresses come from.
    #[must_use]
    pub const fn pools(&self) -> &Pools {
        &self.pools
    }

    /// The uplink's first IPv4 address of global scope.
    ///
    /// # Errors
    /// [`NetError::Netlink`].
    pub async fn host_ipv4(&self) -> Result<Option<Ipv4Addr>, NetError> {
        let addresses: Vec<_> = self
            .handle
            .address()
            .get()
            .set_link_index_filter(self.uplink_index)
            .execute()
            .try_collect()
            .await
            .map_err(failed("read the addresses of", &self.uplink))?;
        for message in addresses {
            if message.header.scope != AddressScope::Universe {
                continue;
            }
            for attribute in message.attributes {
                if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
                    return Ok(Some(address));
                }
            }
        }
        Ok(None)
    }

    /// Makes the machine's TAP, gives it its addresses, and announces the guest's IPv6 address on the uplink.
    /// The descriptor is the VMM's queue: the device lives until it and all its copies are closed, or [`Net::detach`].
    ///
    /// # Errors
    /// [`NetError`]; nothing is left behind then.
    pub async fn attach(&self, plan: &Plan) -> Result<OwnedFd, NetError> {
        // The address may have been another machine's, whose agent did not come to this when it went.
        forget_connections(plan).await?;
        let name = plan.tap.clone();
        let queue = tokio::task::spawn_blocking(move || {
            let queue = tap::create(&name).map_err(|source| NetError::Tap {
                tap: name.clone(),
                source,
            })?;
            sysctl::harden(&name)?;
            Ok::<_, NetError>(queue)
        })
        .await??;
        if let Err(error) = self.configure(plan).await {
            drop(queue);
            self.unannounce(plan).await.ok();
            return Err(error);
        }
        Ok(queue)
    }

    async fn configure(&self, plan: &Plan) -> Result<(), NetError> {
        let index = index_of(&self.handle, &plan.tap)
            .await?
            .ok_or_else(|| no_such_link(&plan.tap))?;
        let up = LinkUnspec::new_with_index(index)
            .mtu(u32::from(self.mtu))
            .up()
            .build();
        self.handle
            .link()
            .set(up)
            .execute()
            .await
            .map_err(failed("switch on", &plan.tap))?;
        let add = |address: IpAddr, prefix: u8| {
            let mut request = self.handle.address().add(index, address, prefix).replace();
            // Nobody else is on this link: the address is usable at once, without asking around for a second.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            request.execute()
        };
        add(IpAddr::V4(plan.ipv4_gateway), IPV4_PREFIX)
            .await
            .map_err(failed("give an IPv4 address to", &plan.tap))?;
        add(IpAddr::V6(plan.ipv6_network), IPV6_PREFIX)
            .await
            .map_err(failed("give an IPv6 address to", &plan.tap))?;
        // Known from the start and for good: what a guest says about who has which address is not listened to.
        for address in [IpAddr::V4(plan.ipv4), IpAddr::V6(plan.ipv6)] {
            self.handle
                .neighbours()
                .add(index, address)
                .link_layer_address(&plan.mac)
                .replace()
                .execute()
                .await
                .map_err(failed("tell the MAC address behind", &plan.tap))?;
        }
        self.handle
            .neighbours()
            .add(self.uplink_index, IpAddr::V6(plan.ipv6))
            .flags(NeighbourFlags::Proxy)
            .replace()
            .execute()
            .await
            .map_err(failed("announce on", &self.uplink))?;
        if let Some(mac) = self.uplink_mac
            && let Err(error) = announce::neighbour(self.uplink_index, mac, plan.ipv6)
        {
            // The proxy answers whoever asks; only caches elsewhere stay as they are.
            tracing::warn!(vm = %plan.vm, address = %plan.ipv6, "not announced: {error}");
        }
        Ok(())
    }

    /// Undoes [`Net::attach`]; what is already gone is no error.
    ///
    /// # Errors
    /// [`NetError::Netlink`].
    pub async fn detach(&self, plan: &Plan) -> Result<(), NetError> {
        self.unannounce(plan).await?;
        if let Some(index) = index_of(&self.handle, &plan.tap).await? {
            gone(self.handle.link().del(index).execute().await)
                .map_err(failed("remove", &plan.tap))?;
        }
        forget_connections(plan).await
    }

    async fn unannounce(&self, plan: &Plan) -> Result<(), NetError> {
        let mut proxies = self
            .handle
            .neighbours()
            .get()
            .proxies()
            .set_address_family(AddressFamily::Inet6)
            .execute();
        let guest = NeighbourAttribute::Destination(NeighbourAddress::Inet6(plan.ipv6));
        let mut found = Vec::new();
        while let Some(message) = proxies
            .try_next()
            .await
            .map_err(failed("read the neighbours of", &self.uplink))?
        {
            if message.header.ifindex == self.uplink_index && message.attributes.contains(&guest) {
                found.push(message);
            }
        }
        for message in found {
            gone(self.handle.neighbours().del(message).execute().await)
                .map_err(failed("take back an announcement on", &self.uplink))?;
        }
        Ok(())
    }

    /// Replaces the whole firewall with the rules for exactly these guests, in one transaction; with none, removes it.
    ///
    /// # Errors
    /// [`NetError::Firewall`].
    pub async fn apply(&self, guests: &[Guest]) -> Result<(), NetError> {
        let rules = firewall::ruleset(&self.uplink, &self.pools, self.limits, guests);
        self.nft.apply(&rules).await.map_err(NetError::Firewall)
    }

    /// Returns when somebody else has changed the firewall's tables, once for all changes since it was asked last.
    pub async fn disturbed(&self) {
        self.disturbed.notified().await;
    }
}

/// Whoever has the machine's addresses next is not to be spoken to by those who spoke with it.
async fn forget_connections(plan: &Plan) -> Result<(), NetError> {
    let addresses = [IpAddr::V4(plan.ipv4), IpAddr::V6(plan.ipv6)];
    tokio::task::spawn_blocking(move || {
        addresses.into_iter().try_for_each(|address| {
            conntrack::forget(address).map_err(|source| NetError::Connections { address, source })
        })
    })
    .await?
}

fn failed(
    action: &'static str,
    what: impl Into<String>,
) -> impl FnOnce(rtnetlink::Error) -> NetError {
    let what = what.into();
    move |source| NetError::Netlink {
        action,
        what,
        source,
    }
}

fn no_such_link(name: &str) -> NetError {
    NetError::Netlink {
        action: "find the interface",
        what: name.to_owned(),
        source: rtnetlink::Error::RequestFailed,
    }
}

/// Takes "there is no such thing" for success.
fn gone(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    let gone = [Errno::NODEV, Errno::NOENT, Errno::SRCH, Errno::NXIO];
    has_errno(error, &gone)
}

fn has_errno(error: &rtnetlink::Error, wanted: &[Errno]) -> bool {
    let rtnetlink::Error::NetlinkError(message) = error else {
        return false;
    };
    let errno = message.to_io().raw_os_error();
    errno.is_some_and(|errno| wanted.contains(&Errno::from_raw_os_error(errno)))
}

async fn index_of(handle: &Handle, name: &str) -> Result<Option<u32>, NetError> {
    match handle
        .link()
        .get()
        .match_name(name.to_owned())
        .execute()
        .try_next()
        .await
    {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(failed("find", name)(error)),
    }
}

async fn default_route(handle: &Handle) -> Result<Option<u32>, NetError> {
    for message in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        // All of them, wherever the answer stands: a reply that nobody reads to its end is logged as lost.
        let routes: Vec<_> = handle
            .route()
            .get(message)
            .execute()
            .try_collect()
            .await
            .map_err(failed("read", "the routes"))?;
        for route in routes {
            let has_destination = route
                .attributes
                .iter()
                .any(|a| matches!(a, RouteAttribute::Destination(_)));
            if route.header.destination_prefix_length > 0 || has_destination {
                continue;
            }
            for attribute in route.attributes {
                if let RouteAttribute::Oif(index) = attribute {
                    return Ok(Some(index));
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
