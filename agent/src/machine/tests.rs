//! Machines whose `crn-vmm` is this test program once more ([`peer`]): it speaks the real protocol over the real
//! sockets, and is told by the kernel's command line how to behave.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use crn_protocol::control::{Command, Event, Reply, Report, VmSpec};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::guest::{FromGuest, VERSION, Workload};

use super::*;

const PEER: &str = "CRN_TEST_PEER";
const VM: &str = "deadbeefca0f0000000000000000000000000000000000000000000000000001";
const PATIENCE: Duration = Duration::from_secs(20);

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kvm", "kernel", "initramfs", "disk"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir(dir.path().join("state")).unwrap();
        peer_program(
            dir.path(),
            "[ \"$*\" = '--control-fd 3 --uid 1900000000 --gid 1900000000' ] || exit 9",
        );
        Self { dir }
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn spec(&self, behaviour: &str) -> MachineSpec {
        let path = |name: &str| self.dir.path().join(name);
        MachineSpec {
            vm: VM.to_owned(),
            vmm: path("vmm"),
            kvm: path("kvm"),
            run_dir: self.run_dir(),
            state_dir: path("state"),
            console_bytes: 1 << 20,
            kernel: path("kernel"),
            initramfs: path("initramfs"),
            cmdline: behaviour.to_owned(),
            vcpus: 1,
            memory_mib: 64,
            disks: vec![Disk {
                path: path("disk"),
                read_only: false,
                serial: "root".to_owned(),
            }],
            nic: None,
            cid: 3,
            identity: 1_900_000_000,
            spare: None,
            cgroups: None,
            guest: guest(),
        }
    }
}

/// A program `vmm` in a directory that is the other side, after it has done what is said `first`.
pub fn peer_program(dir: &Path, first: &str) -> PathBuf {
    let path = dir.join("vmm");
    // The control socket stands at descriptor 3; the other side finds it as its standard input.
    let script = format!(
        "#!/bin/sh\n{first}\n{PEER}=1 exec '{}' --exact machine::tests::peer --nocapture <&3\n",
        std::env::current_exe().unwrap().display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Whether this is root, who alone makes PID namespaces; whoever is not runs the test again as root of a user namespace.
pub fn root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let output = std::process::Command::new("unshare")
        .args(["--map-root-user", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("machine::{test}")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} failed: {said}");
    false
}

fn guest() -> GuestConfig {
    GuestConfig {
        hostname: "name".to_owned(),
        network: None,
        workload: Workload::Instance {
            root: "root".to_owned(),
        },
    }
}

async fn next(events: &mut mpsc::Receiver<MachineEvent>) -> Option<MachineEvent> {
    timeout(PATIENCE, events.recv()).await.unwrap()
}

fn exited(reason: ExitReason) -> Option<MachineEvent> {
    Some(MachineEvent::Exited {
        reason,
        detail: String::new(),
    })
}

#[tokio::test]
async fn a_machine_starts_says_it_is_ready_and_stops_when_told() {
    if !root("tests::a_machine_starts_says_it_is_ready_and_stops_when_told") {
        return;
    }
    let host = Host::new();
    let (machine, mut events) = Machine::start(host.spec("")).await.unwrap();
    assert_eq!(next(&mut events).await, Some(MachineEvent::GuestReady));
    assert!(machine.status().await.unwrap().running);
    assert_eq!(
        fs::read(host.dir.path().join("state/console.log")).unwrap(),
        b"console"
    );
    assert_eq!(fs::read(host.dir.path().join("disk")).unwrap(), b"written");
    machine.stop(PATIENCE).await.unwrap();
    assert!(!host.run_dir().exists());
    assert_eq!(next(&mut events).await, exited(ExitReason::Stopped));
    assert_eq!(next(&mut events).await, None);
    assert!(matches!(
        machine.status().await,
        Err(MachineError::Gone {
            reason: ExitReason::Stopped,
            ..
        })
    ));
    machine.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_machine_takes_a_monitor_in_reserve_and_is_found_like_any_other() {
    if !root("tests::a_machine_takes_a_monitor_in_reserve_and_is_found_like_any_other") {
        return;
    }
    let host = Host::new();
    let vmm = peer_program(host.dir.path(), "");
    let places = ["pool", "logs"].map(|name| host.dir.path().join(name));
    let pool = pool::Pool::open(&vmm, &places[0], &places[1], 1).unwrap();
    let spare = async {
        loop {
            match pool.take() {
                Some(spare) => break spare,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let spare = timeout(PATIENCE, spare).await.unwrap();
    let mut spec = host.spec("ready");
    // No other process is started.
    spec.vmm = host.dir.path().join("missing");
    spec.spare = Some(spare);
    let (machine, mut events) = Machine::start(spec).await.unwrap();
    assert_eq!(next(&mut events).await, Some(MachineEvent::GuestReady));
    assert!(Process::find(&host.run_dir()).unwrap().is_some());
    machine.stop(PATIENCE).await.unwrap();
    assert!(!host.run_dir().exists());
}

#[tokio::test]
async fn a_console_carries_what_is_printed_and_what_is_typed() {
    if !root("tests::a_console_carries_what_is_printed_and_what_is_typed") {
        return;
    }
    let host = Host::new();
    let (machine, _events) = Machine::start(host.spec("")).await.unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    machine.attach_console(theirs.into()).await.unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut ours = tokio::net::UnixStream::from_std(ours).unwrap();
    ours.write_all(b"root\n").await.unwrap();
    let mut said = String::new();
    timeout(PATIENCE, ours.read_to_string(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(said, "login: ROOT\n");
    machine.stop(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn the_power_button_and_the_guests_own_port_end_it_in_order() {
    if !root("tests::the_power_button_and_the_guests_own_port_end_it_in_order") {
        return;
    }
    for by_button in [true, false] {
        let host = Host::new();
        let (machine, mut events) = Machine::start(host.spec("")).await.unwrap();
        assert_eq!(next(&mut events).await, Some(MachineEvent::GuestReady));
        if by_button {
            machine.power_button().await.unwrap();
        } else {
            machine
                .shutdown_program(Duration::from_secs(2))
                .await
                .unwrap();
        }
        assert_eq!(next(&mut events).await, exited(ExitReason::PowerOff));
    }
}

#[tokio::test]
async fn a_programs_last_words_come_before_its_machines_end() {
    if !root("tests::a_programs_last_words_come_before_its_machines_end") {
        return;
    }
    let host = Host::new();
    let (_machine, mut events) = Machine::start(host.spec("program-ends")).await.unwrap();
    assert_eq!(next(&mut events).await, Some(MachineEvent::GuestReady));
    assert_eq!(
        next(&mut events).await,
        Some(MachineEvent::ProgramExited {
            code: Some(7),
            signal: None
        })
    );
    assert_eq!(next(&mut events).await, exited(ExitReason::PowerOff));
}

#[tokio::test]
async fn a_refused_launch_leaves_nothing() {
    if !root("tests::a_refused_launch_leaves_nothing") {
        return;
    }
    let host = Host::new();
    let error = Machine::start(host.spec("refuse")).await.unwrap_err();
    assert_eq!(error.to_string(), "crn-vmm refused launch: no such kernel");
    assert!(!host.run_dir().exists());
    let error = Machine::start(MachineSpec {
        kernel: "/none".into(),
        ..host.spec("")
    })
    .await
    .unwrap_err();
    assert_eq!(error.to_string(), "cannot open /none");
    assert!(!host.run_dir().exists());
    let error = Machine::start(MachineSpec {
        vmm: "/none".into(),
        ..host.spec("")
    })
    .await
    .unwrap_err();
    assert_eq!(error.to_string(), "cannot start /none");
    assert!(!host.run_dir().exists());
}

#[tokio::test]
async fn a_vmm_that_crashes_is_a_machine_that_failed() {
    if !root("tests::a_vmm_that_crashes_is_a_machine_that_failed") {
        return;
    }
    let host = Host::new();
    let (_machine, mut events) = Machine::start(host.spec("crash")).await.unwrap();
    let Some(MachineEvent::Exited {
        reason: ExitReason::Failed,
        detail,
    }) = next(&mut events).await
    else {
        panic!("no end")
    };
    assert!(detail.contains("exit status 101"), "{detail}");
}

#[tokio::test]
async fn a_vmm_that_does_not_stop_is_killed() {
    if !root("tests::a_vmm_that_does_not_stop_is_killed") {
        return;
    }
    let host = Host::new();
    let (machine, mut events) = Machine::start(host.spec("stubborn")).await.unwrap();
    machine.stop(Duration::from_millis(300)).await.unwrap();
    assert!(!host.run_dir().exists());
    while let Some(event) = next(&mut events).await {
        if let MachineEvent::Exited { reason, .. } = event {
            return assert_eq!(reason, ExitReason::Failed);
        }
    }
    panic!("no end");
}

#[tokio::test]
async fn a_guest_that_talks_nonsense_is_not_heard_and_harms_nobody() {
    if !root("tests::a_guest_that_talks_nonsense_is_not_heard_and_harms_nobody") {
        return;
    }
    let host = Host::new();
    let (machine, mut events) = Machine::start(host.spec("nonsense")).await.unwrap();
    assert!(machine.status().await.unwrap().running);
    machine.stop(PATIENCE).await.unwrap();
    assert_eq!(next(&mut events).await, exited(ExitReason::Stopped));
}

#[test]
fn a_machine_outlives_its_agent_and_is_adopted_by_the_next() {
    if !root("tests::a_machine_outlives_its_agent_and_is_adopted_by_the_next") {
        return;
    }
    let host = Host::new();
    let first = tokio::runtime::Runtime::new().unwrap();
    first.block_on(async {
        let (_machine, mut events) = Machine::start(host.spec("")).await.unwrap();
        assert_eq!(next(&mut events).await, Some(MachineEvent::GuestReady));
    });
    drop(first);

    let second = tokio::runtime::Runtime::new().unwrap();
    second.block_on(async {
        let (machine, mut events) = Machine::adopt(VM, &host.run_dir(), guest())
            .await
            .unwrap()
            .unwrap();
        assert!(machine.status().await.unwrap().running);
        machine.stop(PATIENCE).await.unwrap();
        assert_eq!(next(&mut events).await, exited(ExitReason::Stopped));
        assert!(
            Machine::adopt(VM, &host.run_dir(), guest())
                .await
                .unwrap()
                .is_none()
        );
        fs::create_dir(host.run_dir()).unwrap();
        fs::write(host.run_dir().join("vmm.pid"), "1 1\n").unwrap();
        assert!(
            Machine::adopt(VM, &host.run_dir(), guest())
                .await
                .unwrap()
                .is_none()
        );
        assert!(!host.run_dir().exists());
    });
}

#[test]
fn a_machine_whose_agent_was_killed_before_it_noted_it_is_found_and_one_that_was_not_launched_ends()
{
    let host = Host::new();
    let first = tokio::runtime::Runtime::new().unwrap();
    first.block_on(async {
        let (_machine, mut events) = Machine::start(host.spec("")).await.unwrap();
        assert_eq!(next(&mut events).await, Some(MachineEvent::GuestReady));
    });
    drop(first);
    fs::remove_file(host.run_dir().join("vmm.pid")).unwrap();
    let second = tokio::runtime::Runtime::new().unwrap();
    second.block_on(async {
        let found = Machine::adopt(VM, &host.run_dir(), guest()).await.unwrap();
        let (machine, _events) = found.unwrap();
        assert!(machine.status().await.unwrap().running);
        machine.stop(PATIENCE).await.unwrap();

        let mut process = launch::prepare(host.spec("")).unwrap().0;
        fs::remove_file(host.run_dir().join("vmm.pid")).unwrap();
        let found = Machine::adopt(VM, &host.run_dir(), guest()).await.unwrap();
        assert!(found.is_none() && !host.run_dir().exists());
        timeout(PATIENCE, process.ended()).await.unwrap();
    });
}

/// The other side: not a test of its own.
#[test]
fn peer() {
    if std::env::var_os(PEER).is_none() {
        return;
    }
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut behaviour = String::new();
    let mut launched = false;
    loop {
        let (socket, _) = listener.accept().unwrap();
        let mut receiver = Receiver::default();
        // A controller that goes without having read everything resets the connection.
        while receiver.read(&socket).is_ok_and(|count| count > 0) {
            while let Some(Command { id, request }) = receiver.next().unwrap() {
                let tell = |result| report(&socket, &Report::Reply(Reply { id, result }), None);
                let running = Ok(Status {
                    running: launched,
                    ..Status::default()
                });
                match request {
                    Request::Launch(spec) => {
                        launched = true;
                        let running = Ok(Status {
                            running: true,
                            ..Status::default()
                        });
                        behaviour.clone_from(&spec.cmdline);
                        if behaviour == "refuse" {
                            tell(Err("no such kernel".to_owned()));
                            std::process::exit(1);
                        }
                        launch(*spec, &mut receiver, &socket);
                        tell(running);
                        greet(&socket, &behaviour);
                    }
                    Request::Status => tell(running),
                    Request::PowerButton => {
                        tell(running);
                        end(&socket, ExitReason::PowerOff);
                    }
                    Request::PowerOff { .. }
                    | Request::Restore(_)
                    | Request::Snapshot(_)
                    | Request::Pause
                    | Request::Resume
                    | Request::AttachDisk(_)
                    | Request::DetachDisk { .. }
                    | Request::SetLimits { .. }
                    | Request::Balloon { .. } => tell(Err("not here".to_owned())),
                    Request::AttachConsole { stream } => {
                        assert_eq!(stream.0, 0);
                        let stream = receiver.take(1).unwrap().remove(0);
                        tell(running);
                        let mut stream = UnixStream::from(stream);
                        stream.write_all(b"login: ").unwrap();
                        let mut typed = [0; 5];
                        stream.read_exact(&mut typed).unwrap();
                        stream.write_all(&typed.to_ascii_uppercase()).unwrap();
                    }
                    Request::Stop if behaviour == "stubborn" => {}
                    Request::Stop => {
                        tell(Ok(Status::default()));
                        end(&socket, ExitReason::Stopped);
                    }
                }
            }
        }
    }
}

fn report(socket: &UnixStream, report: &Report, descriptor: Option<&UnixStream>) {
    let line = lines::encode(report).unwrap();
    let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
    assert_eq!(send_with(socket, &line, &descriptors).unwrap(), line.len());
}

fn end(socket: &UnixStream, reason: ExitReason) -> ! {
    report(
        socket,
        &Report::Event(Event::Exited {
            reason,
            detail: String::new(),
        }),
        None,
    );
    std::process::exit(i32::from(reason.code()));
}

fn launch(spec: VmSpec, receiver: &mut Receiver, socket: &UnixStream) {
    let mut files = receiver.take(6).unwrap();
    let hardware = spec.hardware;
    let vsock = hardware.vsock.unwrap();
    assert_eq!((vsock.cid, hardware.disks[0].serial.as_str()), (3, "root"));
    let read = |at: u8| {
        fs::read_to_string(format!("/proc/self/fd/{}", fd(&files[usize::from(at)]))).unwrap()
    };
    assert_eq!(
        (
            read(spec.kernel.0).as_str(),
            read(spec.initramfs.unwrap().0).as_str()
        ),
        ("kernel", "initramfs")
    );
    for (at, text) in [
        (hardware.console.output, "console"),
        (hardware.disks[0].file, "written"),
    ] {
        let mut file = fs::File::from(files[usize::from(at.0)].try_clone().unwrap());
        file.write_all(text.as_bytes()).unwrap();
    }
    let listener = UnixListener::from(files.remove(usize::from(vsock.listener.0)));
    let socket = socket.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert_eq!(line, "CONNECT 1024\n");
        stream.get_mut().write_all(b"OK 1024\n").unwrap();
        line.clear();
        stream.read_line(&mut line).unwrap();
        assert_eq!(line, "{\"shutdown\":{\"grace_seconds\":2}}\n");
        end(&socket, ExitReason::PowerOff);
    });
}

fn fd(file: &OwnedFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(file)
}

/// The guest's first words, as its behaviour has them.
fn greet(socket: &UnixStream, behaviour: &str) {
    if behaviour == "crash" {
        panic!("told to");
    }
    let (host, mut guest) = UnixStream::pair().unwrap();
    report(
        socket,
        &Report::Event(Event::GuestConnect { port: CONTROL_PORT }),
        Some(&host),
    );
    drop(host);
    let mut say = |said: &FromGuest| guest.write_all(&lines::encode(said).unwrap()).unwrap();
    if behaviour == "nonsense" {
        return guest.write_all(b"\xff\x00 nonsense\n").unwrap();
    }
    say(&FromGuest::Hello {
        version: VERSION,
        kernel: "6.12".to_owned(),
    });
    let mut line = String::new();
    BufReader::new(guest.try_clone().unwrap())
        .read_line(&mut line)
        .unwrap();
    let configure: ToGuest = serde_json::from_str(&line).unwrap();
    assert!(matches!(configure, ToGuest::Configure(config) if config.hostname == "name"));
    // Said twice, heard once; in one piece, since the other side may be gone once it has heard the first.
    let ready = lines::encode(&FromGuest::Ready).unwrap();
    guest.write_all(&[ready.clone(), ready].concat()).unwrap();
    let mut say = |said: &FromGuest| guest.write_all(&lines::encode(said).unwrap()).unwrap();
    if behaviour == "program-ends" {
        say(&FromGuest::Exited {
            code: Some(7),
            signal: None,
        });
        guest.shutdown(Shutdown::Both).ok();
        end(socket, ExitReason::PowerOff);
    }
    // Kept open, as an init that runs a program does.
    std::mem::forget(guest);
}
