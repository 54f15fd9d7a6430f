//! The network of a bed: a bridge in a namespace of its own, to which this machine, every cluster and MinIO are
//! connected. Nothing of the machine's own network is changed; it gets one more interface.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::machine::{random, run, wait_until};

/// Second bytes of 10.x.0.0/16 that a bed may take. Services of the clusters are in 10.96, inside.
const SUBNETS: std::ops::RangeInclusive<u8> = 128..=250;
/// The last byte of this machine's address.
const HOST: u8 = 1;

/// Names and addresses of a bed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    subnet: u8,
    suffix: String,
}

/// Who is connected to the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Cluster(u8),
    Minio,
}

impl Place {
    /// The name of the namespace and of the folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cluster(0) => "one",
            Self::Cluster(_) => "two",
            Self::Minio => "minio",
        }
    }

    fn last_byte(self) -> u8 {
        match self {
            Self::Cluster(index) => 11 + index,
            Self::Minio => 20,
        }
    }
}

impl Network {
    /// A network that nothing on this machine uses. Whoever calls it must let nobody else call it until
    /// [`Self::make`] is done.
    pub(crate) fn unused() -> Result<Self> {
        let used = used_subnets()?;
        let free: Vec<u8> = SUBNETS.filter(|subnet| !used.contains(subnet)).collect();
        let [choice, first, second] = random()?;
        let subnet = free.get(usize::from(choice) % free.len().max(1));
        let Some(&subnet) = subnet else {
            bail!("every network from 10.128 to 10.250 is in use; end other beds: cluster down DIRECTORY");
        };
        Ok(Self { subnet, suffix: format!("{first:02x}{second:02x}") })
    }

    /// What the names of everything that belongs to the bed begin with.
    pub(crate) fn name(&self) -> String {
        format!("carrack-{}-{}", self.subnet, self.suffix)
    }

    /// The network namespace of a place.
    pub(crate) fn namespace(&self, place: Place) -> String {
        format!("{}-{}", self.name(), place.name())
    }

    /// The address of a place, which this machine and all pods reach.
    pub(crate) fn address(&self, place: Place) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet, 0, place.last_byte())
    }

    /// This machine's address, as clusters and pods see it.
    pub(crate) fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet, 0, HOST)
    }

    /// The addresses of a cluster's pods.
    pub(crate) fn pods(&self, cluster: u8) -> String {
        format!("10.{}.{}.0/24", self.subnet, 16 + cluster)
    }

    /// For sockets whose names are too long for the bed's own directory.
    pub(crate) fn run_folder(&self) -> PathBuf {
        PathBuf::from("/run").join(self.name())
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name())
    }

    /// The interface on this machine. At most 15 bytes.
    fn interface(&self) -> String {
        format!("cb{}-{}", self.subnet, self.suffix)
    }

    /// Makes bridge, namespaces and routes.
    pub(crate) fn make(&self, places: &[Place]) -> Result<()> {
        let hub = self.hub();
        let interface = self.interface();
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add bridge type bridge"))?;
        ip(&format!("-n {hub} link set bridge up"))?;
        ip(&format!("link add {interface} type veth peer name host netns {hub}"))?;
        ip(&format!("-n {hub} link set host master bridge up"))?;
        ip(&format!("address add {}/24 dev {interface}", self.host()))?;
        ip(&format!("link set {interface} up"))?;
        for &place in places {
            self.connect(place)?;
        }
        for &place in places {
            if let Place::Cluster(index) = place {
                let route = format!("{} via {}", self.pods(index), self.address(place));
                ip(&format!("route add {route} dev {interface}"))?;
                for &other in places.iter().filter(|&&other| other != place) {
                    ip(&format!("-n {} route add {route}", self.namespace(other)))?;
                }
            }
        }
        Ok(())
    }

    fn connect(&self, place: Place) -> Result<()> {
        let (hub, namespace, name) = (self.hub(), self.namespace(place), place.name());
        ip(&format!("netns add {namespace}"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!("-n {namespace} link add eth0 type veth peer name {name} netns {hub}"))?;
        ip(&format!("-n {hub} link set {name} master bridge up"))?;
        ip(&format!("-n {namespace} address add {}/24 dev eth0", self.address(place)))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        // Some parts take the address of the interface with the default route for their own.
        ip(&format!("-n {namespace} route add default via {}", self.host()))?;
        let mut forward = self.enter(place);
        run(forward.args(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])).map(drop)
    }

    /// A command whose arguments are a program that runs in the namespace. `ip netns exec` would mount another /sys,
    /// in which kubelet finds no cgroups.
    pub(crate) fn enter(&self, place: Place) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(place)));
        command
    }

    /// Removes what [`Self::make`] has made, all or part of it.
    pub(crate) fn remove(&self) -> Result<()> {
        let interface = self.interface();
        if PathBuf::from("/sys/class/net").join(&interface).exists() {
            ip(&format!("link delete {interface}"))?;
        }
        let prefix = format!("{}-", self.name());
        for name in namespaces()? {
            if name.starts_with(&prefix) {
                ip(&format!("netns delete {name}"))?;
            }
        }
        wait_until(Duration::from_secs(60), || Ok(!PathBuf::from("/sys/class/net").join(&interface).exists()))
            .with_context(|| format!("remove the interface {interface}"))
    }
}

fn ip(arguments: &str) -> Result<String> {
    run(Command::new("ip").args(arguments.split(' ')))
}

fn namespaces() -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir("/run/netns") else { return Ok(Vec::new()) };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// The second bytes of all networks in 10.0.0.0/8 that this machine has a route or an address in, or a bed a
/// namespace for.
fn used_subnets() -> Result<BTreeSet<u8>> {
    let mut used = BTreeSet::new();
    let known = ip("-4 route show table all")? + &ip("-4 -oneline address show")?;
    used.extend(
        known
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("10.")?.split('.').next()?.parse::<u8>().ok()),
    );
    for name in namespaces()? {
        used.extend(
            name.strip_prefix("carrack-").and_then(|rest| rest.split('-').next()?.parse::<u8>().ok()),
        );
    }
    Ok(used)
}
