//! What messages say: one file per type, read with the reference schema's rules.

use serde::Serialize;
use serde_json::Value;

use crate::fields::{Object, Parsed, float_within, text};
use crate::{MessageType, Rejection};

pub(crate) mod aggregate;
pub(crate) mod environment;
pub(crate) mod executable;
pub(crate) mod forget;
pub(crate) mod instance;
pub(crate) mod post;
pub(crate) mod program;
pub(crate) mod store;
mod trusted;
pub(crate) mod volume;
pub(crate) mod vprogram;

use aggregate::AggregateContent;
use executable::{Executable, Payment};
use forget::ForgetContent;
use instance::InstanceContent;
use post::PostContent;
use program::ProgramContent;
use store::StoreContent;
use vprogram::VerifiableProgramContent;

/// Latest accepted time, Unix seconds (the year 2262).
pub(crate) const MAX_TIME: f64 = 9_223_372_036.0;

/// Fields every content has.
pub(crate) const BASE: &[&str] = &["address", "time"];

/// A content that follows the schema of its type, with the JSON it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// The typed content.
    pub body: Body,
    /// The JSON as written by the sender.
    pub raw: Value,
}

/// The typed content of each message type. Serialises with all defaults and nulls written out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// Free-form data.
    Post(PostContent),
    /// An entry of a key-value map.
    Aggregate(AggregateContent),
    /// A file.
    Store(StoreContent),
    /// A program.
    Program(Box<ProgramContent>),
    /// A virtual private server.
    Instance(Box<InstanceContent>),
    /// A confidential machine whose whole software is measured.
    VerifiableProgram(Box<VerifiableProgramContent>),
    /// A demand to forget messages.
    Forget(ForgetContent),
}

impl Content {
    /// Reads a content of this type.
    ///
    /// # Errors
    /// `INVALID_FORMAT`, naming the field.
    pub fn parse(message_type: MessageType, raw: Value) -> Result<Self, Rejection> {
        let body = match message_type {
            MessageType::Post => Body::Post(PostContent::parse(&raw)?),
            MessageType::Aggregate => Body::Aggregate(AggregateContent::parse(&raw)?),
            MessageType::Store => Body::Store(StoreContent::parse(&raw)?),
            MessageType::Program => Body::Program(Box::new(ProgramContent::parse(&raw)?)),
            MessageType::Instance => Body::Instance(Box::new(InstanceContent::parse(&raw)?)),
            MessageType::Forget => Body::Forget(ForgetContent::parse(&raw)?),
            MessageType::VerifiableProgram => {
                Body::VerifiableProgram(Box::new(VerifiableProgramContent::parse(&raw)?))
            }
        };
        Ok(Self { body, raw })
    }

    /// The type of message this is the content of.
    pub fn message_type(&self) -> MessageType {
        match self.body {
            Body::Post(_) => MessageType::Post,
            Body::Aggregate(_) => MessageType::Aggregate,
            Body::Store(_) => MessageType::Store,
            Body::Program(_) => MessageType::Program,
            Body::Instance(_) => MessageType::Instance,
            Body::VerifiableProgram(_) => MessageType::VerifiableProgram,
            Body::Forget(_) => MessageType::Forget,
        }
    }

    fn base(&self) -> &Base {
        match &self.body {
            Body::Post(content) => &content.base,
            Body::Aggregate(content) => &content.base,
            Body::Store(content) => &content.base,
            Body::Program(content) => &content.executable.base,
            Body::Instance(content) => &content.executable.base,
            Body::VerifiableProgram(content) => &content.base,
            Body::Forget(content) => &content.base,
        }
    }

    /// The address the content belongs to and is charged to.
    pub fn address(&self) -> &str {
        &self.base().address
    }

    /// The time claimed in the content, Unix seconds.
    pub fn time(&self) -> f64 {
        self.base().time
    }

    /// What programs and instances have in common; none for other types.
    pub fn executable(&self) -> Option<&Executable> {
        match &self.body {
            Body::Program(content) => Some(&content.executable),
            Body::Instance(content) => Some(&content.executable),
            _ => None,
        }
    }

    /// The payment stated in a STORE, PROGRAM, INSTANCE or V-PROGRAM.
    pub fn payment(&self) -> Option<&Payment> {
        match &self.body {
            Body::Store(content) => content.payment.as_ref(),
            Body::VerifiableProgram(content) => Some(&content.payment),
            _ => self
                .executable()
                .and_then(|executable| executable.payment.as_ref()),
        }
    }
}

/// Fields of every content.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Base {
    /// The address the content belongs to.
    pub address: String,
    /// The time claimed in the content, Unix seconds.
    pub time: f64,
}

impl Base {
    pub(crate) fn parse(fields: &Object<'_>) -> Parsed<Self> {
        Ok(Self {
            address: fields.required("address", text)?,
            time: fields.required("time", float_within(0.0, MAX_TIME))?,
        })
    }
}
