//! What keeps machines apart from the host and from one another, as the host's kernel tells it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};

use http::{Method, StatusCode};
use procfs::net::{TcpState, UdpState};
use procfs::process::{FDTarget, Process};

use crate::host::{Host, inside};

/// A field of `/proc/<pid>/status` (proc_pid_status(5)), as words.
fn status(pid: i32, field: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let words = line.unwrap().trim_start_matches(':').split_whitespace();
    words.map(str::to_owned).collect()
}

fn namespace(pid: &str, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    link.to_str().unwrap().to_owned()
}

/// S1: agent, monitors and helpers were root, and machines were one user without namespaces.
#[tokio::test]
async fn each_machine_is_a_user_of_its_own_in_namespaces_of_its_own_without_any_right() {
    if !inside(
        "apart::each_machine_is_a_user_of_its_own_in_namespaces_of_its_own_without_any_right",
    ) {
        return;
    }
    let mut host = Host::new().await;
    host.start().await;
    let wanted: BTreeSet<_> = ["a", "b", "c"].map(|name| host.instance(name, 1000)).into();
    host.push(&wanted).await;
    host.settle(&wanted).await;
    let (mut users, mut homes) = (BTreeSet::new(), BTreeSet::new());
    for (pid, name) in host.processes() {
        let user = status(pid, "Uid");
        assert_eq!(
            user,
            vec![user[0].clone(); 4],
            "{name}: real, effective, saved, files'"
        );
        assert!(user[0].parse::<u32>().unwrap() >= 1_900_000_000, "{user:?}");
        assert!(users.insert(user), "{name} is another machine's user too");
        let group = status(pid, "Gid");
        assert!(
            group
                .iter()
                .all(|one| one.parse::<u32>().unwrap() >= 1_900_000_000),
            "{group:?}"
        );
        assert!(status(pid, "Groups").is_empty());
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(pid, set), ["0000000000000000"], "{name}: {set}");
        }
        assert_eq!(status(pid, "NoNewPrivs"), ["1"]);
        assert_eq!(status(pid, "Seccomp"), ["2"], "filters");
        assert_eq!(
            status(pid, "NSpid").last().unwrap(),
            "1",
            "the first of its namespace"
        );
        for kind in ["mnt", "net", "ipc", "uts", "pid"] {
            let own = namespace(&pid.to_string(), kind);
            assert_ne!(own, namespace("self", kind), "{name}: {kind} is the host's");
            assert!(homes.insert(own), "{name}: {kind} is another machine's");
        }
        let root = fs::read_dir(format!("/proc/{pid}/root")).unwrap();
        assert_eq!(root.count(), 0, "{name}: its root is empty");
    }
    assert_eq!(users.len(), wanted.len());
}

/// S8: what a guest had written on its disk was looked at as root, and whatever file it named was its disk.
#[tokio::test]
async fn a_disk_that_claims_to_be_an_image_on_a_file_of_the_hosts_is_bytes_and_nothing_is_mounted()
{
    if !inside(
        "apart::a_disk_that_claims_to_be_an_image_on_a_file_of_the_hosts_is_bytes_and_nothing_is_mounted",
    ) {
        return;
    }
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut host = Host::new().await;
    let before = mounts();
    host.start().await;
    let hash = host.instance("a", 1000);
    let wanted = BTreeSet::from([hash.clone()]);
    host.push(&wanted).await;
    host.settle(&wanted).await;
    let disk = host
        .dir
        .path()
        .join("s/vm")
        .join(hash.as_str())
        .join("root.raw");
    // A qcow2 header of version 3 (docs/interop/qcow2 of QEMU) whose backing file is the host's.
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    header[8..16].copy_from_slice(&256u64.to_be_bytes());
    header[16..20].copy_from_slice(&11u32.to_be_bytes());
    header[20..24].copy_from_slice(&16u32.to_be_bytes());
    header[24..32].copy_from_slice(&(12u64 << 20).to_be_bytes());
    header[100..104].copy_from_slice(&104u32.to_be_bytes());
    header[256..267].copy_from_slice(b"/etc/passwd");
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&disk)
        .unwrap();
    file.write_all_at(&header, 0).unwrap();
    // A superblock of btrfs beside it, which was mounted.
    file.write_all_at(b"_BHRfS_M", 0x1_0040).unwrap();
    let written = fs::read(&disk).unwrap();
    let (old, _) = host.processes()[0].clone();
    let pid = rustix::process::Pid::from_raw(old).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    host.wait("it is started again", async |host| {
        host.processes().first().is_some_and(|(pid, _)| *pid != old)
    })
    .await;
    host.settle(&wanted).await;
    assert!(
        fs::read(&disk).unwrap() == written,
        "its bytes are its own affair"
    );
    let (pid, _) = host.processes()[0];
    let open: Vec<_> = Process::new(pid).unwrap().fd().unwrap().flatten().collect();
    let paths = open
        .iter()
        .filter_map(|descriptor| match &descriptor.target {
            FDTarget::Path(path) => Some(path.display().to_string()),
            _ => None,
        });
    let paths: Vec<_> = paths.collect();
    assert!(
        paths.iter().any(|path| path.ends_with("/root.raw")),
        "{paths:?}"
    );
    assert!(
        !paths.iter().any(|path| path.contains("/etc/")),
        "{paths:?}"
    );
    assert_eq!(mounts(), before, "what the host has mounted");
}

/// S10: all programs' cache was one, and the proxy's statistics stood open on a port of their own. Here one port is open, the
/// configured one, what is measured is the operator's, and a guest has a socket of its own and no other way in.
#[tokio::test]
async fn the_node_listens_on_its_one_port_and_each_machine_on_none() {
    if !inside("apart::the_node_listens_on_its_one_port_and_each_machine_on_none") {
        return;
    }
    let mut host = Host::new().await;
    host.start().await;
    let wanted: BTreeSet<_> = ["a", "b"].map(|name| host.instance(name, 1000)).into();
    host.push(&wanted).await;
    host.settle(&wanted).await;
    let agent = i32::try_from(host.agent.as_ref().unwrap().id()).unwrap();
    let listening = |pid: i32| {
        let process = Process::new(pid).unwrap();
        let sockets: BTreeSet<u64> = process
            .fd()
            .unwrap()
            .flatten()
            .filter_map(|descriptor| match descriptor.target {
                FDTarget::Socket(inode) => Some(inode),
                _ => None,
            })
            .collect();
        let tcp = process
            .tcp()
            .unwrap()
            .into_iter()
            .chain(process.tcp6().unwrap());
        let udp = process
            .udp()
            .unwrap()
            .into_iter()
            .chain(process.udp6().unwrap());
        let tcp = tcp.filter(|entry| entry.state == TcpState::Listen);
        let udp = udp.filter(|entry| entry.state == UdpState::Close);
        let all = tcp
            .map(|entry| (entry.inode, entry.local_address))
            .chain(udp.map(|entry| (entry.inode, entry.local_address)));
        let own = all.filter(|(inode, _)| sockets.contains(inode));
        own.map(|(_, address)| address.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(listening(agent), [format!("127.0.0.1:{}", host.port)]);
    for (pid, name) in host.processes() {
        assert_eq!(listening(pid), [""; 0], "{name}");
        let run = host.dir.path().join("r/vm").join(&name);
        let files = fs::read_dir(run).unwrap().map(|entry| entry.unwrap());
        let sockets = files.filter(|file| file.file_type().unwrap().is_socket());
        let names: BTreeSet<_> = sockets
            .map(|file| file.file_name().into_string().unwrap())
            .collect();
        let expected = ["control.sock", "vsock.sock"].map(str::to_owned);
        assert_eq!(names, BTreeSet::from(expected), "{name}");
    }
    for path in ["/metrics", "/about/config", "/control/events"] {
        let refused = host.request(Method::GET, path, String::new(), None).await;
        assert_eq!(refused, Some(StatusCode::UNAUTHORIZED), "{path}");
    }
}
