use crn_protocol::control::{ConsoleSpec, NicSpec, VsockSpec};
use crn_protocol::devices::{BalloonSpec, Rate};

use super::*;

fn spec() -> VmSpec {
    VmSpec {
        hardware: Hardware {
            vm: "test".to_owned(),
            vcpus: 1,
            memory_mib: 64,
            transport: Transport::Mmio,
            kvm: Descriptor(3),
            disks: vec![DiskSpec {
                file: Descriptor(2),
                read_only: true,
                serial: "root".to_owned(),
                engine: Engine::Auto,
                limits: Limits::default(),
            }],
            nics: Vec::new(),
            vsock: None,
            balloon: None,
            pmem: Vec::new(),
            entropy: Limits::default(),
            console: ConsoleSpec {
                output: Descriptor(1),
                max_bytes: 0,
                virtio: false,
            },
        },
        memory_backing: MemoryBacking::Thp,
        kernel: Descriptor(0),
        initramfs: None,
        cmdline: "console=ttyS0".to_owned(),
    }
}

fn files(count: usize) -> Vec<OwnedFd> {
    (0..count)
        .map(|_| OwnedFd::from(tempfile::tempfile().unwrap()))
        .collect()
}

fn refusal_of(change: impl FnOnce(&mut VmSpec)) -> String {
    let mut spec = spec();
    change(&mut spec);
    Blueprint::new(spec, files(5)).unwrap_err().to_string()
}

fn refusal(change: impl FnOnce(&mut Hardware)) -> String {
    refusal_of(|spec| change(&mut spec.hardware))
}

#[test]
fn a_good_description_is_taken() {
    let blueprint = Blueprint::new(spec(), files(4)).unwrap();
    assert_eq!((blueprint.vcpus, blueprint.parts.disks.len()), (1, 1));
}

#[test]
fn what_is_out_of_bounds_is_named_with_its_field() {
    assert!(refusal(|spec| spec.vcpus = 0).contains("vcpus is 0"));
    assert!(refusal(|spec| spec.vcpus = 65).contains("vcpus is 65"));
    assert!(refusal(|spec| spec.memory_mib = 31).contains("memory_mib is 31"));
    assert!(refusal(|spec| spec.memory_mib = 524_289).contains("memory_mib"));
    assert!(
        refusal_of(|spec| spec.memory_backing = MemoryBacking::Hugetlb1g)
            .contains("memory_mib is 64")
    );
    let parts = refusal_of(|spec| {
        spec.memory_backing = MemoryBacking::Hugetlb2m;
        spec.hardware.balloon = Some(BalloonSpec::default());
    });
    assert!(parts.contains("balloon cannot"), "{parts}");
    assert!(refusal_of(|spec| spec.cmdline = "a".repeat(2048)).contains("cmdline is 2048"));
    assert!(refusal_of(|spec| spec.cmdline = "a\nb".to_owned()).contains("cmdline"));
    assert!(refusal(|spec| spec.disks[0].serial = "a".repeat(21)).contains("disks[0].serial"));
    assert!(
        refusal(|spec| spec.disks[0].file = Descriptor(9))
            .contains("disks[0].file names descriptor 9, 5 came")
    );
    assert!(refusal(|spec| spec.disks[0].file = Descriptor(0)).contains("which another field has"));
    assert!(
        refusal(|spec| spec.vsock = Some(VsockSpec {
            cid: 2,
            listener: Descriptor(4)
        }))
        .contains("vsock.cid is 2")
    );
    let nic = |mac, mtu| NicSpec {
        taps: vec![Descriptor(4)],
        mac,
        mtu,
        limits: NicLimits::default(),
    };
    assert!(refusal(|spec| spec.nics = vec![nic([2, 0, 0, 0, 0, 1], 67)]).contains("nics[0].mtu"));
    assert!(
        refusal(|spec| spec.nics = vec![nic([1, 0, 0, 0, 0, 1], 1500)]).contains("nics[0].mac")
    );
    assert!(
        refusal(|spec| spec.nics = vec![NicSpec {
            taps: Vec::new(),
            ..nic([2, 0, 0, 0, 0, 1], 1500)
        }])
        .contains("nics[0].taps is 0")
    );
    assert!(
        refusal(|spec| spec.disks[0].limits.bytes = Some(Rate {
            per_second: 0,
            burst: 1
        }))
        .contains("disks[0].limits")
    );
    assert!(
        refusal(|spec| spec.balloon = Some(BalloonSpec { target_mib: 64 }))
            .contains("balloon.target_mib is 64")
    );
    assert!(
        refusal(|spec| spec.disks = vec![spec.disks[0].clone(); 18]).contains("19 devices; 18")
    );
}
