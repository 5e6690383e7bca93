//! Cloud images under `crn-vmm`: those with a kernel of their own start it, from three layouts; one without goes on under
//! ours. All boots share one nested machine, which has one CPU: emulation loses guests that move between several.

use std::time::Duration;

use crn_protocol::control::ExitReason;
use crn_tests::nested::{Command, Ending, Nested};
use crn_tests::testbed::products::product;

/// Time for one boot, by the nested machine's clock; on an idle host it takes a minute.
const PATIENCE: Duration = Duration::from_secs(300);
/// A machine in which no command speaks or ends for longer than one may take is lost to its emulation.
const STALL: Duration = Duration::from_secs(330);
/// Machines tried before that counts.
const TRIES: u32 = 2;
/// What systemd prints when it has taken over.
const WELCOME: &str = "Welcome to";

fn boot(disk: &str, until: &[&str]) -> Command {
    let argv = [
        "/bin/crn-instance",
        "--vmm",
        "/bin/crn-vmm",
        "--kernel",
        "/vmlinux",
        "--initramfs",
        "/initramfs",
        "--transport",
        "pci",
        "--disk",
        disk,
    ];
    let argv = argv.map(str::to_owned);
    let until = until.iter().map(|text| format!("--until={text}"));
    Command::new(argv.into_iter().chain(until)).timeout(PATIENCE)
}

#[test]
fn images_start_their_own_kernel_from_three_layouts_and_ours_if_they_have_none() {
    let stock = product("stock").unwrap();
    let grub = [
        "crn-init: starting \"Debian GNU/Linux\": /boot/vmlinuz-",
        "-cloud-amd64",
        WELCOME,
    ];
    let specification = [
        "crn-init: starting \"Debian GNU/Linux\": /debian/",
        "-cloud-amd64",
        WELCOME,
    ];
    let none = ["crn-init: no kernel of the image's own", WELCOME];
    let boots: [(&str, &[&str]); 4] = [
        ("/dev/vda", &grub),
        ("/dev/vdb", &grub),
        ("/dev/vdc", &specification),
        ("/dev/vdd", &none),
    ];
    let output = Nested::new()
        .init(env!("CARGO_BIN_EXE_crn-nested"))
        .program(env!("CARGO_BIN_EXE_crn-instance"), "/bin/crn-instance")
        .program(product("staging/usr/bin/crn-vmm").unwrap(), "/bin/crn-vmm")
        .file(product("vmlinux").unwrap(), "/vmlinux")
        .file(product("initramfs").unwrap(), "/initramfs")
        .disk(stock.join("grub-bios.raw"))
        .disk(stock.join("grub-efi.raw"))
        .disk(stock.join("bls.raw"))
        .disk(product("debian.raw").unwrap())
        .cpus(1)
        .memory_mib(3072)
        .timeout(PATIENCE * 4)
        .stall(STALL)
        .tries(TRIES)
        .run(boots.map(|(disk, until)| boot(disk, until)))
        .unwrap();
    for ((disk, _), command) in boots.iter().zip(&output.commands) {
        assert_eq!(
            command.ending,
            Ending::Exited(i32::from(ExitReason::Stopped.code())),
            "{disk}: {}{}",
            command.stdout_text(),
            command.stderr_text()
        );
    }
}
