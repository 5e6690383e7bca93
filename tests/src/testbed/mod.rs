//! The testbed: the appliance as an operator boots it and a user meets it.
//!
//! [`appliance`] boots the disk image under OVMF in QEMU; [`settings`] writes the operator's configuration files;
//! [`client`] drives the published Python client; [`ssh`] reaches instances; [`probe`] looks at the host's TAPs,
//! firewall, processes and files from inside; [`outside`] is a web server that stands for the internet.

pub mod appliance;
pub mod client;
pub mod credentials;
pub mod http;
pub mod outside;
pub mod probe;
pub mod products;
pub mod settings;
pub mod ssh;
pub mod steps;
