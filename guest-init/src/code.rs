//! A program's code: put to its place, and what is started from it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crn_protocol::guest::{Encoding, Interface, Program};
use rustix::mount::MountFlags;

use crate::archive::{Section, inside, unpack};
use crate::disks::Disk;
use crate::error::{Context, Error, Result};
use crate::system::mount;

/// Where code stands in a program's root.
pub const CODE: &str = "/opt/code";
/// What a runtime for ASGI applications carries.
pub const ASGI: &str = "/opt/crn/asgi";
/// The module that a single file of Python becomes when the entrypoint names none.
const DEFAULT_MODULE: &str = "main";

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Absolute path.
    pub executable: PathBuf,
    /// Its arguments, without its own name.
    pub arguments: Vec<String>,
    /// For a program in one file, the path of that file below [`CODE`].
    file: PathBuf,
}

/// What a program's entrypoint means.
///
/// # Errors
/// [`Error::Refused`] for an entrypoint that is no module or leaves the code.
pub fn start(program: &Program) -> Result<Start> {
    let refused =
        |why: &str| Error::Refused(format!("the entrypoint {:?} {why}", program.entrypoint));
    match program.interface {
        Interface::Asgi => {
            let (module, application) = program
                .entrypoint
                .split_once(':')
                .unwrap_or((DEFAULT_MODULE, &program.entrypoint));
            let is_name = |part: &str| !part.is_empty() && !part.contains(['/', '\0']);
            if !module.split('.').all(is_name) {
                return Err(refused("names no module"));
            }
            Ok(Start {
                executable: ASGI.into(),
                arguments: vec![format!("{module}:{application}")],
                file: PathBuf::from(format!("{}.py", module.replace('.', "/"))),
            })
        }
        Interface::Executable => {
            let file =
                inside(&program.entrypoint).ok_or_else(|| refused("is no file inside the code"))?;
            Ok(Start {
                executable: Path::new(CODE).join(&file),
                arguments: program.arguments.clone(),
                file,
            })
        }
    }
}

/// Puts the code where [`start`] finds it; called inside the program's root.
///
/// # Errors
/// A missing disk, a refused archive, or the system calls'.
pub fn place(program: &Program, start: &Start) -> Result<()> {
    let code = &program.code;
    let device = Disk::with_serial(&code.disk)?.device();
    let target = Path::new(CODE);
    fs::create_dir_all(target).context(|| format!("create the directory {CODE}"))?;
    if code.encoding == Encoding::Squashfs {
        return mount(
            &device.to_string_lossy(),
            CODE,
            "squashfs",
            MountFlags::RDONLY | MountFlags::NODEV,
            None,
        );
    }

    let room = room(target)?;
    if code.bytes > room {
        return Err(Error::Refused(format!(
            "the code is {} bytes; there is room for {room}",
            code.bytes
        )));
    }
    let disk = File::open(&device).context(|| format!("open {}", device.display()))?;
    match code.encoding {
        Encoding::Zip => unpack(Section::new(disk, code.bytes), target, room)?,
        _ => copy(disk, code.bytes, &target.join(&start.file))?,
    }
    if program.interface == Interface::Executable {
        // Archives made on other systems carry no modes.
        let _ = fs::set_permissions(&start.executable, Permissions::from_mode(0o755));
    }
    Ok(())
}

/// Bytes that can still be written below `path`.
fn room(path: &Path) -> Result<u64> {
    let statistics =
        rustix::fs::statvfs(path).context(|| format!("ask for the room in {}", path.display()))?;
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

fn copy(disk: impl Read, bytes: u64, path: &Path) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .context(|| format!("create the directory {}", parent.display()))?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(path)
        .context(|| format!("create {}", path.display()))?;
    let copied = io::copy(&mut disk.take(bytes), &mut file)
        .context(|| format!("write {}", path.display()))?;
    if copied != bytes {
        return Err(Error::Refused(format!(
            "the code's disk holds {copied} bytes of {bytes}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crn_protocol::guest::Code;

    use super::*;

    fn program(interface: Interface, entrypoint: &str) -> Program {
        Program {
            runtime: "runtime".to_owned(),
            code: Code {
                disk: "code".to_owned(),
                encoding: Encoding::Plain,
                bytes: 1,
            },
            interface,
            entrypoint: entrypoint.to_owned(),
            arguments: vec!["-v".to_owned()],
            variables: BTreeMap::new(),
            volumes: vec![],
        }
    }

    #[test]
    fn an_asgi_module_in_one_file_takes_its_name_from_the_entrypoint() {
        let start = start(&program(Interface::Asgi, "web.server:app")).unwrap();
        assert_eq!(start.executable, Path::new("/opt/crn/asgi"));
        assert_eq!(start.arguments, ["web.server:app"]);
        assert_eq!(start.file, Path::new("web/server.py"));
    }

    #[test]
    fn an_asgi_entrypoint_without_a_module_means_main() {
        let start = start(&program(Interface::Asgi, "app")).unwrap();
        assert_eq!(
            (start.arguments, start.file),
            (vec!["main:app".to_owned()], PathBuf::from("main.py"))
        );
    }

    #[test]
    fn an_executable_is_started_from_the_code_with_its_arguments() {
        let start = start(&program(Interface::Executable, "./bin/server")).unwrap();
        assert_eq!(start.executable, Path::new("/opt/code/bin/server"));
        assert_eq!(start.arguments, ["-v"]);
    }

    #[test]
    fn an_entrypoint_that_leaves_the_code_is_refused() {
        assert!(start(&program(Interface::Executable, "../sbin/init")).is_err());
        assert!(start(&program(Interface::Asgi, "/etc/x:app")).is_err());
        assert!(start(&program(Interface::Asgi, "a..b:app")).is_err());
    }

    #[test]
    fn one_file_of_code_is_as_long_as_declared() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/main.py");
        copy(&b"pass\n\0\0\0"[..], 5, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"pass\n");
        assert!(copy(&b"pa"[..], 5, &path).is_err());
    }
}
