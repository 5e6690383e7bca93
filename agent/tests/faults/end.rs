//! The agent is told to end while a program's answer is under way.
//!
//! A guest that answers needs a kernel, and stock kernels do not run everywhere; so here the monitor is this test program once more
//! ([`monitor`]), which speaks the real protocol over the real sockets and answers requests itself. Agent, its HTTP, its
//! ledger and the monitor's life as a process are the real ones.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aleph_message::{ItemHash, MessageType};
use axum::body::Body;
use bytes::Bytes;
use crn_agent::ledger::State;
use crn_protocol::control::{Command, Event, ExitReason, Reply, Report, Request, Status};
use crn_protocol::descriptors::{Receiver, send_with};
use crn_protocol::guest::{CONTROL_PORT, FromGuest, HTTP_PORT, VERSION};
use crn_protocol::lines;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use crate::host::{Host, Setup, inside};
use crate::support::{FakeCcn, squashfs};

/// Set in the monitor.
const MONITOR: &str = "CRN_TEST_MONITOR";
/// How long the monitor waits to be told to go on.
const PATIENCE: Duration = Duration::from_secs(120);
/// Each half of a long answer.
const HALF: usize = 512 * 1024;

/// Row "Supervision", §1.0: the answer under way is delivered whole, nothing new is let in, the machine goes on and the
/// next agent has it.
#[tokio::test]
async fn an_answer_under_way_is_delivered_when_the_agent_is_told_to_end_and_its_machine_goes_on() {
    if !inside(
        "end::an_answer_under_way_is_delivered_when_the_agent_is_told_to_end_and_its_machine_goes_on",
    ) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let vmm = directory.path().join("vmm");
    // The control socket stands at descriptor 3; the program finds it as its standard input.
    let script = format!(
        "#!/bin/sh\n{MONITOR}=1 exec '{}' --exact end::monitor --nocapture <&3\n",
        std::env::current_exe().unwrap().display()
    );
    std::fs::write(&vmm, script).unwrap();
    std::fs::set_permissions(&vmm, std::fs::Permissions::from_mode(0o755)).unwrap();
    let setup = Setup {
        vmm: Some(vmm),
        ..Setup::default()
    };
    let mut host = Host::with(FakeCcn::start().await, setup).await;
    host.start().await;
    let program = program(&host);
    let (status, body) = get(&host, &program, "/").await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"here"[..]));
    let before = host.processes();
    assert_eq!(before.len(), 1);

    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let url = format!("http://127.0.0.1:{}/vm/{program}/long", host.port);
    let response = client.get(url.parse().unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let answer = tokio::spawn(response.into_body().collect());
    host.tell_to_end();
    host.wait("new requests are refused", async |host| {
        get(host, &program, "/").await.0 == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert!(!answer.is_finished());
    assert!(host.agent.as_mut().unwrap().try_wait().unwrap().is_none());
    let run = host.dir.path().join("r/vm").join(program.as_str());
    std::fs::write(run.join("go"), "").unwrap();
    let answer = answer.await.unwrap().unwrap().to_bytes();
    assert_eq!(answer.len(), 2 * HALF);
    assert!(answer[..HALF].iter().all(|byte| *byte == b'1'));
    assert!(answer[HALF..].iter().all(|byte| *byte == b'2'));
    let ended = host.agent.take().unwrap().wait().unwrap();
    assert!(ended.success(), "{ended}");
    assert_eq!(host.processes(), before, "the machine goes on");

    host.start().await;
    let started = host.record(&program).await.unwrap().times.started;
    let (status, body) = get(&host, &program, "/").await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"here"[..]));
    assert_eq!(host.processes(), before, "the same machine answers");
    let record = host.record(&program).await.unwrap();
    assert_eq!(
        (record.state, record.times.started),
        (State::Running, started)
    );
    host.forget(&program);
    host.settle(&BTreeSet::new()).await;
}

fn program(host: &Host) -> ItemHash {
    let code = host.ccn.store(&host.owner, b"code");
    let runtime = host.ccn.store(&host.owner, &squashfs("runtime"));
    let content = json!({
        "type": "vm-function", "allow_amend": false,
        "code": {"encoding": "zip", "entrypoint": "main:app", "ref": code, "use_latest": false},
        "runtime": {"ref": runtime, "use_latest": false, "comment": ""},
        "on": {"http": true},
        "environment": {"internet": false, "aleph_api": false, "reproducible": false, "shared_cache": false},
        "resources": {"vcpus": 1, "memory": 64, "seconds": 30},
        "volumes": [],
    });
    host.ccn.publish(&host.owner, MessageType::Program, content)
}

async fn get(host: &Host, program: &ItemHash, path: &str) -> (StatusCode, Bytes) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let url = format!("http://127.0.0.1:{}/vm/{program}{path}", host.port);
    let response = client.get(url.parse().unwrap()).await.unwrap();
    let status = response.status();
    (
        status,
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

/// The monitor: not a test of its own.
#[test]
fn monitor() {
    if std::env::var_os(MONITOR).is_none() {
        return;
    }
    let run = PathBuf::from(std::env::var_os("CRN_RUN_DIR").unwrap());
    let listener = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut launched = false;
    loop {
        let (socket, _) = listener.accept().unwrap();
        let mut receiver = Receiver::default();
        // An agent that is killed without having read everything resets the connection.
        while receiver.read(&socket).is_ok_and(|count| count > 0) {
            while let Some(Command { id, request }) = receiver.next().unwrap() {
                let greets = matches!(request, Request::Launch(_));
                let result = match request {
                    Request::Launch(spec) => {
                        // The highest that is named, and those before it.
                        let last = spec.descriptors().map(|one| usize::from(one.0)).max();
                        let mut files = receiver.take(last.unwrap() + 1).unwrap();
                        let vsock = spec.hardware.vsock.unwrap();
                        let vsock = files.swap_remove(usize::from(vsock.listener.0));
                        let run = run.clone();
                        std::thread::spawn(move || serve(vsock, &run));
                        launched = true;
                        Ok(())
                    }
                    Request::Status => Ok(()),
                    Request::Stop => {
                        launched = false;
                        Ok(())
                    }
                    other => Err(format!("not here: {other:?}")),
                };
                let result = result.map(|()| Status {
                    running: launched,
                    ..Status::default()
                });
                report(&socket, &Report::Reply(Reply { id, result }), None);
                if greets {
                    greet(&socket);
                } else if !launched {
                    end(&socket);
                }
            }
        }
    }
}

fn report(socket: &UnixStream, report: &Report, descriptor: Option<&UnixStream>) {
    let line = lines::encode(report).unwrap();
    let descriptors: Vec<_> = descriptor.iter().map(|stream| stream.as_fd()).collect();
    assert_eq!(send_with(socket, &line, &descriptors).unwrap(), line.len());
}

fn end(socket: &UnixStream) -> ! {
    let reason = ExitReason::Stopped;
    let detail = String::new();
    report(
        socket,
        &Report::Event(Event::Exited { reason, detail }),
        None,
    );
    std::process::exit(i32::from(reason.code()));
}

/// What an init says first.
fn greet(socket: &UnixStream) {
    let (theirs, mut guest) = UnixStream::pair().unwrap();
    let event = Event::GuestConnect { port: CONTROL_PORT };
    report(socket, &Report::Event(event), Some(&theirs));
    let hello = FromGuest::Hello {
        version: VERSION,
        kernel: "6.12".to_owned(),
    };
    guest.write_all(&lines::encode(&hello).unwrap()).unwrap();
    let mut line = String::new();
    BufReader::new(guest.try_clone().unwrap())
        .read_line(&mut line)
        .unwrap();
    guest
        .write_all(&lines::encode(&FromGuest::Ready).unwrap())
        .unwrap();
    // Kept open, as an init that runs a program does.
    std::mem::forget(guest);
}

/// The guest's ports.
fn serve(listener: OwnedFd, run: &Path) {
    for stream in UnixListener::from(listener).incoming() {
        let run = run.to_owned();
        std::thread::spawn(move || answer(stream.unwrap(), &run));
    }
}

/// A long answer has two halves, and the second one comes when there is a file `go`.
fn answer(mut stream: UnixStream, run: &Path) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    if line != format!("CONNECT {HTTP_PORT}\n") {
        return;
    }
    stream
        .write_all(format!("OK {HTTP_PORT}\n").as_bytes())
        .unwrap();
    line.clear();
    reader.read_line(&mut line).unwrap();
    let long = line.contains("/long");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    let length = if long { 2 * HALF } else { 4 };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    if !long {
        return stream.write_all(b"here").unwrap();
    }
    stream.write_all(&vec![b'1'; HALF]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !run.join("go").exists() {
        assert!(Instant::now() < deadline, "never told to go on");
        std::thread::sleep(Duration::from_millis(20));
    }
    stream.write_all(&vec![b'2'; HALF]).unwrap();
    // Until the other side has read it all.
    let _ = reader.read(&mut [0]);
}
