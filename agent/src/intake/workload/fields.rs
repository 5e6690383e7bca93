//! Fields of a message that ask for what this node does not do: each is refused by its name before anything is started, or,
//! where published clients send it without meaning it, told to the owner (spec crn-api §9.2 R18).
//!
//! Not looked at, because there is nothing to do about them: `environment.hypervisor`, whose two monitors this node's own
//! stands for; `environment.reproducible`, `environment.shared_cache` and `rootfs.forgotten_by` of an instance, which the
//! network's schema keeps without effect; and an instance's `resources.seconds`, which is the time of an answer.

use aleph_message::{InstanceContent, ProgramContent, VolumePersistence};

use super::{Unsupported, unsupported};

/// What a program cannot have here.
pub(super) fn check_program(program: &ProgramContent) -> Result<(), Unsupported> {
    let environment = &program.environment;
    let asked = |list: Option<usize>| list.is_some_and(|length| length > 0);
    let executable = &program.executable;
    for (is_asked, field, why) in [
        (
            environment.shared_cache,
            "environment.shared_cache",
            "programs share no cache here",
        ),
        (
            environment.reproducible,
            "environment.reproducible",
            "this node cannot promise that runs are",
        ),
        (
            program.export.is_some(),
            "export",
            "what a program leaves is not published here, keep it in a volume",
        ),
        (
            asked(program.on.message.as_ref().map(Vec::len)),
            "on.message",
            "messages start no programs here",
        ),
        (
            asked(executable.authorized_keys.as_ref().map(Vec::len)),
            "authorized_keys",
            "nobody logs into a program",
        ),
        (
            asked(executable.resources.published_ports.as_ref().map(Vec::len)),
            "resources.published_ports",
            "a program is reached over HTTP alone",
        ),
    ] {
        if is_asked {
            return unsupported(format!("{field}: {why}"));
        }
    }
    Ok(())
}

/// What an instance cannot have here.
pub(super) fn check_instance(instance: &InstanceContent) -> Result<(), Unsupported> {
    if instance.environment.trusted_execution.is_some() {
        return unsupported(
            "environment.trusted_execution: this node has no confidential computing",
        );
    }
    if instance.rootfs.persistence == VolumePersistence::Store {
        return unsupported(
            "rootfs.persistence: a disk cannot be kept in the network's storage here, ask for host",
        );
    }
    let variables = instance.executable.variables.as_ref();
    if variables.is_some_and(|variables| !variables.is_empty()) {
        return unsupported(
            "variables: an instance has no environment of the node's, use metadata.user_data",
        );
    }
    Ok(())
}

/// What a program does without. The published Python client asks for the API with every program, and for the internet with
/// none: refused, nothing that it uploads would run.
pub(super) fn unheeded(program: &ProgramContent) -> Vec<&'static str> {
    let environment = &program.environment;
    if environment.aleph_api && !environment.internet {
        vec![
            "environment.aleph_api: the network's API is reached over the internet here, and environment.internet is false",
        ]
    } else {
        vec![]
    }
}
