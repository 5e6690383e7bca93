//! Who may ask for what: [`scheduler`] decides about allocation pushes, [`owner`] about calls on one machine.

pub mod owner;
pub mod scheduler;
