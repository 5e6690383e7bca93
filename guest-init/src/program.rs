//! A function: its root, its code, its process, until it ends.

use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crn_protocol::guest::{
    CONTROL_PORT, FromGuest, GuestConfig, HTTP_PORT, Identity, Interface, Program, ToGuest,
};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::code;
use crate::control::{Incoming, send};
use crate::disks::Disk;
use crate::error::{Context, Failure, Result, Stage};
use crate::supervise::{Action, Event, Exit, Phase};
use crate::system::say;
use crate::vsock::{Listener, Stream};
use crate::{
    files, identity, launch, network, notify, power_button, proxy, root, supervise, volumes,
};

/// An executable's port is asked for this long.
const EXECUTABLE_START: Duration = Duration::from_secs(60);
/// An ASGI application says itself when it has started; its host is the judge of how long that may take, and this
/// only ends what the host has forgotten.
const ASGI_START: Duration = Duration::from_secs(300);
/// What a power button leaves a program: it carries no number of its own.
const BUTTON_GRACE: Duration = Duration::from_secs(10);
/// How long processes killed at the end may take to go.
const KILLED_LEAVE: Duration = Duration::from_secs(2);

/// Runs the program to its end; returns the last line for the host.
///
/// # Errors
/// The stage at which it could not be started.
pub fn run(
    config: &GuestConfig,
    program: &Program,
    incoming: Incoming<Stream>,
    outgoing: &mut Stream,
) -> std::result::Result<FromGuest, Failure> {
    network::configure(config.network.as_ref()).stage("configure network")?;
    let runtime = Disk::with_serial(&program.runtime).stage("find runtime")?;
    root::overlay(&runtime).stage("mount runtime")?;
    root::switch().stage("switch root")?;
    root::furnish().stage("mount runtime")?;
    files::write(config).stage("write configuration files")?;
    let start = code::start(program).stage("read entrypoint")?;
    code::place(program, &start).stage("mount code")?;
    volumes::mount_all(&program.volumes).stage("mount volumes")?;

    let (events, happened) = channel();
    let main = start_program(config, program, &start, &events).stage(supervise::STAGE)?;
    let answers = outgoing
        .try_clone()
        .context(|| "duplicate the control stream".to_owned())
        .stage("listen on vsock")?;
    let config = Arc::new(Mutex::new(config.clone()));
    listen(incoming, answers, &config, &events).stage("listen on vsock")?;
    reap(main, events);
    let last = supervise(main, start_limit(program.interface), &happened, outgoing);
    clean_up(&program.volumes, &happened);
    Ok(last)
}

const fn start_limit(interface: Interface) -> Duration {
    match interface {
        Interface::Asgi => ASGI_START,
        Interface::Executable => EXECUTABLE_START,
    }
}

/// Starts the process and whatever learns that it is ready.
fn start_program(
    config: &GuestConfig,
    program: &Program,
    start: &code::Start,
    events: &Sender<Event>,
) -> Result<Pid> {
    let environment = launch::environment(&config.hostname, notify::SOCKET, &program.variables);
    let said =
        notify::bind(Path::new(notify::SOCKET)).context(|| format!("bind {}", notify::SOCKET))?;
    let ready = events.clone();
    spawn("notify", move || {
        if notify::wait_ready(&said).is_ok() {
            let _ = ready.send(Event::Ready);
        }
        // The socket stays: a program that reports on must not meet a closed one.
        let mut rest = [0; 512];
        while said.recv(&mut rest).is_ok() {}
    })?;
    match program.interface {
        Interface::Asgi => {
            let listener = TcpListener::bind(proxy::PROGRAM)
                .context(|| format!("listen on {}", proxy::PROGRAM))?;
            launch::spawn(start, environment, Some(listener))
        }
        Interface::Executable => {
            let main = launch::spawn(start, environment, None)?;
            let ready = events.clone();
            spawn("readiness", move || {
                if notify::wait_listening(proxy::PROGRAM, EXECUTABLE_START) {
                    let _ = ready.send(Event::Ready);
                }
            })?;
            Ok(main)
        }
    }
}

/// Opens the guest's ports and its power button.
fn listen(
    incoming: Incoming<Stream>,
    answers: Stream,
    config: &Arc<Mutex<GuestConfig>>,
    events: &Sender<Event>,
) -> Result<()> {
    let http = Listener::bind(HTTP_PORT).context(|| format!("listen on vsock port {HTTP_PORT}"))?;
    spawn("http", move || proxy::serve(&http))?;
    let control =
        Listener::bind(CONTROL_PORT).context(|| format!("listen on vsock port {CONTROL_PORT}"))?;
    let (later, known) = (events.clone(), Arc::clone(config));
    // An agent that has restarted comes here; one at a time, the newest waits for the one before to close.
    spawn("control listener", move || {
        while let Ok(stream) = control.accept() {
            match stream.try_clone() {
                Ok(answers) => obey(Incoming::new(stream), answers, &known, &later),
                Err(error) => say(&format!("duplicate the control stream: {error}")),
            }
        }
    })?;
    let (first, known) = (events.clone(), Arc::clone(config));
    spawn("control", move || obey(incoming, answers, &known, &first))?;
    let pressed = events.clone();
    power_button::watch(move || {
        let _ = pressed.send(Event::Shutdown {
            grace: BUTTON_GRACE,
        });
    });
    Ok(())
}

/// Takes the host's lines until it closes the stream.
fn obey(
    mut incoming: Incoming<Stream>,
    mut answers: Stream,
    config: &Mutex<GuestConfig>,
    events: &Sender<Event>,
) {
    loop {
        match incoming.next() {
            Ok(Some(ToGuest::Shutdown { grace_seconds })) => {
                let _ = events.send(Event::Shutdown {
                    grace: Duration::from_secs(grace_seconds.into()),
                });
            }
            Ok(Some(ToGuest::Renew(identity))) => {
                let answer = renew(config, *identity);
                if let Err(error) = send(&mut answers, &answer) {
                    say(&format!("answer to another identity: {error}"));
                }
            }
            Ok(Some(ToGuest::Configure(_))) => say("a second configuration was ignored"),
            Ok(None) => return,
            Err(error) => {
                say(&format!("{error}"));
                return;
            }
        }
    }
}

/// Becomes another guest; the answer to the host.
fn renew(config: &Mutex<GuestConfig>, identity: Identity) -> FromGuest {
    let mut config = config.lock().unwrap_or_else(PoisonError::into_inner);
    match identity::renew(&config, identity) {
        Ok(renewed) => {
            *config = renewed;
            FromGuest::Ready
        }
        Err(failure) => FromGuest::Failed {
            stage: failure.stage.to_owned(),
            error: failure.chain(),
        },
    }
}

/// Waits for every process there is: those whose parents have gone are PID 1's.
fn reap(main: Pid, events: Sender<Event>) {
    let wait = move || {
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status)))
                    if pid == main && (status.exited() || status.signaled()) =>
                {
                    let exit = Exit {
                        code: status.exit_status(),
                        signal: status.terminating_signal(),
                    };
                    let _ = events.send(Event::Exited(exit));
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // No process is left.
                Err(_) => break,
            }
        }
        let _ = events.send(Event::Alone);
    };
    if let Err(error) = spawn("reaper", wait) {
        panic!("no thread to wait for processes: {error}");
    }
}

fn supervise(
    main: Pid,
    limit: Duration,
    happened: &Receiver<Event>,
    outgoing: &mut Stream,
) -> FromGuest {
    let mut phase = Phase::Starting;
    let mut deadline = Some(Instant::now() + limit);
    loop {
        let event = match deadline {
            Some(at) => match happened.recv_timeout(at.saturating_duration_since(Instant::now())) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => {
                    deadline = None;
                    Event::Deadline
                }
                Err(RecvTimeoutError::Disconnected) => Event::Alone,
            },
            None => happened.recv().unwrap_or(Event::Alone),
        };
        match phase.on(event) {
            Action::Wait => {}
            Action::ReportReady => {
                deadline = None;
                // A host that has gone comes back by the guest's own port; the program runs on.
                if let Err(error) = send(outgoing, &FromGuest::Ready) {
                    say(&format!("report ready: {error}"));
                }
            }
            Action::Terminate { grace } => {
                deadline = Some(Instant::now() + grace);
                signal(main, Signal::TERM);
            }
            Action::Kill => signal(main, Signal::KILL),
            Action::Finish(last) => return last,
        }
    }
}

/// Signals the program's process group; before the program has made one, its process.
fn signal(main: Pid, signal: Signal) {
    if rustix::process::kill_process_group(main, signal).is_err() {
        let _ = rustix::process::kill_process(main, signal);
    }
}

/// Ends what the program has left behind and closes its volumes.
fn clean_up(mounted: &[crn_protocol::guest::Volume], happened: &Receiver<Event>) {
    // kill(-1): every process but the caller.
    let _ = rustix::process::kill_process_group(Pid::INIT, Signal::KILL);
    let until = Instant::now() + KILLED_LEAVE;
    loop {
        match happened.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Alone) | Err(_) => break,
            Ok(_) => {}
        }
    }
    volumes::unmount_all(mounted);
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .context(|| format!("start the thread {name}"))?;
    Ok(())
}
