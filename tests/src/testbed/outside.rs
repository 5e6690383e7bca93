//! A web server on the loopback of the machine that runs QEMU. User-mode networking shows it to guests as
//! `10.0.2.2` and `fec0::2`: for them it is the internet, reached through the node's NAT (IPv4) and its neighbour
//! proxy (IPv6).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// The running server.
#[derive(Debug)]
pub struct Outside {
    port: u16,
}

/// What it answers.
pub const GREETING: &str = "hello from outside";

impl Outside {
    /// Starts it on both loopbacks; it ends with the process.
    ///
    /// # Errors
    /// When no port is free on both.
    pub fn start() -> Result<Self> {
        for _ in 0..50 {
            let v4 =
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on 127.0.0.1")?;
            let port = v4.local_addr()?.port();
            let Ok(v6) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)) else {
                continue;
            };
            for listener in [v4, v6] {
                thread::spawn(move || serve(&listener));
            }
            return Ok(Self { port });
        }
        anyhow::bail!("no port is free on both 127.0.0.1 and ::1")
    }

    /// Its URL for a guest over IPv4.
    #[must_use]
    pub fn url_v4(&self) -> String {
        format!("http://10.0.2.2:{}/", self.port)
    }

    /// Its URL for a guest over IPv6.
    #[must_use]
    pub fn url_v6(&self) -> String {
        format!("http://[fec0::2]:{}/", self.port)
    }
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let mut head = [0u8; 4096];
        let _ = stream.read(&mut head);
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{GREETING}",
            GREETING.len()
        );
    }
}
