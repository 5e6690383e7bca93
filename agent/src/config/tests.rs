//! Configuration files, right and wrong.

use super::*;

fn load(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path)
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = load("").unwrap();
    assert_eq!(config.listen.port(), 4020);
    assert_eq!(
        config.network.host_ports,
        PortRange {
            first: 24000,
            last: 24999
        }
    );
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let error = load("[network]\nipv4_pol = \"10.0.0.0/8\"").unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("ipv4_pol"), "{cause}");
}

#[test]
fn a_wrong_value_names_its_field() {
    for (text, field) in [
        ("ccn = \"localhost\"", "ccn"),
        ("state_dir = \"var\"", "state_dir"),
        ("[sandbox]\nspare = 65", "sandbox.spare"),
        ("[node]\nhash = \"ab\"", "node.hash"),
        ("[network]\nipv6_pool = \"fec0::/96\"", "network.ipv6_pool"),
        ("listen = \"0.0.0.0:24500\"", "network.host_ports"),
        (
            "[network]\nguest_megabits = 2000000",
            "network.guest_megabits",
        ),
        ("[trust]\nccns = [\"ccn.example\"]", "trust.ccns"),
        (
            "ccn = \"http://a\"\n[trust]\nccns = [\"http://a/\"]",
            "trust.ccns",
        ),
        ("[trust]\nquorum = 2", "trust.quorum"),
        ("[trust]\nquorum = 0", "trust.quorum"),
        (
            "[network]\nhost_ports = \"25000-24000\"",
            "network.host_ports",
        ),
        (
            "[trust]\nlegacy_token_sha256 = \"secret\"",
            "trust.legacy_token_sha256",
        ),
        ("[checks]\nprogram = \"x\"", "checks.program"),
        (
            "[trust]\nallocation_signers = [\"me\"]",
            "trust.allocation_signers",
        ),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.to_string().starts_with(field), "{text}: {error}");
    }
}

#[test]
fn the_documented_file_is_accepted() {
    let config = load(
        r#"
        listen = "0.0.0.0:4020"
        domain = "127.0.0.1"
        ccn = "http://127.0.0.1:4024/"
        state_dir = "/var/lib/crn"
        run_dir = "/run/crn"
        vmm = "/usr/bin/crn-vmm"
        kernel = "/usr/lib/crn/vmlinux"
        initramfs = "/usr/lib/crn/initramfs"
        [node]
        hash = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        owner = "0x0000000000000000000000000000000000000001"
        [trust]
        allocation_signers = ["0x0000000000000000000000000000000000000001"]
        allocation_signer_files = ["/var/lib/ccn-lite/address"]
        ccns = ["http://127.0.0.1:4124", "https://ccn.example.org"]
        quorum = 2
        [network]
        interface = "eth0"
        ipv4_pool = "172.16.0.0/12"
        ipv6_pool = "fec0::/64"
        dns = ["10.0.2.3"]
        host_ports = "24000-24999"
        guest_megabits = 1000
        guest_connections = 16384
        [limits]
        log_bytes = 8388608
        crashes = 10
        [retention]
        program_hours = 24
        stopped_hours = 720
        program_quota_percent = 90
        [checks]
        program = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
        ipv4 = "9.9.9.9:443"
        ipv6 = "[2620:fe::fe]:443"
        host = "example.org"
        [program]
        min_timeout_seconds = 30
        "#,
    )
    .unwrap();
    assert_eq!(config.ccn, "http://127.0.0.1:4024");
    assert_eq!(config.program.min_timeout, Duration::from_secs(30));
    assert_eq!(
        config.payment_receiver(),
        "0x0000000000000000000000000000000000000001"
    );
}
