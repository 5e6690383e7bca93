//! The operator's two configuration files for a private network of one node.

use std::fmt::Write as _;

use aleph_message::Keypair;

/// Ports on 127.0.0.1 that lead into the appliance. The node's HTTP port is the same inside, because the registry
/// and the scheduler name the node by one URL.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// The core channel node's API.
    pub ccn: u16,
    /// The compute node's API.
    pub crn: u16,
    /// First of [`Ports::FORWARDED`] ports that instances are reached by; the same inside.
    pub first_forward: u16,
    /// The probe's, if one is wanted.
    pub probe: u16,
}

impl Ports {
    /// How many ports are forwarded for instances.
    pub const FORWARDED: u16 = 8;

    /// The ports of `make run`: those an operator would expect.
    pub const DEFAULT: Self = Self {
        ccn: 4024,
        crn: 4020,
        first_forward: 24000,
        probe: 4999,
    };

    /// A block of ports derived from this process's id, so that two testbeds can run side by side.
    #[must_use]
    pub fn private() -> Self {
        let base = 30_000 + u16::try_from(std::process::id() % 1_500).unwrap_or(0) * 20;
        Self {
            ccn: base,
            crn: base + 1,
            probe: base + 2,
            first_forward: base + 4,
        }
    }

    /// The core channel node's URL.
    #[must_use]
    pub fn ccn_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ccn)
    }

    /// The compute node's URL.
    #[must_use]
    pub fn crn_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.crn)
    }
}

/// The accounts of a private network.
#[derive(Debug)]
pub struct Accounts {
    /// Publishes runtimes and images.
    pub operator: Keypair,
    /// Deploys.
    pub user: Keypair,
}

impl Accounts {
    /// Two new accounts.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            operator: Keypair::generate(),
            user: Keypair::generate(),
        }
    }
}

/// The node's hash in the registry of the private network.
pub const NODE_HASH: &str = "c0de00000000000000000000000000000000000000000000000000000000c0de";

/// `ccn-lite.toml`.
#[must_use]
pub fn ccn(ports: &Ports, accounts: &Accounts) -> String {
    let mut text = String::from(
        r#"listen = "0.0.0.0:4024"
data_dir = "/var/lib/ccn-lite"
network = "private"

[limits]
max_file_bytes = 8589934592

[cutoffs]
store_and_program_cost = 1743775079
hold_and_stream = 4102444800
credit_only = 4102444800

[scheduler]
enabled = true
"#,
    );
    for address in [accounts.operator.address(), accounts.user.address()] {
        let _ = write!(
            text,
            "\n[[genesis.balances]]\naddress = \"{address}\"\namount = \"1000000\"\n\
             \n[[genesis.credits]]\naddress = \"{address}\"\namount = 1000000000000\n"
        );
    }
    let owner = accounts.operator.address();
    let _ = write!(
        text,
        "\n[[genesis.nodes]]\nhash = \"{NODE_HASH}\"\nname = \"first-light\"\naddress = \"{}\"\nowner = \"{owner}\"\n\
         payment_receiver = \"{owner}\"\n",
        ports.crn_url(),
    );
    text
}

/// `agent.toml`.
#[must_use]
pub fn agent(ports: &Ports, accounts: &Accounts) -> String {
    let owner = accounts.operator.address();
    format!(
        r#"listen = "0.0.0.0:{crn}"
domain = "127.0.0.1"
ccn = "http://127.0.0.1:4024"

[node]
hash = "{NODE_HASH}"
owner = "{owner}"
payment_receiver = "{owner}"

[trust]
allocation_signer_files = ["/var/lib/ccn-lite/address"]

[network]
ipv6_pool = "fec0::/64"
host_ports = "{first}-{last}"

[program]
min_timeout_seconds = 20
start_timeout_seconds = 240

[retention]
cache_hours = 0
"#,
        crn = ports.crn,
        first = ports.first_forward,
        last = ports.first_forward + Ports::FORWARDED - 1,
    )
}
