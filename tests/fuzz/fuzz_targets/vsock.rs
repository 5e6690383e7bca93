//! A vsock device whose driver is hostile, and a host that says what it likes.

#![no_main]

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use crn_fuzz::{Rig, Script, play};
use crn_vmm::devices::vsock::Vsock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Script, Vec<u8>)| {
    let (script, greeting) = input;
    let name = format!("crn-fuzz-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).expect("a name");
    let listener = UnixListener::bind_addr(&address).expect("a listener");
    let mut client = UnixStream::connect_addr(&address).expect("a client");
    client.set_nonblocking(true).expect("a socket");
    let _ = client.write_all(&greeting);
    let (mut vsock, offer) = Vsock::new(3, listener.into()).expect("a device");
    play(&mut vsock, &mut Rig::default(), &script, 3, offer.features);
});
