//! A guest uses its devices under a real KVM, while `crn-device-check` plays its controller beside it.

use std::time::Duration;

use crn_tests::nested::{Command, Ending, Nested};
use crn_tests::testbed::products::product;

/// Time for all of it, by the nested machine's clock; on an idle host it takes less than a minute.
const PATIENCE: Duration = Duration::from_secs(500);

#[test]
fn data_survives_freed_space_and_memory_come_back_and_limits_hold() {
    let output = Nested::new()
        .init(env!("CARGO_BIN_EXE_crn-nested"))
        .program(
            env!("CARGO_BIN_EXE_crn-device-check"),
            "/bin/crn-device-check",
        )
        .program(product("staging/usr/bin/crn-vmm").unwrap(), "/bin/crn-vmm")
        .file(product("vmlinux").unwrap(), "/vmlinux")
        .file(product("device-initramfs").unwrap(), "/initramfs")
        .module("tun")
        .cpus(1)
        .timeout(PATIENCE * 2)
        .live(true)
        .run(["mmio", "pci"].map(|transport| {
            Command::new([
                "/bin/crn-device-check",
                "/bin/crn-vmm",
                "/vmlinux",
                "/initramfs",
                transport,
            ])
            .timeout(PATIENCE)
        }))
        .unwrap();
    for check in &output.commands {
        let text = format!("{}{}", check.stdout_text(), check.stderr_text());
        assert_eq!(check.ending, Ending::Exited(0), "{text}");
        assert!(text.contains("CHECKED done"), "{text}");
    }
}
