//! Who may ask for what: [`scheduler`] decides about allocation pushes, [`owner`] about calls on one machine,
//! [`operator`] about the node's own.

pub mod operator;
pub mod owner;
pub mod scheduler;
