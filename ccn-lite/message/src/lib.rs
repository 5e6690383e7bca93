//! Aleph messages: the envelope, the contents of each type, hashes and signatures.
//!
//! Comes in: JSON and header text written by strangers. Goes out: types in which an illegal message cannot be
//! written, or a [`Rejection`] that names the field. Nothing here does I/O.
#![forbid(unsafe_code)]

#[macro_use]
mod names;

pub mod allocation;
mod chain;
mod content;
mod envelope;
mod error;
mod fields;
mod hash;
pub mod operator;
mod signing;

pub use chain::{Chain, MessageType, Scheme};
pub use content::aggregate::AggregateContent;
pub use content::environment::{
    Architecture, ConfidentialGpu, CpuRequirements, FunctionEnvironment, GpuDeviceClass,
    GpuRequirement, HostRequirements, Hypervisor, InstanceEnvironment, LaunchMeasurement,
    MachineResources, NetworkProtocol, NodeRequirements, PublishedPort, TrustedExecution,
    TrustedExecutionMode,
};
pub use content::executable::{Executable, Payment, PaymentType};
pub use content::forget::ForgetContent;
pub use content::instance::{InstanceContent, RootfsVolume};
pub use content::post::{ChainRef, PostContent, PostRef};
pub use content::program::{
    CodeContent, DataContent, Encoding, Export, FunctionRuntime, FunctionTriggers, Interface,
    ProgramContent,
};
pub use content::store::StoreContent;
pub use content::volume::{MachineVolume, ParentVolume, VolumePersistence, VolumeSource};
pub use content::vprogram::{
    TeeVerification, VerifiableProgramContent, VerifiableProgramEnvironment,
    VerifiableProgramRuntime, VerifiedVolume, VerifiedWorkload,
};
pub use content::{Base, Body, Content};
pub use envelope::{Envelope, MAX_CHANNEL_CHARS, MAX_INLINE_CHARS};
pub use error::{ErrorCode, Rejection};
pub use fields::FieldError;
pub use hash::{ItemHash, ItemType, UnknownHash};
pub use names::UnknownName;
pub use signing::{
    Flaw, Keypair, MAX_SIGNATURE_BYTES, SignatureError, SigningError, checksum_address,
    recover_eip191, verify_ed25519,
};
