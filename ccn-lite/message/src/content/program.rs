//! PROGRAM: code run on demand or kept running.

use serde::Serialize;
use serde_json::{Map, Value};

use super::BASE;
use super::environment::FunctionEnvironment;
use super::executable::{EXECUTABLE, Executable};
use crate::ItemHash;
use crate::fields::{FieldError, Object, Parsed, boolean, item_hash, list, named, object, text};

const MAX_SUBSCRIPTION_ENTRIES: usize = 32;

named_values! {
    /// Form of a file of code or data.
    Encoding { Plain = "plain", Zip = "zip", Squashfs = "squashfs" }
}

named_values! {
    /// How a program is called.
    Interface { Asgi = "asgi", Binary = "binary" }
}

/// Content of a PROGRAM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProgramContent {
    /// What it has in common with instances.
    #[serde(flatten)]
    pub executable: Executable,
    /// Always `vm-function`.
    #[serde(rename = "type")]
    pub machine_type: &'static str,
    /// Environment.
    pub environment: FunctionEnvironment,
    /// What is run.
    pub code: CodeContent,
    /// Root file system.
    pub runtime: FunctionRuntime,
    /// Input data.
    pub data: Option<DataContent>,
    /// Output data.
    pub export: Option<Export>,
    /// What starts it.
    pub on: FunctionTriggers,
}

/// The code of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodeContent {
    /// Form of the file.
    pub encoding: Encoding,
    /// `module:app` for ASGI, or the file to execute.
    pub entrypoint: String,
    /// The STORE message.
    #[serde(rename = "ref")]
    pub reference: ItemHash,
    /// How it is called; told from the entry point when absent.
    pub interface: Option<Interface>,
    /// Arguments.
    pub args: Option<Vec<String>>,
    /// Whether the newest update of the STORE is meant.
    pub use_latest: bool,
}

impl CodeContent {
    /// The stated interface, or ASGI when the entry point has a colon.
    pub fn inferred_interface(&self) -> Interface {
        self.interface.unwrap_or(if self.entrypoint.contains(':') {
            Interface::Asgi
        } else {
            Interface::Binary
        })
    }
}

/// Root file system of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionRuntime {
    /// The STORE message.
    #[serde(rename = "ref")]
    pub reference: ItemHash,
    /// Whether the newest update of the STORE is meant.
    pub use_latest: bool,
    /// Free text.
    pub comment: String,
}

/// Input data of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DataContent {
    /// Form of the file.
    pub encoding: Encoding,
    /// Where it is mounted.
    pub mount: String,
    /// The STORE message.
    #[serde(rename = "ref")]
    pub reference: ItemHash,
    /// Whether the newest update of the STORE is meant.
    pub use_latest: Option<bool>,
}

/// Output data of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Export {
    /// Form of the file.
    pub encoding: Encoding,
    /// Where it is found.
    pub mount: String,
}

/// What starts a program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunctionTriggers {
    /// HTTP requests.
    pub http: bool,
    /// New messages that match.
    pub message: Option<Vec<Map<String, Value>>>,
    /// Whether it is kept running.
    pub persistent: Option<bool>,
}

impl ProgramContent {
    /// Whether the program is kept running rather than started on demand.
    pub fn is_persistent(&self) -> bool {
        self.on.persistent == Some(true)
    }

    pub(crate) fn parse(value: &Value) -> Parsed<Self> {
        let fields = Object::new(value)?;
        fields.only(&[
            BASE,
            EXECUTABLE,
            &["type", "code", "runtime", "data", "export", "on"],
        ])?;
        fields.required("type", |value| match value.as_str() {
            Some("vm-function") => Ok(()),
            _ => Err(FieldError::new("Input should be 'vm-function'")),
        })?;
        Ok(Self {
            executable: Executable::parse(&fields)?,
            machine_type: "vm-function",
            environment: fields.required("environment", FunctionEnvironment::parse)?,
            code: fields.required("code", code)?,
            runtime: fields.required("runtime", runtime)?,
            data: fields.optional("data", data)?,
            export: fields.optional("export", export)?,
            on: fields.required("on", triggers)?,
        })
    }
}

fn code(value: &Value) -> Parsed<CodeContent> {
    let fields = Object::new(value)?;
    Ok(CodeContent {
        encoding: fields.required("encoding", named)?,
        entrypoint: fields.required("entrypoint", text)?,
        reference: fields.required("ref", item_hash)?,
        interface: fields.optional("interface", named)?,
        args: fields.optional("args", list(usize::MAX, text))?,
        use_latest: fields.or("use_latest", false, boolean)?,
    })
}

fn runtime(value: &Value) -> Parsed<FunctionRuntime> {
    let fields = Object::new(value)?;
    Ok(FunctionRuntime {
        reference: fields.required("ref", item_hash)?,
        use_latest: fields.or("use_latest", true, boolean)?,
        comment: fields.required("comment", text)?,
    })
}

fn data(value: &Value) -> Parsed<DataContent> {
    let fields = Object::new(value)?;
    let use_latest = match fields.0.get("use_latest") {
        None => Some(false),
        Some(_) => fields.optional("use_latest", boolean)?,
    };
    Ok(DataContent {
        encoding: fields.required("encoding", named)?,
        mount: fields.required("mount", text)?,
        reference: fields.required("ref", item_hash)?,
        use_latest,
    })
}

fn export(value: &Value) -> Parsed<Export> {
    let fields = Object::new(value)?;
    Ok(Export {
        encoding: fields.required("encoding", named)?,
        mount: fields.required("mount", text)?,
    })
}

fn triggers(value: &Value) -> Parsed<FunctionTriggers> {
    let fields = Object::new(value)?;
    fields.only(&[&["http", "message", "persistent"]])?;
    let subscription = |value: &Value| {
        let subscription = object(value)?;
        if subscription.len() > MAX_SUBSCRIPTION_ENTRIES {
            return Err(FieldError::new(format!(
                "Object should have at most {MAX_SUBSCRIPTION_ENTRIES} entries"
            )));
        }
        Ok(subscription)
    };
    Ok(FunctionTriggers {
        http: fields.required("http", boolean)?,
        message: fields.optional("message", list(usize::MAX, subscription))?,
        persistent: fields.optional("persistent", boolean)?,
    })
}
